"""Drawing tokens from logits: the inverse distribution function of one uniform number per row, in two levels.

The plain way accumulates the probabilities of the whole vocabulary and looks up where the uniform falls. Here they are added up
in blocks first; the uniform finds its block among the sums and then its token within that block alone. The token is
the same, except where the uniform lies within rounding of a boundary between two tokens. A softmax with its logarithm, a sorted
search and the entropy are thereby four passes over the logits, made for a few rows at a time so that these stay in the
cache of the processor.

What this file leaves out: which tokens top-k and top-p keep. `turnwise.models.log_probs` is the home of that formula.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from turnwise.models.distribution import Sampling, entropy, log_probs, wide

# Where exp gives 0, and whose product with that 0 is 0.
_NEVER = -1e30
# A uniform times a sum stays below the sum, whatever the rounding, so that what is drawn has a width of its own.
_BELOW_ONE = 1 - 2.0**-52
_BLOCK = 64
# Accumulating so few probabilities costs less than finding a block.
_ONE_LEVEL = 512
# Logits of so many rows at once that they and their exponentials stay in a second-level cache.
_AT_ONCE = 131_072


class Drawn(NamedTuple):
    """One sampled token for each of R rows.

    Attributes:
        ids: (R,) int64.
        logp: (R,) float32 log-probabilities under the distribution sampled.
        entropy: (R,) float32 entropies of that distribution, in nats.
    """

    ids: NDArray[np.int64]
    logp: NDArray[np.float32]
    entropy: NDArray[np.float32]


class NotFiniteError(Exception):
    """Logits hold NaN or +inf, or allow no token at all.

    Attributes:
        row: The first such row.
    """

    def __init__(self, row: int) -> None:
        super().__init__(f"row {row}")
        self.row = row


def draw(logits: Tensor, noise: NDArray[np.float64], sampling: Sampling, banned: Tensor | None = None) -> Drawn:
    """Sample one token per row.

    Args:
        logits: (R, V), any float dtype. They may be overwritten.
        noise: (R,) numbers in [0, 1). Row r takes the first token whose cumulative probability, in order of the ids,
            exceeds ``noise[r]``.
        sampling: Temperature and truncation.
        banned: (B,) int64 ids that are never sampled.

    Raises:
        NotFiniteError: logits that are no distribution.
    """
    logits = wide(logits)
    temperature = sampling.temperature
    if temperature and (0 < sampling.top_k < logits.shape[-1] or sampling.top_p < 1):
        logits = log_probs(logits, sampling, banned).clamp_min_(_NEVER)
        temperature = 1.0
    elif banned is not None and banned.numel():
        logits.index_fill_(-1, banned, _NEVER)
    if not temperature:
        # numpy's search for the largest is ten times as fast, but not where the logits would have to be fetched first.
        ids = logits.argmax(-1) if logits.is_cuda else torch.from_numpy(logits.numpy().argmax(-1))
        _check(logits.gather(-1, ids[:, None]))
        return Drawn(ids.cpu().numpy(), np.zeros(len(ids), np.float32), np.zeros(len(ids), np.float32))
    uniform = torch.from_numpy(np.minimum(noise, _BELOW_ONE)).to(logits.device)[:, None]
    find = _one_level if logits.shape[-1] <= _ONE_LEVEL else _two_levels
    found = find(logits, temperature, uniform)
    _check(found.peak)
    ids, scaled, total, moment = (x.cpu().numpy()[:, 0] for x in (found.ids, found.scaled, found.total, found.moment))
    log_total = np.log(total)
    uncertainty = (log_total - moment / total).astype(np.float32)
    lost = np.isnan(uncertainty)
    if lost.any():
        # The model itself rules tokens out with -inf, and 0 · inf is no number.
        rows = logits[torch.from_numpy(lost).to(logits.device)]
        uncertainty[lost] = entropy(log_probs(rows, Sampling(temperature=temperature))).cpu().numpy()
    return Drawn(ids, (scaled - log_total).astype(np.float32), uncertainty)


def _check(peak: Tensor) -> None:
    values = peak.cpu().numpy().ravel()
    fine = (values > 0.1 * _NEVER) & (values < np.inf)
    if not fine.all():
        raise NotFiniteError(int(fine.argmin()))


class _Found(NamedTuple):
    """Tokens found by their cumulative probability, each (R, 1).

    Attributes:
        ids: int64.
        scaled: (logit - peak) / temperature of each.
        peak: Largest logit of the row.
        total: float64 sum of exp(scaled) over the vocabulary.
        moment: Sum of scaled · exp(scaled).
    """

    ids: Tensor
    scaled: Tensor
    peak: Tensor
    total: Tensor
    moment: Tensor


def _one_level(logits: Tensor, temperature: float, uniform: Tensor) -> _Found:
    peak = logits.amax(-1, keepdim=True)
    scaled = logits - peak
    if temperature != 1:
        scaled.div_(temperature)
    exps = scaled.exp()
    upto = exps.cumsum(-1, dtype=torch.float64)
    total = upto[:, -1:]
    ids = _fall(upto, uniform * total)
    return _Found(ids, scaled.gather(-1, ids), peak, total, exps.mul_(scaled).sum(-1, keepdim=True))


def _fall(upto: Tensor, point: Tensor) -> Tensor:
    """(R, 1) index of the first cumulated width (R, K) that exceeds the point (R, 1)."""
    # Not a number exceeds nothing; it is reported when all rows are there.
    return torch.searchsorted(upto, point, right=True).clamp_max_(upto.shape[-1] - 1)


def _two_levels(logits: Tensor, temperature: float, uniform: Tensor) -> _Found:
    n, vocabulary = logits.shape
    blocks = -(-vocabulary // _BLOCK)
    padded = blocks * _BLOCK
    rows = n if logits.is_cuda else min(n, max(1, _AT_ONCE // vocabulary))
    peak = logits.new_empty(n, 1)
    sums = logits.new_empty(n, blocks)
    moment = logits.new_empty(n, 1)
    scaled = logits.new_empty(rows, vocabulary)
    exps = logits.new_zeros(rows, padded)
    for first in range(0, n, rows):
        part, here = logits[first : first + rows], slice(first, first + rows)
        m = part.shape[0]
        torch.amax(part, -1, keepdim=True, out=peak[here])
        torch.sub(part, peak[here], out=scaled[:m])
        if temperature != 1:
            scaled[:m].div_(temperature)
        torch.exp(scaled[:m], out=exps[:m, :vocabulary])
        torch.sum(exps[:m].view(m, blocks, _BLOCK), -1, out=sums[here])
        torch.sum(scaled[:m].mul_(exps[:m, :vocabulary]), -1, keepdim=True, out=moment[here])
    upto = sums.cumsum(-1, dtype=torch.float64)
    total = upto[:, -1:]
    point = uniform * total
    block = _fall(upto, point)
    width = sums.gather(-1, block)
    # What is left of the uniform, as a share of its block.
    left = (1 + (point - upto.gather(-1, block)) / width).clamp_(0.0, _BELOW_ONE)
    where = block * _BLOCK + torch.arange(_BLOCK, device=logits.device)
    inside = logits.gather(-1, where if padded == vocabulary else where.clamp_max(vocabulary - 1)).sub_(peak)
    if temperature != 1:
        inside.div_(temperature)
    widths = inside.exp() if padded == vocabulary else inside.exp().masked_fill_(where >= vocabulary, 0.0)
    upto = widths.cumsum(-1, dtype=torch.float64)
    offset = _fall(upto, left * upto[:, -1:])
    return _Found(block * _BLOCK + offset, inside.gather(-1, offset), peak, total, moment)
