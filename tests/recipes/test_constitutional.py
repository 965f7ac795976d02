"""A constitutional run from plain settings: (1) every choice of critic, reviser and judge makes a source of both worlds, (2) edited prompts
are used, (3) the files to edit are written once, (4) what cannot work is refused with its remedy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.text.templates import CHATML, byte_level
from turnwise.algorithms import SFT, RewardModel
from turnwise.algorithms.constitutional import Constitutional
from turnwise.algorithms.settings import SettingsError
from turnwise.data.rows import Kind, read_row
from turnwise.engines import LocalChat
from turnwise.envs.registry import EnvSpec, spec
from turnwise.errors import TurnwiseError
from turnwise.models import Policy, Sampling, build_model, build_tokenizer
from turnwise.recipes import constitutional
from turnwise.recipes.constitutional import (
    FILES,
    Principles,
    check_principles,
    evaluation_rewards,
    make_source,
    vocabulary,
    write_preferences,
    write_procedure,
)
from turnwise.recipes.settings import Data, Model, Optimiser, Training, World
from turnwise.recipes.sources import resolve_env
from turnwise.recipes.training import run
from turnwise.rollout.constitution import distil
from turnwise.testing import build_dialogue
from turnwise.text import Conversation, Reader, Renderer

PROMPTS = ["tell me a joke", "tell me the news"]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "principles.txt").write_text("No weather. [forbids: rain|sun]\nBe kind.\n")
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in PROMPTS))
    return tmp_path


def parts(files: Path, principles: Principles) -> tuple[Training, EnvSpec, Policy]:
    data = Data(data=str(files / "prompts.jsonl"))
    training = Training(Constitutional(), World(env="prompts", max_tokens=4, memory=0), data=data)
    texts = [*PROMPTS, *vocabulary(principles), "rain sun A B The reply keeps to the principle goes against it says ok"]
    tokenizer = build_tokenizer(texts)
    model = build_model(tokenizer, seed=3, context=512)
    said = {tokenizer.encode(word)[0] for word in ("rain", "ok", "A", "B")} | {tokenizer.eos_token_id}
    model.generation_config.suppress_tokens = [token for token in range(len(tokenizer)) if token not in said]
    return training, resolve_env(training, None), Policy(model, tokenizer, sampling=Sampling(max_tokens=4))


CHOICES: dict[str, dict[str, Any]] = {
    "rules": {},
    "itself": {"critic": "self", "judge": "self"},
    "a model, which revises too": {"critic": "judge:somewhere", "judge": "judge:somewhere"},
    "a model, and the policy revises": {"critic": "judge:somewhere", "reviser": "policy"},
    "a rule, and the policy revises": {"critic": "rule", "reviser": "policy", "rounds": 2},
}


@pytest.mark.parametrize("name", CHOICES)
def test_every_choice_makes_a_source_of_both_worlds(name: str, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Principles(principles=str(files / "principles.txt"), **CHOICES[name])
    training, world, policy = parts(files, settings)
    # Untrained models answer nonsense; this one at least answers with a letter.
    monkeypatch.setattr(LocalChat, "complete_all", lambda self, asked: ["A"] * len(asked))
    monkeypatch.setattr(constitutional, "_chat", lambda *_: LocalChat(policy))
    source = make_source(training, world, policy, settings)
    dialogues = source.revisions(0, 12)
    turns = 1 + settings.rounds * (1 if settings.reviser == "policy" and settings.critic != "self" else 2)
    assert {len(episode.turns) for episode in dialogues} <= {1, turns}
    assert turns in {len(episode.turns) for episode in dialogues}
    reader = Reader(policy.renderer)
    assert all(reader.observation(episode, 0) in PROMPTS for episode in distil(dialogues))
    groups = source.rollouts(0, 4, 2)
    assert len(groups) == 8
    assert all(set(turn.rewards) <= {"principles"} for episode in groups for turn in episode.turns)
    if settings.judge == "judge:somewhere":  # it says A whatever the order: a tie
        assert all(episode.undiscounted_return == 0.5 for episode in groups)
    assert not any(np.isinf(episode.rewards).any() for episode in groups)
    source.close()


def test_the_prompts_of_the_procedure_can_be_edited(files: Path) -> None:
    assert [path.name for path in write_procedure(files / "own")] == list(FILES)
    (files / "own" / "critique.txt").write_text("is it kind? {principle}")
    assert write_procedure(files / "own") == []  # what is there is left alone
    settings = Principles(principles=str(files / "own" / "principles.txt"), procedure=str(files / "own"), critic="self")
    assert check_principles(settings)
    training, world, policy = parts(files, settings)
    source = make_source(training, world, policy, settings)
    (episode,) = source.revisions(0, 1)
    assert Reader(policy.renderer).observation(episode, 1).startswith("is it kind?")
    source.close()


def test_preferences_by_the_principles_train_a_preference_model(files: Path) -> None:
    settings = Principles(principles=str(files / "principles.txt"))
    training, world, policy = parts(files, settings)
    source = make_source(training, world, policy, settings)
    n = write_preferences(source, policy.renderer, files / "pairs.jsonl", groups=24)
    source.close()
    rows = [json.loads(line) for line in (files / "pairs.jsonl").read_text().splitlines()]
    assert 0 < n == len(rows) <= 24
    assert all("rain" in row["rejected"] and "rain" not in row["chosen"] for row in rows)
    assert {row["prompt"] for row in rows} <= set(PROMPTS)
    judge = Training(RewardModel(groups=8), data=Data(data=str(files / "pairs.jsonl")), steps=2)
    trained = run(judge, files / "judge", progress=False)
    assert trained.policy.kind == "reward"

    class Alike:
        def rollouts(self, iteration: int, groups: int, group_size: int) -> Any:
            return [build_dialogue([("tell me a joke", "ok")], policy.renderer)] * groups

    with pytest.raises(TurnwiseError, match="a better and a worse"):
        write_preferences(Alike(), policy.renderer, files / "none.jsonl", groups=3)


def test_prompts_of_several_messages_are_written_as_messages(tmp_path: Path) -> None:
    """Read again as data, they are the prompts that the replies were given to."""
    renderer = Renderer(byte_level(CHATML))
    told = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "tell me a joke"}]

    class Told:
        def rollouts(self, iteration: int, groups: int, group_size: int) -> Any:
            return [
                build_dialogue([(prompt, reply)], renderer, rewards=[worth], group=str(number))
                for number, prompt in enumerate((Conversation(told), "tell me a joke"))
                for reply, worth in (("ok", 0.0), ("rain", -1.0))
            ]

    assert write_preferences(Told(), renderer, tmp_path / "pairs.jsonl", groups=2) == 2
    rows = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    assert [row["prompt"] for row in rows] == [told, told[1:]]
    assert rows[0]["chosen"] == [{"role": "assistant", "content": "ok"}]
    assert rows[0]["rejected"] == [{"role": "assistant", "content": "rain"}]
    read = [read_row(Kind.PREFERENCE, number, row).prompt for number, row in enumerate(rows)]
    assert [list(prompt.messages) for prompt in read if isinstance(prompt, Conversation)] == [told, told[1:]]


def test_a_run_from_its_settings(files: Path) -> None:
    """Both phases, then an evaluation that counts violations."""
    rows = [{"prompt": prompt, "completion": reply} for prompt in PROMPTS for reply in ("rain now", "ok now")]
    (files / "chat.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    world = World(env="prompts", max_tokens=4)
    start = Training(SFT(), world, data=Data(data=str(files / "chat.jsonl")), steps=30, optimiser=Optimiser(lr=3e-3))
    run(start, files / "start", progress=False)
    training = Training(
        Constitutional(revisions=1, episodes=8, groups=8, group_size=2),
        world,
        Model(str(files / "start" / "final")),
        data=Data(data=str(files / "prompts.jsonl")),
        principles=Principles(principles=str(files / "principles.txt")),
        optimiser=Optimiser(lr=1e-3),
        steps=2,
    )
    trained = run(training, files / "run", progress=False)
    imitation, preferences = (json.loads(line) for line in (files / "run" / "metrics.jsonl").read_text().splitlines())
    assert imitation["revisions/complete"] > 0
    assert "rewards/principles/mean" in preferences
    assert trained.evaluate(8).episodes == 8


def test_an_evaluation_counts_violations(files: Path) -> None:
    settings = Principles(principles=str(files / "principles.txt"))
    _, _, policy = parts(files, settings)
    _, pays = evaluation_rewards(settings, policy)["principles"]
    spoken = [build_dialogue([("tell me a joke", reply)], policy.renderer) for reply in ("ok", "rain")]
    assert [float(array.sum()) for array in pays(spoken)] == [0.0, -1.0]
    (files / "words.txt").write_text("Be kind.")
    assert evaluation_rewards(Principles(str(files / "words.txt"), critic="self", judge="self"), policy) == {}


def test_what_cannot_work_is_refused(files: Path) -> None:
    for settings in ({"critic": "nobody"}, {"judge": "me"}, {"rounds": 0}, {"reviser": "rule"}):
        with pytest.raises(SettingsError, match=next(iter(settings))):
            Principles(**settings)  # type: ignore[arg-type]
    with pytest.raises(TurnwiseError, match="--principles FILE"):
        check_principles(Principles())
    (files / "words.txt").write_text("Be kind.")
    with pytest.raises(TurnwiseError, match="the critic judges by rules"):
        check_principles(Principles(principles=str(files / "words.txt")))
    with pytest.raises(TurnwiseError, match="there is no folder"):
        check_principles(Principles(principles=str(files / "principles.txt"), procedure=str(files / "none")))
    settings = Principles(principles=str(files / "principles.txt"))
    training, _, policy = parts(files, settings)
    with pytest.raises(TurnwiseError, match="no prompts"):
        make_source(training, spec("guess"), policy, settings)
    with pytest.raises(TurnwiseError, match="not one model"):
        constitutional._chat("judge:http://127.0.0.1:9/v1#a, judge:http://127.0.0.1:9/v1#b")
    (files / "file").write_text("x")
    with pytest.raises(TurnwiseError, match="cannot write into"):
        write_procedure(files / "file")
