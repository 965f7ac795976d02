"""Loss and gradient of every loss of TRL's DPOTrainer, and of its CPO and ORPO trainers, on the same model and pairs.

Ours run as in training: packed without padding, the reference evaluated by the learner, micro-batches of a few tokens.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

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
    same_loss_and_gradient,
    tiny_model,
)
from turnwise.algorithms import DPO
from turnwise.algorithms.preferences import paired, with_reference
from turnwise.batch import Batch
from turnwise.learners import LocalLearner
from turnwise.metrics import means
from turnwise.objectives import PAIR_LOSSES, REFERENCE_FREE, chosen_token_mean, nll, pair_mean, preference

pytestmark = needs_trl

BETA = 0.3
SMOOTHED = ["robust", "exo_pair", "aot", "aot_unpaired"]
THEIRS = [
    "sigmoid", "sigmoid_norm", "hinge", "ipo", "robust", "exo_pair", "nca_pair", "bco_pair", "sppo_hard", "aot",
    "aot_unpaired", "apo_zero", "apo_down", "discopop",
]  # fmt: skip


class Case:
    """Seven pairs, a trainer, and the same weights on our side."""

    def __init__(self, folder: Any) -> None:
        from datasets import Dataset
        from trl import DPOConfig, DPOTrainer

        rng = np.random.default_rng(0)
        self.rows = [
            {name: random_words(rng, 1, high) for name, high in [("prompt", 6), ("chosen", 7), ("rejected", 9)]}
            for _ in range(7)
        ]
        self.model, reference = tiny_model(0), tiny_model(1)
        self.ours, self.our_reference = policy_like(self.model), policy_like(reference)
        self.trainer: Any = DPOTrainer(
            self.model, reference, args=DPOConfig(**cheap(folder)), train_dataset=Dataset.from_list(self.rows),
            processing_class=TOKENIZER,
        )  # fmt: skip
        tokenised = [self.trainer.train_dataset[i] for i in range(len(self.rows))]
        self.inputs = self.trainer.data_collator(tokenised)
        self.pairs = [
            (episode(row["prompt_ids"], row["chosen_ids"], 1.0), episode(row["prompt_ids"], row["rejected_ids"]))
            for row in tokenised
        ]

    def theirs(self, losses: list[str], weights: list[float] | None = None, **settings: Any) -> Any:
        """TRL's loss, its gradient left in the model."""
        trainer = self.trainer
        trainer.loss_types, trainer.loss_weights = losses, weights or [1.0] * len(losses)
        defaults = {"beta": BETA, "label_smoothing": 0.0, "f_divergence_type": "reverse_kl"}
        for name, value in (defaults | settings).items():
            setattr(trainer, name, value)
        self.model.zero_grad(set_to_none=True)
        with quiet():
            loss = trainer._compute_loss(trainer.model, self.inputs, return_outputs=False)
        loss.backward()
        return loss

    def learner(self) -> LocalLearner:
        """Micro-batches of few pairs each."""
        return LocalLearner(self.ours, reference=self.our_reference, max_tokens=40)

    def batch(self, learner: LocalLearner, algorithm: DPO) -> Batch:
        """What `DPO.improve` hands to the learner for the whole minibatch."""
        flat = [side for pair in self.pairs for side in pair]
        batch = paired(flat, [(2 * i, 2 * i + 1) for i in range(len(self.pairs))])
        batch = with_reference(learner, batch) if algorithm.needs_reference else batch
        batch = algorithm.prepare(learner, batch)
        assert len(list(batch.micro_batches(learner.max_tokens))) > 2
        return batch.weighted(pair_mean).with_stream("sft_weight", chosen_token_mean(batch))


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with quiet():
        return Case(tmp_path_factory.mktemp("dpo"))


def test_no_loss_of_theirs_is_missing() -> None:
    """`sft` is `sft_coef`; `bco` and the reference-free ones are no losses of their DPO trainer."""
    with quiet():
        from trl import DPOConfig

    said = DPOConfig.__dataclass_fields__["loss_type"].metadata["help"]
    listed = {name.strip(" '`") for name in said.partition("are: ")[2].partition(". If")[0].split(",")}
    assert listed - {"sft"} == set(THEIRS)
    assert set(PAIR_LOSSES) - listed == {"bco", *REFERENCE_FREE}


@pytest.mark.parametrize("name", THEIRS)
def test_every_loss(case: Case, name: str) -> None:
    smoothing = 0.1 if name in SMOOTHED else 0.0
    loss = case.theirs([name], label_smoothing=smoothing)
    algorithm = DPO(loss=name, beta=BETA, label_smoothing=smoothing)  # pyright: ignore[reportArgumentType]
    learner = case.learner()
    metrics = learner.gradient(case.batch(learner, algorithm), algorithm.objective)
    same_loss_and_gradient(loss, case.model, metrics, case.ours)


@pytest.mark.parametrize("divergence", ["forward_kl", "js_divergence"])
@pytest.mark.parametrize("name", ["sigmoid", "ipo", "hinge"])
def test_other_divergences(case: Case, name: str, divergence: str) -> None:
    loss = case.theirs([name], f_divergence_type=divergence, beta=0.02)
    algorithm = DPO(loss=name, beta=0.02, divergence=divergence)  # pyright: ignore[reportArgumentType]
    learner = case.learner()
    metrics = learner.gradient(case.batch(learner, algorithm), algorithm.objective)
    same_loss_and_gradient(loss, case.model, metrics, case.ours)


