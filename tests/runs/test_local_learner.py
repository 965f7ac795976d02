"""The promises of a run, kept with a real language model: exact resumption, and a model folder that others can load."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from turnwise.algorithms import SFT
from turnwise.episode import Transcript
from turnwise.learners import LocalLearner
from turnwise.models import Policy
from turnwise.models.scratch import build_model, build_tokenizer
from turnwise.rollout import Logged, episodes_of
from turnwise.runs import Interrupted, RunFolder, read_rows, train

DIALOGUES = [
    Transcript(
        observations=(f"room {n} is dark", "now it is light"),
        actions=("light the lamp", f"leave room {n}"),
        rewards=(0.0, 1.0),
        terminated=True,
        truncated=False,
        seed=n,
    )
    for n in range(12)
]


def parts() -> tuple[SFT, Logged, LocalLearner]:
    tokenizer = build_tokenizer(text for d in DIALOGUES for text in (*d.observations, *d.actions))
    policy = Policy(build_model(tokenizer, seed=1), tokenizer, value_head=True)
    return SFT(episodes=4, minibatch=2), Logged(episodes_of(DIALOGUES, policy), seed=5), LocalLearner(policy, lr=1e-2)


def lines(path: Path) -> list[dict[str, Any]]:
    return [
        {k: v for k, v in json.loads(x).items() if not k.startswith("time/")} for x in path.read_text().splitlines()
    ]


def test_a_language_model_resumes_exactly_and_loads_elsewhere(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"steps": 6, "save_every": 2, "progress": False, "tensorboard": False}
    algorithm, source, learner = parts()
    with RunFolder.create(tmp_path / "whole", {}) as whole:
        train(algorithm, source, learner, whole, **settings)

    def stop(iteration: int, values: dict[str, float]) -> None:
        if iteration == 3:
            raise KeyboardInterrupt

    with RunFolder.create(tmp_path / "halves", {}) as halves, pytest.raises(Interrupted):
        train(*parts(), halves, on_iteration=stop, **settings)
    with RunFolder.open(tmp_path / "halves") as halves:
        train(*parts(), halves, **settings)

    assert lines(whole.metrics) == lines(halves.metrics)
    for name in ("model.safetensors", "value_head.safetensors"):
        assert (whole.final / name).read_bytes() == (halves.final / name).read_bytes()
    first, *_, last = lines(whole.metrics)
    assert last["nll"] < first["nll"]

    trained = learner.policy.model.state_dict()
    loaded = AutoModelForCausalLM.from_pretrained(whole.final).state_dict()
    assert loaded.keys() == trained.keys()
    assert all(torch.equal(loaded[name], trained[name]) for name in trained)
    assert "light the lamp" in read_rows(whole.episodes(1))[0]["turns"][0]["act_text"]
