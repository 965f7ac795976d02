"""Losses over preference pairs: (1) each equals its paper's formula, written here with plain numbers, (2) what is known of
them holds (the mean of the robust loss over flips, the optimum of a smoothed one, f-divergences that agree at the reference),
(3) sides are summed over turns and sequences, (4) only the pair's own tokens get a gradient."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.objectives.conftest import Table, episode
from turnwise.batch import Batch, Outputs, pack, with_units
from turnwise.objectives import (
    PAIR_LOSSES,
    Pairs,
    chosen_token_mean,
    kto,
    nll,
    pair_mean,
    policy_gradient,
    preference,
    token_mean,
)
from turnwise.objectives.preference import read_pairs
from turnwise.objectives.preference_losses import DIVERGENCES


def s(x: float) -> float:
    """σ(x)."""
    return 1.0 / (1.0 + math.exp(-x))


def ls(x: float) -> float:
    """log σ(x)."""
    return math.log(s(x))


# log π, log ref and number of tokens of the chosen and of the rejected side of one pair.
C, CR, NC = -3.0, -4.1, 2.0
R, RR, NR = -5.0, -4.7, 4.0
H, L, M = C - CR, R - RR, (C - CR) - (R - RR)
B, E = 0.7, 0.1
PC, PR = math.exp(C / NC), math.exp(R / NR)

BY_HAND = {
    "sigmoid": -0.9 * ls(B * M) - 0.1 * ls(-B * M),
    "sigmoid_norm": -ls(B * (H / NC - L / NR)),
    "hinge": max(0.0, 1 - B * M),
    "ipo": (H / NC - L / NR - 1 / (2 * B)) ** 2,
    "robust": (-0.9 * ls(B * M) + 0.1 * ls(-B * M)) / 0.8,
    "exo_pair": s(B * M) * (ls(B * M) - math.log(0.9)) + s(-B * M) * (ls(-B * M) - math.log(0.1)),
    "nca_pair": -ls(B * H) - 0.5 * ls(-B * H) - 0.5 * ls(-B * L),
    "bco": -ls(B * H - 0.3) - ls(0.3 - B * L),
    "bco_pair": -ls(B * H - 0.3) - ls(0.3 - B * L),
    "sppo_hard": (H - 1 / (2 * B)) ** 2 + (L + 1 / (2 * B)) ** 2,
    "aot": -0.9 * ls(B * M) - 0.1 * ls(-B * M),
    "aot_unpaired": -0.9 * ls(B * M) - 0.1 * ls(-B * M),
    "apo_zero": 1 - s(B * H) + s(B * L),
    "apo_down": s(B * H) + 1 - s(B * (H - L)),
    "discopop": -(1 - s(B * M / 0.05)) * ls(B * M) + s(B * M / 0.05) * math.exp(-B * M),
    "simpo": -0.9 * ls(B * (C / NC - R / NR) - 0.4) - 0.1 * ls(-B * (C / NC - R / NR) + 0.4),
    "cpo": -0.9 * ls(B * (C - R)) - 0.1 * ls(-B * (C - R)),
    "orpo": -B * ls(math.log(PC / (1 - PC)) - math.log(PR / (1 - PR))),
}


def one_pair(**fields: Any) -> Pairs:
    numbers = [torch.tensor([x], dtype=torch.float64) for x in (C, R, CR, RR, NC, NR)]
    told = {"beta": B, "smoothing": E, "target": 0.4, "shift": torch.tensor([0.3], dtype=torch.float64)}
    return Pairs(*numbers, **(told | fields))


def test_every_loss_has_a_formula_here() -> None:
    assert BY_HAND.keys() == PAIR_LOSSES.keys()


@pytest.mark.parametrize("name", BY_HAND)
def test_formula(name: str) -> None:
    assert float(PAIR_LOSSES[name](one_pair())) == pytest.approx(BY_HAND[name], abs=1e-12)


margins = st.floats(-6, 6)
shares = st.floats(0.01, 0.45)


def at_margin(margin: Any, **fields: Any) -> Pairs:
    zero = torch.zeros(1, dtype=torch.float64)
    chosen = torch.as_tensor(margin, dtype=torch.float64).reshape(1)
    return Pairs(chosen, zero, zero, zero, zero + 1, zero + 1, **fields)


@given(margins, shares)
def test_the_robust_loss_undoes_flips_on_average(margin: float, share: float) -> None:
    """(1 − ε) L(m) + ε L(−m) is the loss of the true preference."""
    robust, plain = PAIR_LOSSES["robust"], PAIR_LOSSES["sigmoid"]
    right, wrong = (robust(at_margin(m, beta=1.0, smoothing=share)) for m in (margin, -margin))
    assert float((1 - share) * right + share * wrong) == pytest.approx(
        float(plain(at_margin(margin, beta=1.0))), abs=1e-9
    )


@given(shares, st.sampled_from(["sigmoid", "exo_pair"]))
def test_a_smoothed_loss_is_least_where_the_odds_are_those_of_a_flip(share: float, name: str) -> None:
    margin = torch.tensor([math.log((1 - share) / share)], dtype=torch.float64, requires_grad=True)
    loss = PAIR_LOSSES[name](at_margin(margin, beta=1.0, smoothing=share))
    (slope,) = torch.autograd.grad(loss.sum(), margin)
    assert float(slope) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_divergences_agree_with_the_identity_at_the_reference_up_to_scale(name: str) -> None:
    """f(0) = 0, increasing: f'(0) is 1, and ½ for Jensen–Shannon."""
    x = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    y = DIVERGENCES[name](x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert float(y.detach()) == pytest.approx(0.0, abs=1e-12)
    assert float(slope) == pytest.approx(0.5 if name == "js_divergence" else 1.0)


@pytest.mark.parametrize("certain", [-1e-9, 0.0, -60.0])
def test_odds_of_the_certain_and_of_the_impossible_are_finite(certain: float) -> None:
    chosen = torch.tensor([certain], requires_grad=True)
    zero, one = torch.zeros(1), torch.ones(1)
    loss = PAIR_LOSSES["orpo"](Pairs(chosen, torch.tensor([-2.0]), zero, zero, one, one))
    (slope,) = torch.autograd.grad(loss.sum(), chosen)
    assert bool(loss.isfinite())
    assert bool(slope.isfinite())


# ---- from tokens to pairs --------------------------------------------------------------------------------------------


def pair_batch() -> Batch:
    """Three pairs of 1–3 turns; the second side of the first starts afresh at each turn, so it is three sequences."""
    sides = [
        episode([[1], [2, 3]]), episode([[1, 2], [3], [4]], fresh=True),
        episode([[2, 2, 2]]), episode([[3]]),
        episode([[4], [4]]), episode([[1, 4]], fresh=True),
    ]  # fmt: skip
    lengths = [3, 4, 3, 1, 2, 2]
    reference = [[-0.1 * (i + 1) - t for t in range(n)] for i, n in enumerate(lengths)]
    return with_units(pack(sides, {"reference_logp": reference}), [0, 0, 1, 1, 2, 2], [1, -1] * 3)


def test_sides_are_summed_over_turns_and_sequences() -> None:
    batch = pair_batch()
    logp = torch.arange(1.0, 16.0)
    pairs = read_pairs(logp, batch)
    assert pairs.chosen.tolist() == [1 + 2 + 3, 8 + 9 + 10, 12 + 13]
    assert pairs.rejected.tolist() == [4 + 5 + 6 + 7, 11, 14 + 15]
    assert pairs.chosen_length.tolist() == [3, 3, 2]
    assert pairs.rejected_length.tolist() == [4, 1, 2]
    assert pairs.chosen_reference.tolist() == pytest.approx([-0.3 - 3, -0.9 - 3, -1.0 - 1])
    assert pairs.rejected_reference.tolist() == pytest.approx([-0.8 - 6, -0.4, -1.2 - 1])


def test_the_sum_is_the_mean_over_pairs_and_does_not_depend_on_the_split() -> None:
    batch, table = pair_batch().weighted(pair_mean), Table.random(5)
    objective = preference(PAIR_LOSSES["sigmoid"], 0.5)
    outputs = table(batch)
    loss, metrics = objective(outputs, batch)
    pairs = read_pairs(outputs.logp, batch, 0.5)
    assert float(loss.detach().sum()) == pytest.approx(float(PAIR_LOSSES["sigmoid"](pairs).detach().mean()))
    whole = table.gradient(loss)
    parts = [batch.select(part) for part in batch.micro_batches(8)]
    assert len(parts) == 3
    said = [objective(table(part), part) for part in parts]
    assert torch.allclose(
        sum(table.gradient(each) for each, _ in [objective(table(p), p) for p in parts]), whole, atol=1e-7
    )
    for name, (total, count) in metrics.items():
        assert total == pytest.approx(sum(each[name][0] for _, each in said), abs=1e-5)
        assert count == sum(each[name][1] for _, each in said) == 3


def test_a_pair_with_one_side_is_refused() -> None:
    batch = pair_batch()
    lonely = batch.select([0])
    with pytest.raises(ValueError, match="one side only"):
        read_pairs(torch.zeros(3), lonely)
    with pytest.raises(ValueError, match="beta=0"):
        preference(PAIR_LOSSES["sigmoid"], 0.0)


def test_likelihood_of_the_chosen_side_is_a_mean_over_its_tokens() -> None:
    batch = pair_batch()
    batch = batch.with_stream("sft_weight", chosen_token_mean(batch))
    logp = torch.arange(1.0, 16.0)
    loss, metrics = nll("sft_weight")(Outputs(logp, torch.zeros(15)), batch)
    assert float(loss.sum()) == pytest.approx(-(6 + 27 + 25) / 8)
    assert metrics["nll"] == (-(6 + 27 + 25), 8)


# ---- single labels ---------------------------------------------------------------------------------------------------


def test_kto_by_hand() -> None:
    """Two episodes, the first good: h = 1.1 and −0.3 as above, z = 0.4, β = 0.7, λ = 1.5 and 0.5."""
    batch = pack([episode([[1], [2]]), episode([[3]])], {"reference_logp": [[CR, 0.0], [RR]]})
    batch = with_units(batch, [0, 1], [1, -1]).weighted(pair_mean)
    batch = replace(batch, seq={**batch.seq, "baseline": torch.full((2,), 0.4)})
    outputs = Outputs(torch.tensor([C + 1.0, -1.0, R]), torch.zeros(3))
    loss, metrics = kto(B, desirable=1.5, undesirable=0.5)(outputs, batch)
    expected = [1.5 * (1 - s(B * (H - 0.4))) / 2, 0.0, 0.5 * (1 - s(B * (0.4 - L))) / 2]
    assert loss.tolist() == pytest.approx(expected, abs=1e-6)
    assert metrics["rewards/chosen"] == pytest.approx((B * H, 1.0))
    assert metrics["rewards/rejected"] == pytest.approx((B * L, 1.0))
    assert metrics["kl/baseline"] == pytest.approx((0.8, 2.0))
    with pytest.raises(ValueError, match="must be positive"):
        kto(0.1, desirable=0.0)


# ---- supervised learning ---------------------------------------------------------------------------------------------


def test_maximum_likelihood_is_reinforce_with_reward_one_on_foreign_data(ragged: Batch) -> None:
    """Behaviour cloning is the policy gradient of a reward of 1 for what somebody else did: the same loss and gradient."""
    table = Table.random(5)
    batch = ragged.weighted(token_mean)
    praised = batch.with_stream("advantage", torch.ones(int(batch.action.sum())))
    cloned, _ = nll()(table(batch), batch)
    reinforced, _ = policy_gradient()(table(praised), praised)
    assert torch.equal(cloned, reinforced)
    assert torch.equal(
        table.gradient(nll()(table(batch), batch)[0]), table.gradient(policy_gradient()(table(praised), praised)[0])
    )
