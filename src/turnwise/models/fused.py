"""Cheaper arithmetic between the matrix products of a training step: RMS norms, and the rotation of queries and keys.

Outside of its products a Hugging Face model walks through memory once for every operator of a formula, and once more for each on
the way back. Here a formula and its derivative are a few operators over blocks of rows that stay in the processor's cache. The
Hugging Face modules remain what they are: `install` gives some of them another ``forward``, which computes the same, and hands
whatever it was not made for (a GPU, 16 bits, an adapter or quantised weights where it reads weights, a cache) to the module's own.

The rotation turns each pair (x_i, x_{i + D/2}) of a head of D numbers, which is a product of complex numbers, but the two do not lie
side by side. Attention asks only for dot products of queries and keys, and these stay the same if both are permuted alike, so the
rows of both projections are read in an order that puts pairs side by side.

What this file leaves out: SiLU and the product after it, whose cost is in the exponential; see `docs/lab-log.md`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from turnwise.models import routes
from turnwise.models.attention import NAME, attention, register
from turnwise.models.storage import first_line
from turnwise.models.tree_attention import Tree

log = logging.getLogger(__name__)

BLOCK = 1 << 17
"""Numbers in a block of rows: a few blocks fit a core's second-level cache."""


def install(model: nn.Module) -> None:
    """Give the modules of a model on a CPU that are known here their cheaper forward, and linear layers their route.

    The first module of a kind is compared with its own forward before any of the kind is changed. Parameters, names, classes and
    what is saved stay as they are, and a copy of the model is installed as well. Any other model, or part of one, is left alone.

    Args:
        model: A Hugging Face model, or a PEFT model around one.
    """
    agreed: dict[str, bool] = {}
    for module in model.modules():
        kind = f"{type(module).__module__}.{type(module).__qualname__}"
        known = _KINDS.get(kind)
        if known is None or "forward" in vars(module):
            continue  # a stranger, or somebody else's forward, or ours already
        forward, agrees = known
        if kind not in agreed:
            agreed[kind] = _is_same(agrees, module)
        if agreed[kind]:
            module.forward = partial(forward, module)
    routes.install(model)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Root mean square norm (Zhang and Sennrich 2019, arXiv 1910.07467): weight · x / √(mean(x²) + eps).

    As in transformers, 16 bits are normalised in float32, and rounded before they meet the weight.

    Args:
        x: (..., d), of any floating type.
        weight: (d,).
        eps: What keeps zeros finite.

    Returns:
        (..., d), of the type that x and weight have in common.
    """
    return _RMSNorm.apply(x, weight, eps)  # pyright: ignore[reportReturnType]


def rotated(
    x: Tensor,
    weights: tuple[Tensor, Tensor, Tensor],
    biases: tuple[Tensor, Tensor, Tensor] | None,
    norms: tuple[Tensor, Tensor] | None,
    eps: float,
    cos: Tensor,
    sin: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of an attention layer, queries and keys rotated (Su et al. 2021, arXiv 2104.09864).

    Entries i and i + D/2 of a query or key lie at 2i and 2i + 1 of what is returned; dot products do not notice. Under autocast
    the products are taken in its type, and what follows them in that of `x`.

    Args:
        x: (T, d).
        weights: (H · D, d), (G · D, d) and (G · D, d) of the projections.
        biases: (H · D,), (G · D,) and (G · D,), or None.
        norms: (D,) weights of the RMS norms of each head of queries and keys, or None.
        eps: Of these.
        cos: (T, D) whose second half repeats the first, already scaled if the variant scales.
        sin: Likewise.

    Returns:
        (T, H, D), (T, G, D) and (T, G, D).
    """
    compute = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    parts = (*weights, *(biases or (None,) * 3), *(norms or (None,) * 2))
    return _Rotated.apply(x, cos, sin, eps, compute, *parts)  # pyright: ignore[reportReturnType]


# ---- the modules' forward ---------------------------------------------------------------------------------------------


def _norm(module: Any, hidden_states: Tensor) -> Tensor:
    # Theirs normalises 64 bits in 32.
    if hidden_states.device.type != "cpu" or hidden_states.dtype == torch.float64:
        return type(module).forward(module, hidden_states)
    return rms_norm(hidden_states, module.weight, module.variance_epsilon)


