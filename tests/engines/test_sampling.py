"""Drawing tokens: (1) the token is that of the plain inverse distribution function, with its log-probability and entropy;
(2) so it is in one level and in two, whatever divides the vocabulary; (3) nothing ruled out is ever drawn, at either end of the
noise; (4) logits that are no distribution are named by their row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from turnwise.engines import sampling as module
from turnwise.engines.sampling import NotFiniteError, draw
from turnwise.models import Sampling, entropy, log_probs

samplings = st.one_of(
    st.builds(Sampling, temperature=st.floats(0.2, 4.0)),
    st.builds(Sampling, temperature=st.floats(0.2, 4.0), top_k=st.integers(1, 30)),
    st.builds(Sampling, temperature=st.floats(0.2, 4.0), top_p=st.floats(0.1, 0.99)),
    st.just(Sampling(temperature=0.0)),
)
# One level, two levels with whole blocks and with a broken one, and more rows than are worked on at once.
sizes = st.sampled_from([(5, 2), (7, 43), (9, 512), (6, 513), (8, 640), (4, 5000), (300, 700)])


def logits(seed: int, n: int, vocabulary: int, scale: float = 2.0) -> torch.Tensor:
    return torch.randn(n, vocabulary, generator=torch.Generator().manual_seed(seed)) * scale


def noise(seed: int, n: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.random.default_rng(seed).random(n)


@settings(max_examples=60)
@given(sizes, samplings, st.integers(0, 10_000), st.booleans(), st.floats(0.1, 6.0))
def test_it_is_the_plain_inverse_distribution_function(
    size: tuple[int, int], sampling: Sampling, seed: int, ban: bool, scale: float
) -> None:
    raw, uniform = logits(seed, *size, scale), noise(seed, size[0])
    banned = torch.tensor([0, size[1] // 2]) if ban and size[1] > 2 else None
    # In float64, so that the rounding of one of the two alone is seen; truncation is decided in float32, as in the engine.
    whole = log_probs(raw, sampling, banned)
    if not sampling.top_k and sampling.top_p == 1:
        whole = log_probs(raw.double(), sampling, banned)
    exact = whole.double()
    upto = exact.exp().cumsum(-1).numpy()
    upto /= upto[:, -1:]
    drawn = draw(raw.clone(), uniform, sampling, banned)
    for row, token in enumerate(drawn.ids.tolist()):
        expected = int(np.searchsorted(upto[row], uniform[row], side="right"))
        if token != expected:
            boundary = upto[row, min(token, expected)]
            assert abs(boundary - uniform[row]) < 1e-6
        assert exact[row, token] > -torch.inf
    taken = exact.gather(-1, torch.from_numpy(drawn.ids)[:, None]).squeeze(-1).numpy()
    np.testing.assert_allclose(drawn.logp, taken, atol=1e-6, rtol=1e-6)
    np.testing.assert_allclose(drawn.entropy, entropy(exact).numpy(), atol=3e-6, rtol=1e-6)
    assert drawn.logp.dtype == drawn.entropy.dtype == np.float32


@pytest.mark.parametrize("vocabulary", [300, 3000])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_tokens_come_as_often_as_they_are_probable(vocabulary: int, temperature: float) -> None:
    raw = logits(5, 1, vocabulary, 1.0)
    n = 60_000
    # A regular grid of uniforms visits each token as often as it is probable, to within one.
    grid = (np.arange(n) + 0.5) / n
    counts = np.zeros(vocabulary)
    for part in np.array_split(grid, 100):
        ids = draw(raw.repeat(len(part), 1), part, Sampling(temperature=temperature)).ids
        counts += np.bincount(ids, minlength=vocabulary)
    p = np.exp(raw[0].double().numpy() / temperature)
    assert np.abs(counts - n * p / p.sum()).max() < 1.5


@pytest.mark.parametrize("vocabulary", [40, 512, 600, 640])
@pytest.mark.parametrize("uniform", [0.0, 1 - 2.0**-53])
@pytest.mark.parametrize("last", [-60.0, 0.0, 40.0])
def test_neither_end_of_the_noise_draws_what_is_ruled_out(vocabulary: int, uniform: float, last: float) -> None:
    raw = torch.linspace(0, last, vocabulary).repeat(3, 1)
    raw[1, 5:9] = -torch.inf
    ruled_out = torch.tensor([0, 1, vocabulary - 1])
    for sampling in (Sampling(), Sampling(temperature=0.1), Sampling(top_k=7), Sampling(top_p=0.5)):
        support = log_probs(raw.clone(), sampling, ruled_out) > -torch.inf
        drawn = draw(raw.clone(), np.full(3, uniform), sampling, ruled_out)
        assert bool(support.gather(-1, torch.from_numpy(drawn.ids)[:, None]).all())
        assert np.isfinite(drawn.logp).all()


@pytest.mark.parametrize("vocabulary", [50, 700])
def test_tokens_that_the_model_rules_out_have_no_part_in_the_entropy(vocabulary: int) -> None:
    raw = logits(2, 4, vocabulary)
    raw[1:, ::2] = -torch.inf
    drawn = draw(raw.clone(), noise(1, 4), Sampling(temperature=0.8))
    np.testing.assert_allclose(drawn.entropy, entropy(log_probs(raw, Sampling(temperature=0.8))), atol=1e-5)


@pytest.mark.parametrize("vocabulary", [50, 700])
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=0), Sampling(top_k=3), Sampling(top_p=0.5)])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_row_that_is_no_distribution_is_named(vocabulary: int, sampling: Sampling, bad: float) -> None:
    raw = logits(3, 6, vocabulary)
    raw[4, 7:] = bad
    banned = torch.arange(7)
    with pytest.raises(NotFiniteError) as caught:
        draw(raw, noise(0, 6), sampling, banned)
    assert caught.value.row == 4


def test_how_rows_are_cut_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    raw, uniform = logits(9, 37, 900), noise(9, 37)
    whole = draw(raw.clone(), uniform, Sampling())
    monkeypatch.setattr(module, "_AT_ONCE", 2_000)
    cut = draw(raw.clone(), uniform, Sampling())
    alone = [draw(raw[i : i + 1].clone(), uniform[i : i + 1], Sampling()) for i in range(37)]
    assert whole.ids.tolist() == cut.ids.tolist() == [int(one.ids[0]) for one in alone]
    np.testing.assert_allclose(whole.logp, cut.logp, atol=1e-6)
    np.testing.assert_allclose(whole.entropy, [one.entropy[0] for one in alone], atol=1e-6)
