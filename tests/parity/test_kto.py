"""Loss and gradient of TRL's KTOTrainer on the same model and labels, baseline included."""

from __future__ import annotations

from itertools import pairwise
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
from turnwise.algorithms import KTO
from turnwise.algorithms.preferences import labelled, mismatched, with_reference
from turnwise.learners import LocalLearner
from turnwise.metrics import means
from turnwise.objectives import kto, pair_mean

pytestmark = needs_trl

LABELS = [True, False, True, True, False, True, False]


class Case:
    """Seven labelled rows, a trainer, and the same weights on our side; `seeds` are those of policy and reference."""

    def __init__(self, folder: Any, seeds: tuple[int, int], **settings: Any) -> None:
        from datasets import Dataset
        from trl import KTOConfig, KTOTrainer

        rng = np.random.default_rng(0)
        rows = [
            {"prompt": random_words(rng, 1, 6), "completion": random_words(rng, 1, 8), "label": label}
            for label in LABELS
        ]
        self.model, reference = tiny_model(seeds[0]), tiny_model(seeds[1])
        self.learner = LocalLearner(policy_like(self.model), reference=policy_like(reference), max_tokens=30)
        self.trainer: Any = KTOTrainer(
            self.model, reference, args=KTOConfig(**cheap(folder, beta=0.3, **settings)),
            train_dataset=Dataset.from_list(rows), processing_class=TOKENIZER,
        )  # fmt: skip
        self.rows = [self.trainer.train_dataset[i] for i in range(len(rows))]
        self.inputs = self.trainer.data_collator(self.rows)
        self.episodes = [episode(row["prompt_ids"], row["completion_ids"], float(row["label"])) for row in self.rows]

    def theirs(self) -> Any:
        """TRL's loss, its gradient left in the model."""
        loss = self.trainer._compute_loss(self.trainer.model, self.inputs, return_outputs=False)
        loss.backward()
        return loss

    def figure(self, name: str) -> float:
        """What TRL logged."""
        return next(figures[name][-1] for figures in self.trainer._metrics.values() if figures.get(name))


# The divergence that two pairs of models have on mismatched rows: one is above 0, the other below, where it is cut.
@pytest.mark.parametrize("seeds", [(0, 1), (1, 0), (2, 2)])
@pytest.mark.parametrize("kind", ["kto", "apo_zero_unpaired"])
def test_loss_and_gradient(tmp_path: Any, kind: str, seeds: tuple[int, int]) -> None:
    with quiet():
        case = Case(tmp_path, seeds, loss_type=kind, desirable_weight=1.2, undesirable_weight=0.7)
        loss = case.theirs()
    learner, algorithm = case.learner, KTO(beta=0.3, desirable=1.2, undesirable=0.7, baseline=kind == "kto")
    batch = with_reference(learner, labelled(case.episodes, LABELS))
    batch = algorithm.prepare(learner, batch).weighted(pair_mean)
    assert len(list(batch.micro_batches(learner.max_tokens))) > 2
    metrics = learner.gradient(batch, kto(0.3, desirable=1.2, undesirable=0.7))
    same_loss_and_gradient(loss, case.model, metrics, learner.policy)
    ours = means(metrics)
    assert ours["kl/baseline"] == pytest.approx(case.figure("kl"), abs=1e-4)
    for name in ("rewards/chosen", "rewards/rejected", "logps/chosen", "logps/rejected"):
        assert ours[name] == pytest.approx(case.figure(name), rel=1e-4, abs=1e-6)


def test_prompts_meet_the_same_strangers(tmp_path: Any) -> None:
    with quiet():
        case = Case(tmp_path, (0, 1))
    strange = mismatched(labelled(case.episodes, LABELS), limit=128)
    theirs = sorted(case.rows[i]["prompt_ids"] + case.rows[i]["KL_completion_ids"] for i in range(len(case.rows)))
    bounds = strange.cu_seqlens.tolist()
    ours = sorted(strange.tokens[a:b].tolist() for a, b in pairwise(bounds))
    assert ours == theirs