def _attend(
    module: Any,
    hidden_states: Tensor,
    position_embeddings: tuple[Tensor, Tensor],
    attention_mask: Tensor | None = None,
    past_key_values: Any = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    x, plan = hidden_states, kwargs.get("plan")
    # Keys in another order must not enter a cache that others fill as well, hence the one plan that keeps nothing.
    if (
        not isinstance(plan, Tree)
        or module.config._attn_implementation != NAME
        or past_key_values is not None
        or len(x) != 1
        or 16 * x.shape[1] < x.shape[2]  # it takes some tokens to pay for reading the weights in another order
        or not _fits(module, x, position_embeddings[0])
    ):
        return type(module).forward(
            module,
            hidden_states,
            position_embeddings=position_embeddings,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            **kwargs,
        )
    q, k, v = (part.transpose(0, 1)[None] for part in _states(module, x, position_embeddings))
    out, weights = attention(module, q, k, v, attention_mask, scaling=module.scaling, **kwargs)
    return module.o_proj(out.reshape(*x.shape[:-1], -1)), weights


def _states(module: Any, x: Tensor, position_embeddings: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """`rotated` with what the module holds, of (1, T, d) hidden states."""
    projections = (module.q_proj, module.k_proj, module.v_proj)
    biased, normed = module.q_proj.bias is not None, hasattr(module, "q_norm")
    weights: Any = tuple(projection.weight for projection in projections)
    biases: Any = tuple(projection.bias for projection in projections) if biased else None
    norms = (module.q_norm.weight, module.k_norm.weight) if normed else None
    eps = module.q_norm.variance_epsilon if normed else 0.0
    cos, sin = position_embeddings
    return rotated(x[0], weights, biases, norms, eps, cos[0], sin[0])


def _fits(module: Any, x: Tensor, cos: Tensor) -> bool:
    """The layer computes what `rotated` computes."""
    window = getattr(module, "sliding_window", getattr(module.config, "sliding_window", None))
    return (
        window is None
        and x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.float64)
        and cos.dtype == x.dtype
        and cos.shape == (1, x.shape[1], module.head_dim)
        and all(_is_plain(part, x.dtype) for part in (module.q_proj, module.k_proj, module.v_proj))
    )


def _is_plain(part: nn.Module, dtype: torch.dtype) -> bool:
    """A linear layer that nobody wraps, quantises or listens to."""
    hooks = (part._forward_hooks, part._forward_pre_hooks, part._backward_hooks, part._backward_pre_hooks)
    return type(part) is nn.Linear and part.weight.dtype == dtype and not any(hooks)


class _Listener:
    """A plan that keeps what an attention layer asks."""

    calls = 0
    asked: tuple[Tensor, Tensor, Tensor]

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        self.asked = (q[0] * scale, k[0], v[0])
        return torch.zeros_like(v[:, :1]).expand(-1, q.shape[1], -1, -1).transpose(1, 2)


_CHECKED = 6
_TOLERANCE = 1e-4


@torch.no_grad()
def _is_same(agrees: Callable[[Any], bool], module: nn.Module) -> bool:
    """A version of transformers whose modules are made otherwise is no reason to fail: it has its own forward."""
    try:
        return agrees(module)
    except Exception as error:
        log.warning("%s keeps its own forward: %s", type(module).__name__, first_line(error))
        return False


def _norm_agrees(module: Any) -> bool:
    if module.weight.device.type != "cpu" or not module.weight.is_floating_point():
        return False
    x = torch.randn(_CHECKED, len(module.weight), generator=torch.Generator().manual_seed(0)).to(module.weight.dtype)
    theirs, ours = type(module).forward(module, x), _norm(module, x)
    tolerance = _TOLERANCE if x.dtype in (torch.float32, torch.float64) else 2e-2
    return torch.allclose(ours, theirs, rtol=tolerance, atol=tolerance)


def _attention_agrees(module: Any) -> bool:
    """The module asks attention for the same dot products and values as `rotated`."""
    generator = torch.Generator().manual_seed(0)
    weight = module.q_proj.weight
    if weight.device.type != "cpu" or module.head_dim % 2:
        return False
    x = torch.randn(1, _CHECKED, module.config.hidden_size, generator=generator).to(weight.dtype)
    angles = torch.randn(1, _CHECKED, module.head_dim // 2, generator=generator).to(weight.dtype).repeat(1, 1, 2)
    embeddings = (angles.cos(), angles.sin())
    if not _fits(module, x, embeddings[0]):
        return False
    listener, before = _Listener(), module.config._attn_implementation
    register()
    module.config._attn_implementation = NAME
    try:
        type(module).forward(module, x, position_embeddings=embeddings, attention_mask=None, plan=listener)
    finally:
        module.config._attn_implementation = before
    found = []
    ours = [part.transpose(0, 1) for part in _states(module, x, embeddings)]
    for q, k, v in (listener.asked, (ours[0] * module.scaling, *ours[1:])):
        found.append((q.unflatten(0, (len(k), -1)) @ k[:, None].transpose(-1, -2), v))
    return all(
        float((a - b).abs().max()) <= _TOLERANCE * max(1.0, float(b.abs().max())) for b, a in zip(*found, strict=True)
    )


_KINDS = {
    f"transformers.models.{family.lower()}.modeling_{family.lower()}.{family}{part}": known
    for family in ("Llama", "Mistral", "Qwen2", "Qwen3")
    for part, known in (("RMSNorm", (_norm, _norm_agrees)), ("Attention", (_attend, _attention_agrees)))
}


# ---- RMS norms --------------------------------------------------------------------------------------------------------


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        out = torch.empty(x.shape, dtype=torch.promote_types(x.dtype, weight.dtype))
        rows = x.reshape(-1, 1, x.shape[-1])
        ctx.save_for_backward(rows, weight, _normalise(rows, weight, eps, out.view(rows.shape)))
        return out

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grads: Tensor
    ) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        rows, weight, scale = ctx.saved_tensors
        out = torch.empty(grad.shape, dtype=rows.dtype)
        grad_weight = _normalise_backward(grad.reshape(rows.shape), rows, weight, scale, out.view(rows.shape))
        return out, grad_weight if ctx.needs_input_grad[1] else None, None


def _wide(dtype: torch.dtype) -> torch.dtype:
    return dtype if dtype in (torch.float32, torch.float64) else torch.float32


def _blocks(x: Tensor) -> Iterator[slice]:
    """(T, H, D) rows in blocks."""
    step = max(1, BLOCK // max(1, x[:1].numel()))
    return (slice(first, first + step) for first in range(0, len(x), step))


def _normalise(x: Tensor, weight: Tensor, eps: float, out: Tensor) -> Tensor:
    """Write the RMS norm of (T, H, D) vectors to `out`.

    Returns:
        (T, H, 1), the inverse root mean squares.
    """
    wide = _wide(x.dtype)
    scale = torch.empty((*x.shape[:2], 1), dtype=wide)
    for at in _blocks(x):
        part = x[at].to(wide)
        norm = torch.linalg.vector_norm(part, dim=-1, keepdim=True).double()
        r = scale[at].copy_(norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_())
        if x.dtype == wide == out.dtype:
            torch.mul(part, r, out=out[at])
        else:
            out[at] = (part * r).to(x.dtype)
        out[at].mul_(weight)
    return scale


def _normalise_backward(grad: Tensor, x: Tensor, weight: Tensor, scale: Tensor, out: Tensor) -> Tensor:
    """Write the gradient of the (T, H, D) vectors `x` to `out`, given that of their norms; `out` may be `grad` itself.

    With y = w · r x and r = 1 / √(mean(x²) + eps), ∂r/∂x = -r³ x / D, so that the gradient of x is r w · g - x r³ Σ(w · g · x) / D.

    Returns:
        (D,), the gradient Σ r x · g of the weight.
    """
    wide, size = scale.dtype, x.shape[-1]
    w = weight.to(wide)
    grad_weight = torch.zeros_like(w)
    for at in _blocks(x):
        part, g, r = x[at].to(wide), grad[at].to(wide), scale[at]
        both = part * g
        slope = torch.mv(both.view(-1, size), w).view(r.shape).mul_(r).mul_(r).mul_(r).mul_(-1 / size)
        grad_weight += both.mul_(r).view(-1, size).sum(0)  # pairwise, where a product adds up one by one
        made = out[at] if out.dtype == wide else g.new_empty(g.shape)
        torch.mul(g, r, out=made).mul_(w).addcmul_(part, slope)
        if made.dtype != out.dtype:
            out[at] = made
    return grad_weight.to(weight.dtype)


# ---- rotated queries and keys -----------------------------------------------------------------------------------------


class _Rotated(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, cos: Tensor, sin: Tensor, eps: float, compute: torch.dtype, *parts: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        size = cos.shape[-1]
        wq, _, wv, *_, q_norm, k_norm = parts
        assert wq is not None
        assert wv is not None
        heads, groups = len(wq) // size, len(wv) // size
        with torch.autocast("cpu", enabled=False):
            made = routes.linear(
                x.to(compute), _joined(parts[:3], size, compute), _joined(parts[3:6], size, compute)
            ).view(len(x), -1, size)
            table = _table(cos, sin)
            out, scales = [], []
            for z, norm in zip(made.split((heads, groups, groups), 1)[:2], (q_norm, k_norm), strict=True):
                turned = torch.empty(z.shape, dtype=x.dtype)
                if norm is None:
                    torch.mul(_pairs(z.to(x.dtype)), table, out=_pairs(turned))
                else:
                    scales.append(_normalise(z, _in_pairs(norm, size), eps, turned))
                    _pairs(turned).mul_(table)
                out.append(turned)
        ctx.compute = compute
        ctx.save_for_backward(x, cos, sin, *parts, *((made, *scales) if scales else ()))
        return out[0], out[1], made[:, heads + groups :]

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grads: Tensor
    ) -> tuple[Tensor | None, ...]:
        x, cos, sin, *rest = ctx.saved_tensors
        parts, kept = rest[:8], rest[8:]
        size, needs = cos.shape[-1], ctx.needs_input_grad[5:]
        heads, groups = (len(parts[i]) // size for i in (0, 2))
        with torch.autocast("cpu", enabled=False):
            back = _table(cos, -sin)
            made = torch.empty((len(x), heads + 2 * groups, size), dtype=x.dtype)
            slices = made.split((heads, groups, groups), 1)
            slices[2].copy_(grads[2])
            norms: list[Tensor | None] = [None, None]
            for i in range(2):
                torch.mul(_pairs(grads[i].contiguous()), back, out=_pairs(slices[i]))
                if kept:
                    z = kept[0].split((heads, groups, groups), 1)[i]
                    weight = _in_pairs(parts[6 + i], size)
                    norms[i] = _in_halves(_normalise_backward(slices[i], z, weight, kept[1 + i], slices[i]), size)
            flat = made.flatten(1).to(ctx.compute)
            grad_x = grad_w = grad_b = None
            if ctx.needs_input_grad[0]:
                grad_x = routes.product(flat, _joined(parts[:3], size, ctx.compute)).to(x.dtype)
            if any(needs[:3]):
                grad_w = routes.product(flat.t(), x.to(ctx.compute))
            if any(needs[3:6]):
                grad_b = flat.sum(0)
            found = [*_apart(grad_w, parts[:3], size), *_apart(grad_b, parts[3:6], size), *norms]
        wanted = (grad if need else None for grad, need in zip(found, needs, strict=True))
        return grad_x, None, None, None, None, *wanted


def _table(cos: Tensor, sin: Tensor) -> Tensor:
    """(T, 1, D/2) complex numbers of modulus 1, or the variant's scale."""
    half = cos.shape[-1] // 2
    return torch.complex(cos[:, :half], sin[:, :half])[:, None]


def _pairs(x: Tensor) -> Tensor:
    """(T, H, D) with pairs side by side as (T, H, D/2) complex numbers, in place."""
    return torch.view_as_complex(x.unflatten(-1, (-1, 2)))


def _in_pairs(rows: Tensor, size: int) -> Tensor:
    """(H · D, ...) in an order that puts i and i + D/2 of each head side by side."""
    return rows.unflatten(0, (-1, 2, size // 2)).transpose(1, 2).flatten(0, 2)


def _in_halves(rows: Tensor, size: int) -> Tensor:
    """The inverse of `_in_pairs`."""
    return rows.unflatten(0, (-1, size // 2, 2)).transpose(1, 2).flatten(0, 2)


def _joined(parts: Any, size: int, dtype: torch.dtype) -> Any:
    """Rows of the projections of queries, keys and values below each other, the first two in pairs; None stays None."""
    q, k, v = parts
    return None if q is None else torch.cat([_in_pairs(q, size), _in_pairs(k, size), v]).to(dtype)


def _apart(joined: Tensor | None, parts: Any, size: int) -> tuple[Tensor | None, ...]:
    """The inverse of `_joined`, each in the type of its own part."""
    if joined is None:
        return None, None, None
    q, k, v = joined.split([len(part) for part in parts])
    return tuple(
        grad.to(part.dtype) for grad, part in zip((_in_halves(q, size), _in_halves(k, size), v), parts, strict=True)
    )
