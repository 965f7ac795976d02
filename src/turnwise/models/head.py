"""The output head in tiles: log-probability of each taken token and entropy, straight from the last hidden states.

For N hidden states and a vocabulary of V, logits are N · V numbers, and the usual chain of operators (logits, float32,
log-softmax, probabilities, gradients of each) holds several times that and walks through memory once for each. Here a tile of
logits is made, used while it is still in the cache, and dropped: the normaliser and the entropy are running sums over tiles of
the vocabulary (Milakov and Gimelshein 2018, arXiv 1805.02867), and so are the gradients.

What this file leaves out: the definition of the distribution. That is `turnwise.models.distribution.log_probs`, which this
equals where nothing is truncated, and which does the work where something is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from turnwise.models.distribution import Sampling, entropy, log_probs, wide

KEPT = 2**24
"""Logits kept from the forward to the backward pass, at most: 64 MiB in float32. Beyond, a product makes them again."""

_TILE = {"cpu": 2**18}
"""Logits in a tile, by device: two tiles fit a core's second-level cache."""
_LARGE_TILE = 2**24
_ROWS = 2048
_NEVER = -1e30
"""Logit of a banned token: its probability is exactly 0, and 0 times its logarithm is 0 and not NaN."""


def taken_log_probs(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    taken: Tensor,
    sampling: Sampling,
    banned: Tensor | None = None,
    *,
    join: bool = True,
    keep: int = KEPT,
) -> tuple[Tensor, Tensor]:
    """What a linear head says about the tokens that were taken, under the distribution that is really sampled.

    It is `log_probs` and `entropy` of ``hidden @ weight.T + bias``, with gradients in the first three arguments. Whatever the
    precision of the weights, everything after the product is float32. Autocast is off here.

    Args:
        hidden: (N, d) last hidden states.
        weight: (V, d) output embedding.
        bias: (V,), or None.
        taken: (N,) int64 ids.
        sampling: Temperature and truncation.
        banned: (B,) int64 ids that are never sampled.
        join: A taken token outside the support joins it; otherwise its log-probability is -inf. See `log_probs`.
        keep: Logits held for the backward pass, at most; more are computed twice.

    Returns:
        (N,) log-probability and (N,) entropy in nats, float32 (float64 if the weights are).
    """
    with torch.autocast(hidden.device.type, enabled=False):
        hidden = hidden.to(weight.dtype)
        if sampling.temperature == 0 or sampling.top_p < 1 or 0 < sampling.top_k < len(weight):
            return _truncated(hidden, weight, bias, taken, sampling, banned, join, keep)
        if not torch.is_grad_enabled():
            keep = 0
        said = _TakenLogProbs.apply(hidden, weight, bias, taken, sampling.temperature, banned, join, keep)
    return cast("tuple[Tensor, Tensor]", said)


def has_plain_head(model: Any, logits: Callable[[], Tensor], trunk: Callable[[], Tensor]) -> bool:
    """Whether the model's logits are a linear map of its trunk's last hidden states and nothing else.

    Not so where a model scales or caps its logits, or where the head is an adapter or quantised. It is found out by what the
    model does to large random hidden states, where even a soft cap bends, and by what its trunk says alone.

    Args:
        model: The Hugging Face model, or a PEFT model around one.
        logits: Runs it on some tokens and returns its logits, (..., V).
        trunk: Runs what is below its head on the same tokens and returns the last hidden states, (..., d).
    """
    head = model.get_output_embeddings()
    if not isinstance(head, nn.Linear) or not head.weight.is_floating_point():
        return False
    weight = head.weight.detach()
    generator = torch.Generator().manual_seed(0)
    entered: list[Tensor] = []
    sent: list[Tensor] = []

    def replace(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Tensor]:
        entered.append(wide(args[0]))
        made = torch.randn(args[0].shape, generator=generator).to(weight)
        sent.append(made * (300.0 / wide(F.linear(made, weight)).abs().amax().clamp_min(1e-6)).to(weight.dtype))
        return (sent[-1],)

    handle = head.register_forward_pre_hook(replace)
    try:
        with torch.no_grad():
            said = wide(logits())
            alone = trunk()
    except AttributeError:
        return False  # there is no trunk to run alone
    finally:
        handle.remove()
    if len(sent) != 1 or entered[0].numel() != alone.numel():
        return False
    expected = wide(F.linear(sent[0], weight, head.bias)).reshape(said.shape)
    pairs = ((said, expected), (wide(alone).reshape(entered[0].shape), entered[0]))
    tolerance = 1e-4 if weight.dtype in (torch.float32, torch.float64) else 1e-2
    return all(float((a - b).abs().max()) <= tolerance * max(1e-3, float(b.abs().max())) for a, b in pairs)