def test_likelihood_of_the_chosen_side(case: Case) -> None:
    """loss_type=["sigmoid", "sft"] with loss_weights=[1, 0.5] (RPO) is sft_coef=0.5."""
    loss = case.theirs(["sigmoid", "sft"], [1.0, 0.5])
    algorithm = DPO(beta=BETA, sft_coef=0.5)
    learner = case.learner()
    metrics = learner.gradient(case.batch(learner, algorithm), algorithm.objective)
    same_loss_and_gradient(loss, case.model, metrics, case.ours)


def test_metrics(case: Case) -> None:
    case.theirs(["sigmoid"])
    figures = {name: values[-1] for name, values in case.trainer._metrics["eval"].items() if values}
    figures |= {name: values[-1] for name, values in case.trainer._metrics["train"].items() if values}
    algorithm, learner = DPO(beta=BETA), case.learner()
    ours = means(learner.gradient(case.batch(learner, algorithm), algorithm.objective))
    shared = [name for name in ours if name.startswith(("rewards/", "logps/"))]
    assert len(shared) == 6
    assert {name: ours[name] for name in shared} == pytest.approx({name: figures[name] for name in shared}, rel=1e-4)


# ---- without a reference: trl.experimental ---------------------------------------------------------------------------


def older_inputs(case: Case) -> dict[str, Any]:
    """A batch as the CPO and ORPO trainers collate it, of the same ids."""
    made: dict[str, Any] = {}
    pad = TOKENIZER.pad_token_id
    for side, name in enumerate(["chosen", "rejected"]):
        rows = [(pair[side].turns[0].obs.tolist(), pair[side].turns[0].act.tolist()) for pair in case.pairs]
        longest = max(len(obs) + len(act) for obs, act in rows)
        filled = [(obs, act, longest - len(obs) - len(act)) for obs, act in rows]
        made[f"{name}_input_ids"] = torch.tensor([obs + act + [pad] * n for obs, act, n in filled])
        made[f"{name}_labels"] = torch.tensor([[-100] * len(obs) + act + [-100] * n for obs, act, n in filled])
        made[f"{name}_attention_mask"] = torch.tensor([[1] * (longest - n) + [0] * n for _, _, n in filled])
    return made


def older_trainer(case: Case, kind: str, folder: Any, **settings: Any) -> tuple[Any, Any]:
    from datasets import Dataset
    from trl.experimental import cpo, orpo

    config, trainer = {"cpo": (cpo.CPOConfig, cpo.CPOTrainer), "orpo": (orpo.ORPOConfig, orpo.ORPOTrainer)}[kind]
    model = tiny_model(0)
    args = config(**cheap(folder, remove_unused_columns=False, max_length=64), **settings)
    return model, trainer(model, args=args, train_dataset=Dataset.from_list(case.rows), processing_class=TOKENIZER)


@pytest.mark.parametrize(
    ("ours", "settings"),
    [
        (DPO(loss="cpo", beta=BETA), {}),
        (DPO(loss="cpo", beta=BETA, label_smoothing=0.1, sft_coef=0.5), {"label_smoothing": 0.1, "cpo_alpha": 1.5}),
        (DPO(loss="simpo", beta=2.0, margin=0.7), {"loss_type": "simpo", "simpo_gamma": 0.7, "cpo_alpha": 0.0}),
        (DPO(loss="simpo", beta=2.0, sft_coef=0.2), {"loss_type": "simpo", "simpo_gamma": 0.0, "cpo_alpha": 0.2}),
    ],
    ids=["cpo", "cpo, smoothed", "simpo", "simpo and likelihood"],
)
def test_cpo_and_simpo(case: Case, tmp_path: Any, ours: DPO, settings: dict[str, Any]) -> None:
    with quiet():
        model, trainer = older_trainer(case, "cpo", tmp_path, beta=ours.beta, **settings)
        loss, _ = trainer.get_batch_loss_metrics(model, older_inputs(case))
    loss.backward()
    learner = case.learner()
    metrics = learner.gradient(case.batch(learner, ours), ours.objective)
    same_loss_and_gradient(loss, model, metrics, case.ours)


def test_orpo(case: Case, tmp_path: Any) -> None:
    """The odds ratio. Theirs takes the likelihood of the prompt into the other term as well, the paper and we do not."""
    with quiet():
        model, trainer = older_trainer(case, "orpo", tmp_path, beta=BETA)
        chosen, rejected, *_ = trainer.concatenated_forward(model, older_inputs(case))
        loss = -trainer.odds_ratio_loss(chosen, rejected)[0].mean()
    loss.backward()
    learner, algorithm = case.learner(), DPO(loss="orpo", beta=BETA)
    batch = case.batch(learner, algorithm)
    metrics = learner.gradient(batch, preference(PAIR_LOSSES["orpo"], BETA))
    same_loss_and_gradient(loss, model, metrics, case.ours)
    ratio = gradients(case.ours.model)
    learner.gradient(batch, nll("sft_weight"))
    likelihood = gradients(case.ours.model)
    learner.gradient(batch, algorithm.objective)
    same_gradient({name: ratio[name] + likelihood[name] for name in ratio}, gradients(case.ours.model))
