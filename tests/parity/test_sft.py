"""Loss and gradient of TRL's SFTTrainer on the same model and rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.parity.trl import (
    TOKENIZER,
    cheap,
    episode,
    needs_trl,
    policy_like,
    quiet,
    random_words,
    same_loss_and_gradient,
    tiny_model,
)
from turnwise.batch import pack
from turnwise.learners import LocalLearner
from turnwise.objectives import nll, token_mean

pytestmark = needs_trl


@pytest.mark.parametrize("seed", [0, 1])
def test_loss_and_gradient(tmp_path: Any, seed: int) -> None:
    """Completion tokens are targets, prompts are not; every target token of the batch counts the same."""
    with quiet():
        from datasets import Dataset
        from trl import SFTConfig, SFTTrainer

        rng = np.random.default_rng(seed)
        rows = [{"prompt": random_words(rng, 1, 6), "completion": random_words(rng, 1, 8)} for _ in range(6)]
        model = tiny_model(seed)
        learner = LocalLearner(policy_like(model), max_tokens=15)
        trainer: Any = SFTTrainer(
            model, args=SFTConfig(**cheap(tmp_path)), train_dataset=Dataset.from_list(rows), processing_class=TOKENIZER
        )
        tokenised = [trainer.train_dataset[i] for i in range(len(rows))]
        loss = trainer.compute_loss(trainer.model, trainer.data_collator(tokenised))
    loss.backward()
    episodes = []
    for row in tokenised:
        first = next(i for i, label in enumerate(row["labels"]) if label != -100)
        episodes.append(episode(row["input_ids"][:first], row["input_ids"][first:]))
    batch = pack(episodes).weighted(token_mean)
    assert len(list(batch.micro_batches(learner.max_tokens))) > 2
    same_loss_and_gradient(loss, model, learner.gradient(batch, nll()), learner.policy)
