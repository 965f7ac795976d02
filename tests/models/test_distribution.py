"""From logits to the distribution that is sampled: (1) against plain probability arithmetic, (2) it always sums to one,
(3) banned and cut tokens have none of it, (4) a taken token joins the support, (5) nonsense is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from turnwise.models import Sampling, entropy, log_probs

samplings = st.builds(
    Sampling,
    temperature=st.floats(0.1, 5.0),
    top_k=st.integers(0, 12),
    top_p=st.floats(0.05, 1.0),
)


def logits(seed: int, n: int = 6, v: int = 10) -> torch.Tensor:
    return torch.randn(n, v, generator=torch.Generator().manual_seed(seed)) * 3


@given(samplings, st.integers(0, 1000), st.sets(st.integers(0, 9), max_size=5))
def test_it_is_a_distribution_over_the_allowed(sampling: Sampling, seed: int, banned: set[int]) -> None:
    out = log_probs(logits(seed), sampling, torch.tensor(sorted(banned), dtype=torch.int64))
    torch.testing.assert_close(out.exp().sum(-1), torch.ones(6), atol=1e-5, rtol=0)
    assert (out[:, sorted(banned)] == -torch.inf).all()
    if sampling.top_k:
        assert ((out > -torch.inf).sum(-1) <= sampling.top_k).all()


@given(samplings, st.integers(0, 1000))
def test_it_matches_arithmetic_on_probabilities(sampling: Sampling, seed: int) -> None:
    raw = logits(seed)
    for row, got in zip(raw.double().numpy(), log_probs(raw, sampling).double().exp().numpy(), strict=True):
        p = np.exp(row / sampling.temperature)
        order = np.argsort(-row)
        keep = order[: sampling.top_k] if sampling.top_k else order
        share = p[keep] / p[keep].sum()
        before = np.cumsum(share) - share
        if np.min(np.abs(before - sampling.top_p)) < 1e-5:  # at the very edge, rounding decides
            continue
        keep = keep[before < sampling.top_p]
        expected = np.zeros_like(p)
        expected[keep] = p[keep] / p[keep].sum()
        np.testing.assert_allclose(got, expected, atol=1e-5)


def test_greedy_takes_the_first_of_the_best_allowed() -> None:
    raw = torch.tensor([[1.0, 5.0, 3.0, 5.0], [9.0, 2.0, 3.0, 1.0]])
    out = log_probs(raw, Sampling(temperature=0), torch.tensor([0]))
    assert out.exp().tolist() == [[0, 1, 0, 0], [0, 0, 1, 0]]


@given(samplings, st.integers(0, 1000), st.integers(0, 9))
def test_a_taken_token_joins_the_support_and_changes_nothing_where_it_lies_inside(
    sampling: Sampling, seed: int, token: int
) -> None:
    raw, banned = logits(seed, 1), torch.tensor([2])
    taken = torch.tensor([token])
    without = log_probs(raw, sampling, banned)
    with_it = log_probs(raw, sampling, banned, taken)
    if without[0, token] > -torch.inf:
        assert torch.equal(with_it, without)
    else:
        support = [*(without[0] > -torch.inf).nonzero().squeeze(1).tolist(), token]
        expected = torch.full((10,), -torch.inf)
        expected[support] = (raw[0, support] / sampling.temperature).log_softmax(-1)
        torch.testing.assert_close(with_it[0], expected, atol=1e-5, rtol=1e-5)


@given(samplings, st.integers(0, 1000))
def test_entropy_counts_the_support_only(sampling: Sampling, seed: int) -> None:
    p = log_probs(logits(seed), sampling).double().exp().numpy()
    expected = [-sum(x * np.log(x) for x in row if x > 0) for row in p]
    np.testing.assert_allclose(entropy(log_probs(logits(seed), sampling)).numpy(), expected, atol=1e-4)


def test_entropy_of_a_cut_distribution_has_a_finite_gradient() -> None:
    raw = logits(0).requires_grad_()
    entropy(log_probs(raw, Sampling(top_k=3, top_p=0.8), torch.tensor([1]))).sum().backward()
    assert raw.grad is not None
    assert torch.isfinite(raw.grad).all()
    assert (raw.grad[:, 1] == 0).all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1.0},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"top_k": -1},
        {"max_tokens": 0},
        {"stop": ("",)},
        {"stop": "x"},
    ],
)
def test_nonsense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Sampling(**wrong)
