"""Loss and gradient of TRL's RewardTrainer, on the same model and pairs: plain, with margins, with centred scores.

Ours run as in training: packed without padding, micro-batches of a few tokens, and the score read where the side ends.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.parity.trl import (
    TOKENIZER,
    cheap,
    episode,
    gradients,
    needs_trl,
    policy_like,
    quiet,
    random_words,
    same_gradient,
    tiny_model,
)
from turnwise.algorithms import RewardModel
from turnwise.learners import LocalLearner
from turnwise.models import Scorer

pytestmark = needs_trl


class Recorded:
    """A learner that keeps the gradient of what an algorithm asks of it, and takes no step."""

    def __init__(self, learner: LocalLearner) -> None:
        self.learner, self.seed, self.version = learner, 0, 0
        self.evaluate = learner.evaluate

    def update(self, batch: Any, objective: Any) -> Any:
        return self.learner.gradient(batch, objective)


@pytest.mark.parametrize(("margin", "centre"), [(False, None), (True, None), (False, 0.01), (True, 0.5)])
def test_the_loss_and_its_gradient_are_trls(margin: bool, centre: float | None, tmp_path: Path) -> None:
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer

    rng = np.random.default_rng(0)
    rows = [
        {name: random_words(rng, 1, high) for name, high in [("prompt", 6), ("chosen", 7), ("rejected", 9)]}
        | ({"margin": float(rng.uniform(0.1, 2))} if margin else {})
        for _ in range(7)
    ]
    ours = Scorer.of(policy_like(tiny_model()), seed=4)
    model = copy.deepcopy(ours.model)
    model.set_attn_implementation("sdpa")
    with quiet():
        trainer: Any = RewardTrainer(
            model, args=RewardConfig(**cheap(tmp_path, center_rewards_coefficient=centre)), processing_class=TOKENIZER,
            train_dataset=Dataset.from_list(rows),
        )  # fmt: skip
        tokenised = [trainer.train_dataset[i] for i in range(len(rows))]
        loss = trainer.compute_loss(model, trainer.data_collator(tokenised))
    loss.backward()

    worth = [row.get("margin", 1.0) for row in rows]
    episodes = [
        episode(row[side][:1], row[side][1:], reward, str(i))
        for i, (row, value) in enumerate(zip(tokenised, worth, strict=True))
        for side, reward in (("chosen_ids", value), ("rejected_ids", 0.0))
    ]
    method = RewardModel(margin=float(margin), centre=centre or 0.0, minibatch=len(rows))
    metrics = method.improve(Recorded(LocalLearner(ours, max_tokens=24)), episodes).metrics
    assert metrics["loss"][0] == pytest.approx(float(loss.detach()), abs=1e-5)
    same_gradient(gradients(model), gradients(ours.model))


def test_the_figures_are_trls(tmp_path: Path) -> None:
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer

    rng = np.random.default_rng(1)
    rows = [{name: random_words(rng, 1, 8) for name in ("prompt", "chosen", "rejected")} for _ in range(9)]
    ours = Scorer.of(policy_like(tiny_model()), seed=4)
    model = copy.deepcopy(ours.model)
    model.set_attn_implementation("sdpa")
    with quiet():
        trainer: Any = RewardTrainer(
            model,
            args=RewardConfig(**cheap(tmp_path)),
            processing_class=TOKENIZER,
            train_dataset=Dataset.from_list(rows),
        )
        tokenised = [trainer.train_dataset[i] for i in range(len(rows))]
        trainer.compute_loss(model, trainer.data_collator(tokenised))
    theirs = trainer._metrics["train" if model.training else "eval"]
    episodes = [
        episode(row[side][:1], row[side][1:], reward, str(i))
        for i, row in enumerate(tokenised)
        for side, reward in (("chosen_ids", 1.0), ("rejected_ids", 0.0))
    ]
    metrics = RewardModel().improve(Recorded(LocalLearner(ours)), episodes).metrics
    assert metrics["scores/accuracy"][0] == pytest.approx(theirs["accuracy"][0])
    assert metrics["scores/margin"][0] == pytest.approx(theirs["margin"][0], abs=1e-5)
    mean = (metrics["scores/chosen"][0] + metrics["scores/rejected"][0]) / 2
    assert mean == pytest.approx(theirs["mean_reward"][0], abs=1e-5)
