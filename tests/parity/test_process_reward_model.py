"""Loss and gradient of TRL's PRMTrainer, in the last release that had it, on the same model and steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from tests.parity.old_releases import run_with, trl_release
from tests.parity.test_reward_model import Recorded
from tests.parity.trl import TOKENIZER, gradients, policy_like, random_words, same_gradient, tiny_model
from turnwise.algorithms import ProcessRewardModel
from turnwise.episode import Episode, Source, Turn
from turnwise.learners import LocalLearner
from turnwise.models import Scorer

SCRIPT = """
import warnings
warnings.simplefilter("ignore")
from datasets import Dataset
from safetensors.torch import save_file
from transformers import AutoModelForTokenClassification, PreTrainedTokenizerFast
from trl.experimental.prm import PRMConfig, PRMTrainer

answer = {}
for name, last_step_only in (("every", False), ("last", True)):
    model = AutoModelForTokenClassification.from_pretrained(given["model"])
    tokenizer = PreTrainedTokenizerFast.from_pretrained(given["model"])
    arguments = PRMConfig(
        output_dir=given["folder"], report_to="none", use_cpu=True, bf16=False, gradient_checkpointing=False,
        step_separator=given["separator"], max_length=None, train_on_last_step_only=last_step_only,
    )
    data = Dataset.from_list(given["rows"])
    trainer = PRMTrainer(model, args=arguments, train_dataset=data, processing_class=tokenizer)
    rows = [trainer.train_dataset[i] for i in range(len(given["rows"]))]
    model.eval()
    loss = trainer.compute_loss(model, trainer.data_collator(rows))
    loss.backward()
    save_file({name: p.grad for name, p in model.named_parameters()}, given["folder"] + "/" + name)
    answer[name] = {"loss": float(loss.detach()), "rows": rows}
"""


def answered(ids: list[int], ends: list[int], labels: list[bool]) -> Episode:
    """Steps that end at `ends`. Where the prompt stops and the first step begins does not matter to what is said at its end."""
    turns, start = [], 1
    for t, (end, label) in enumerate(zip(ends, labels, strict=True)):
        act = np.array(ids[start : end + 1], np.int32)
        obs = np.array(ids[:1] if t == 0 else [], np.int32)
        turns.append(Turn(obs, act, np.zeros(len(act), np.float32), float(label), fresh=t == 0))
        start = end + 1
    return Episode("0", tuple(turns), True, False, np.zeros(0, np.int32), source=Source.DATASET)


def test_the_loss_and_its_gradient_are_trls(tmp_path: Path) -> None:
    release = trl_release("1.13.0")
    rng = np.random.default_rng(0)
    rows = []
    for n in rng.integers(1, 5, size=6):
        answer = [random_words(rng, 1, 6).strip() for _ in range(n)]
        prompt, labels = random_words(rng, 2, 6).strip(), rng.random(n) < 0.5
        rows.append({"prompt": prompt, "completions": answer, "labels": labels.tolist()})
    ours = Scorer.of(policy_like(tiny_model()), kind="process", seed=4)
    ours.save(tmp_path / "model")
    given = {"model": str(tmp_path / "model"), "folder": str(tmp_path), "rows": rows, "separator": "\n"}
    theirs = run_with(release, SCRIPT, given)

    separator = len(TOKENIZER.encode("\n", add_special_tokens=False))
    for name in ("every", "last"):
        episodes = []
        for row, tokenised in zip(rows, theirs[name]["rows"], strict=True):
            lengths = [len(TOKENIZER.encode(step, add_special_tokens=False)) + separator for step in row["completions"]]
            before = len(tokenised["input_ids"]) - sum(lengths)
            ends = (before + np.cumsum(lengths) - 1).tolist()
            assert ends[-1:] == [i for i, label in enumerate(tokenised["labels"]) if label != -100][-1:]
            episodes.append(answered(tokenised["input_ids"], ends, row["labels"]))
        method = ProcessRewardModel(last_step_only=name == "last", minibatch=1000)
        metrics = method.improve(Recorded(LocalLearner(ours, max_tokens=24)), episodes).metrics
        assert metrics["loss"][0] == pytest.approx(theirs[name]["loss"], abs=1e-5)
        same_gradient(load_file(tmp_path / name), gradients(ours.model))