def _truncated(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    taken: Tensor,
    sampling: Sampling,
    banned: Tensor | None,
    join: bool,
    keep: int,
) -> tuple[Tensor, Tensor]:
    """Rows by rows through `log_probs`. Where the logits of all of them are many, each part is computed twice."""

    def part(some: Tensor, matrix: Tensor, shift: Tensor | None, chosen: Tensor) -> tuple[Tensor, Tensor]:
        logp = log_probs(F.linear(some, matrix, shift), sampling, banned, chosen if join else None)
        return logp.gather(-1, chosen[:, None]).squeeze(-1), entropy(logp)

    if hidden.shape[0] * weight.shape[0] <= keep:
        return part(hidden, weight, bias, taken)
    rows = max(1, min(_ROWS, keep // weight.shape[0]))
    said: list[tuple[Tensor, Tensor]] = []
    for some, chosen in zip(hidden.split(rows), taken.split(rows), strict=True):
        arguments = (some, weight, bias, chosen)
        if torch.is_grad_enabled():
            again = checkpoint(part, *arguments, use_reentrant=False, preserve_rng_state=False)
            said.append(cast("tuple[Tensor, Tensor]", again))
        else:
            said.append(part(*arguments))
    return torch.cat([logp for logp, _ in said]), torch.cat([bits for _, bits in said])


class _Head(NamedTuple):
    """What makes a tile of logits."""

    weight: Tensor
    bias: Tensor | None
    temperature: float
    banned: Tensor | None
    join: bool

    def logits(self, hidden: Tensor, taken: Tensor, first: int, last: int) -> Tensor:
        """(R, last - first) logits of these columns, divided by the temperature, in memory of their own."""
        z = wide(F.linear(hidden, self.weight[first:last], None if self.bias is None else self.bias[first:last]))
        if self.temperature != 1:
            z.div_(self.temperature)
        if self.banned is not None and len(self.banned):
            never = torch.zeros(last - first + 1, dtype=torch.bool, device=z.device)
            # Ids of other tiles fall into a last column that is dropped.
            inside = (self.banned >= first) & (self.banned < last)
            never[torch.where(inside, self.banned - first, last - first)] = True
            column, here = _columns(taken, first, last)
            chosen = z.gather(1, column)
            z.masked_fill_(never[:-1], _NEVER)
            if self.join:
                z.scatter_(1, column, torch.where(here, chosen, z.gather(1, column)))
        return z


def _columns(taken: Tensor, first: int, last: int) -> tuple[Tensor, Tensor]:
    """(R, 1) column of each taken id in the tile, and whether it lies there; 0 where it does not."""
    here = ((taken >= first) & (taken < last))[:, None]
    return torch.where(here, taken[:, None] - first, 0), here


def _tiles(rows: int, columns: int, device: str) -> Iterator[tuple[int, int, list[tuple[int, int]]]]:
    """Blocks of rows, each with its tiles of the vocabulary."""
    blocks = max(1, -(-rows // _ROWS))
    height = max(1, -(-rows // blocks))
    width = max(128, _TILE.get(device, _LARGE_TILE) // height // 64 * 64)
    spans = [(first, min(first + width, columns)) for first in range(0, columns, width)]
    for start in range(0, rows, height):
        yield start, min(start + height, rows), spans


class _TakenLogProbs(torch.autograd.Function):
    """Log-probability of the taken token z_a − log Σ exp z, and entropy H = log Σ exp z − Σ p z.

    With p = softmax(z): ∂ log p_a / ∂z = 1_a − p and ∂H / ∂z = −p (log p + H).
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        taken: Tensor,
        temperature: float,
        banned: Tensor | None,
        join: bool,
        keep: int,
    ) -> tuple[Tensor, Tensor]:
        head = _Head(weight, bias, temperature, banned, join)
        n, dtype = len(hidden), torch.float64 if weight.dtype == torch.float64 else torch.float32
        chosen, largest, total, mean = (torch.empty(n, dtype=dtype, device=hidden.device) for _ in range(4))
        kept: list[Tensor] = []
        keeps = any(ctx.needs_input_grad[:3]) and n * len(weight) <= keep
        for start, end, spans in _tiles(n, len(weight), hidden.device.type):
            rows = slice(start, end)
            top = largest[rows].fill_(-torch.inf)  # running maximum m
            mass = total[rows].zero_()  # Σ exp(z − m)
            moment = mean[rows].zero_()  # Σ exp(z − m) (z − m)
            for first, last in spans:
                z = head.logits(hidden[rows], taken[rows], first, last)
                column, here = _columns(taken[rows], first, last)
                torch.where(here.squeeze(1), z.gather(1, column).squeeze(1), chosen[rows], out=chosen[rows])
                now = torch.maximum(top, z.amax(-1))
                z.sub_(now[:, None])
                e = z.exp()
                if first:
                    shift = top - now
                    moment.addcmul_(mass, shift).mul_(shift.exp_())
                    mass.mul_(shift)
                mass.add_(e.sum(-1))
                moment.add_(e.mul_(z).sum(-1))
                top.copy_(now)
                if keeps:
                    kept += [z, now]
        log_mass = total.log()
        normaliser = largest + log_mass
        bits = log_mass - mean / total
        logp = chosen - normaliser
        if not join:
            logp.masked_fill_(chosen <= _NEVER / 2, -torch.inf)
        ctx.save_for_backward(hidden, weight, bias, taken, banned, normaliser, bits, logp, *kept)
        ctx.temperature, ctx.join = temperature, join
        ctx.set_materialize_grads(False)
        return logp, bits

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grad_outputs: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        by_logp, by_entropy = grad_outputs
        hidden, weight, bias, taken, banned, normaliser, bits, logp, *kept = ctx.saved_tensors
        for_hidden, for_weight, for_bias = ctx.needs_input_grad[:3]
        if by_logp is None and by_entropy is None:
            return (None,) * 8
        head = _Head(weight, bias, ctx.temperature, banned, ctx.join)
        to_logp = torch.zeros_like(normaliser) if by_logp is None else by_logp / ctx.temperature
        # A taken token of probability zero moves nothing by itself.
        to_taken = to_logp.masked_fill(logp == -torch.inf, 0.0)[:, None]
        to_entropy = None if by_entropy is None else (by_entropy / ctx.temperature)[:, None]
        # dz = p (−g_logp − g_H (log p + H)) + g_logp 1_a
        constant = (-to_logp if to_entropy is None else -to_logp - to_entropy.squeeze(1) * bits)[:, None]
        options = {"dtype": normaliser.dtype, "device": hidden.device}
        new = torch.empty if len(hidden) else torch.zeros
        d_hidden = new(hidden.shape, **options) if for_hidden else None
        d_weight = new(weight.shape, **options) if for_weight else None
        d_bias = torch.zeros(len(weight), **options) if for_bias else None
        tile = iter(kept)
        for start, end, spans in _tiles(len(hidden), len(weight), hidden.device.type):
            rows = slice(start, end)
            for first, last in spans:
                if kept:
                    z, top = next(tile), next(tile)
                    z = z + (top - normaliser[rows])[:, None]
                else:
                    z = head.logits(hidden[rows], taken[rows], first, last).sub_(normaliser[rows, None])
                if to_entropy is None:
                    d = z.exp_().mul_(constant[rows])
                else:
                    p = z.exp()
                    d = z.mul_(-to_entropy[rows]).add_(constant[rows]).mul_(p)
                column, here = _columns(taken[rows], first, last)
                d.scatter_add_(1, column, torch.where(here, to_taken[rows], 0.0))
                if d_bias is not None:
                    d_bias[first:last] += d.sum(0)
                d = d.to(weight.dtype)
                if d_hidden is not None:
                    _product(d_hidden[rows], d, weight[first:last], add=first > 0)
                if d_weight is not None:
                    _product(d_weight[first:last], d.t(), hidden[rows], add=start > 0)
        cast_back = [
            None if made is None else made.to(like.dtype)
            for made, like in ((d_hidden, hidden), (d_weight, weight), (d_bias, weight))
        ]
        return (*cast_back, None, None, None, None, None)


def _product(total: Tensor, a: Tensor, b: Tensor, *, add: bool) -> None:
    """Put a @ b into `total`, or add it, in place and in the precision of `total`."""
    if a.dtype == total.dtype:
        torch.addmm(total, a, b, beta=int(add), out=total)
    elif add:
        total.add_(a @ b)
    else:
        total.copy_(a @ b)
