"""A self-judge run from plain settings: (1) the judge is trained first, frozen, and is the same after a resume, (2) the curves are those of
the definition, (3) the page, (4) what cannot work is refused."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from turnwise.algorithms.self_judge import SelfJudge
from turnwise.batch import Outputs
from turnwise.errors import TurnwiseError
from turnwise.learners import LocalLearner
from turnwise.models import Policy, Sampling, Scorer, build_model, build_tokenizer
from turnwise.recipes.self_judge import (
    check_labels,
    conclude,
    judge_before_generating,
    make_source,
    overoptimisation,
    train_judge,
    weights_hash,
    write_report,
)
from turnwise.recipes.settings import Data, Feedback, Training, World
from turnwise.recipes.sources import resolve_env
from turnwise.rollout import episodes_of
from turnwise.runs import RunFolder, train
from turnwise.testing import build_episode

WORDS = ["good", "plain", "bad"]


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    rng = random.Random(0)
    rows = []
    for _ in range(60):
        words = [rng.choice(WORDS) for _ in range(3)]
        rows.append({"prompt": rng.choice(["speak", "talk"]), "completion": " ".join(words), "label": "good" in words})
    path = tmp_path / "labelled.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "gold.py").write_text(
        "def gold(completions, **columns):\n    return [float('good' in text.split()) for text in completions]\n"
    )
    return path


def test_a_run_from_judge_to_page(labelled: Path, tmp_path: Path) -> None:
    from turnwise.recipes.dataset import training_transcripts

    training = Training(
        SelfJudge(groups=2, group_size=4, judge_passes=2),
        World(env="prompts", max_tokens=5),
        data=Data(data=str(labelled)),
        feedback=Feedback(reward=f"{tmp_path / 'gold.py'}:gold"),
    )
    world = resolve_env(training, None)
    tokenizer = build_tokenizer(["speak talk", *WORDS])

    def policy() -> Policy:
        return Policy(build_model(tokenizer, seed=1, context=32), tokenizer, sampling=Sampling(max_tokens=5))

    out, made = tmp_path / "run", policy()
    episodes = episodes_of(training_transcripts(training), made)
    with RunFolder.create(out, {"training": training.to_config()}, seeds={}) as folder:
        judge = train_judge(training, made, episodes, out, progress=False)
        before = weights_hash(judge)
        assert not judge.parameters()
        assert before != weights_hash(Scorer.of(made))
        learner = LocalLearner(made, reference=made.reference(), judge=judge)
        source = make_source(training, world, made, judge)
        train(training.algorithm, source, learner, folder, steps=3, progress=False, tensorboard=False)
        source.close()
    assert weights_hash(judge) == before
    assert weights_hash(train_judge(training, policy(), episodes, out, progress=False)) == before  # on a resume
    assert weights_hash(Scorer.from_pretrained(out / "judge" / "final")) == before

    curves = overoptimisation(out)
    assert curves.iteration.tolist() == [1, 2, 3]
    assert curves.root_kl[0] == pytest.approx(0.0, abs=0.05)
    assert np.allclose(curves.gap, curves.gold - curves.proxy)
    assert ((curves.gold >= 0) & (curves.gold <= 1)).all()
    page = write_report(out, judge_before_generating(judge, episodes, points=4)).read_text()
    assert "before and while generating" in page
    assert "gold" in page
    with pytest.raises(TurnwiseError, match="no figures of a judge"):
        overoptimisation(out / "judge")
    assert "before and while generating" not in conclude(training, judge, out).read_text()  # nothing was held out


def test_held_out_rows_are_what_the_curve_is_drawn_of(labelled: Path, tmp_path: Path) -> None:
    training = Training(SelfJudge(), World(env="prompts"), data=Data(data=str(labelled), held_out=0.5))
    tokenizer = build_tokenizer(["speak talk", *WORDS])
    judge = Scorer.of(Policy(build_model(tokenizer, seed=1, context=32), tokenizer))
    out = tmp_path / "run"
    RunFolder.create(out, {}, seeds={}).close()
    (out / "metrics.jsonl").write_text(json.dumps({"iteration": 1, "judge/proxy": 0.5, "judge/kl": -0.1}) + "\n")
    page = conclude(training, judge, out).read_text()
    assert "before and while generating" in page
    assert "gold 0" not in page  # nobody said what is true
    curves = overoptimisation(out)
    assert curves.root_kl.tolist() == [0.0]
    assert np.isnan(curves.gold).all()


class Reads:
    """A judge that is sure of a good answer from the second token on, if the first was 1."""

    def outputs(self, batch: Any) -> Outputs:
        import torch

        score = []
        for s in range(len(batch)):
            start, end = batch.cu_seqlens[s], batch.cu_seqlens[s + 1]
            tokens, action = batch.tokens[start:end].tolist(), batch.action[start:end].tolist()
            first = action.index(True)  # the last token of the prompt
            for t in range(len(tokens)):
                if action[t]:
                    score.append(5.0 if t > first and tokens[first + 1] == 1 else -5.0)
        nothing = torch.zeros(len(score))
        return Outputs(nothing, nothing, score=torch.tensor(score))


def test_the_curve_of_a_judge_that_needs_one_token() -> None:
    good = [build_episode([1.0], actions=[[1, 7, 7, 7]], observations=[[5, 6]]) for _ in range(3)]
    bad = [build_episode([0.0], actions=[[2, 7]], observations=[[5, 6]]) for _ in range(5)]
    judge: Any = Reads()
    curve = judge_before_generating(judge, good + bad, points=5)
    assert curve.seen.tolist() == [0, 0.25, 0.5, 0.75, 1]
    # Before a word is said it calls all of them bad, and five of eight are; then it knows.
    assert curve.accuracy.tolist() == [0.625, 1, 1, 1, 1]
    assert curve.auc.tolist() == [0.5, 1, 1, 1, 1]
    assert (curve.low <= curve.accuracy + 1e-9).all()
    assert (curve.accuracy <= curve.high + 1e-9).all()
    assert (curve.base_rate, curve.answers) == (0.625, 8)
    with pytest.raises(TurnwiseError, match="two points"):
        judge_before_generating(judge, good, points=1)


def test_labels_that_are_all_alike_are_refused() -> None:
    with pytest.raises(TurnwiseError, match="nothing to tell apart"):
        check_labels([build_episode([1.0])] * 3)
