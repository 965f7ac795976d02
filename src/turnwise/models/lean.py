"""A forward of our own for decoding with the Llama, Mistral, Qwen2, Qwen2.5 and Qwen3 families.

One layer is x + W_o attention(rotary(W_qkv norm(x))) and then x + W_down (act(W_gate norm(x)) * W_up norm(x)): RMSNorm
(arXiv 1910.07467), rotary positions (arXiv 2104.09864), grouped queries (arXiv 2305.13245), a gated MLP (arXiv 2002.05202),
with biases and norms of queries and keys where the model has them. The weights are those of the Hugging Face model, which
goes on to be trained, saved and loaded as ever: projections that read the same input lie side by side in one
matrix, and the model's own parameters are views into it.

What this file leaves out: gradients, and every architecture that differs. `turnwise.models.decoder.make_decoder` compares
with the model's own forward before anything is decoded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from turnwise.models.cache import SlotCache
from turnwise.models.policy import Policy
from turnwise.models.routes import PackedWeight, packs
from turnwise.models.slot_attention import Feed, Pass
from turnwise.models.storage import underlying

FAMILIES = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
"""Classes of transformers that this forward is made for."""

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class NotLeanError(Exception):
    """The model differs from what this forward computes."""


class Product:
    """x W^T + b for linear layers that read the same input, with their outputs side by side.

    Without an adapter and in the layers' own dtype their parameters become views into one matrix. Otherwise the matrix is a
    copy, into which adapters are folded.

    Args:
        layers: Linear layers, or LoRA layers of PEFT around them.
        dtype: Of the product.
        adapted: Whether adapters take part.
        rows: Number of rows T that most products have: where it pays, the matrix is packed for that many.

    Raises:
        NotLeanError: a layer that is neither, or weights that are quantised.
    """

    def __init__(self, layers: Sequence[nn.Module], dtype: torch.dtype, *, adapted: bool, rows: int) -> None:
        self._parts = [_linear(layer) for layer in layers]
        self._adapters: list[Any] = [
            layer if adapted and layer is not part else None for layer, part in zip(layers, self._parts, strict=True)
        ]
        weights = [part.weight for part in self._parts]
        biases = [part.bias for part in self._parts]
        if any(weight.dtype != weights[0].dtype for weight in weights) or len({bias is None for bias in biases}) > 1:
            raise NotLeanError("projections that read the same input differ in dtype or bias")
        self._copied = dtype != weights[0].dtype or any(self._adapters)
        self._rows = rows
        if self._copied:
            width, inputs = sum(len(weight) for weight in weights), weights[0].shape[1]
            self._weight = torch.empty(width, inputs, dtype=dtype, device=weights[0].device)
            self._bias = None if biases[0] is None else torch.empty(width, dtype=dtype, device=weights[0].device)
        self.refresh()

    def refresh(self) -> None:
        """Follow weights that were replaced; copy where they are copied."""
        weights, biases = (
            [part.weight for part in self._parts],
            [part.bias for part in self._parts if part.bias is not None],
        )
        if not self._copied:
            self._weight = joined(weights)
            self._bias = joined(biases) if biases else None
        else:
            rows = [weight.shape[0] for weight in weights]
            for into, weight, adapter in zip(self._weight.split(rows), weights, self._adapters, strict=True):
                into.copy_(_folded(weight, adapter))
            if self._bias is not None:
                self._bias.copy_(torch.cat([bias.detach() for bias in biases]))
        self._transposed = self._weight.t()
        # A packed matrix is worth it from some number of rows on, if most products have as many.
        self._fewest = next((1 << n for n in range(16) if packs(1 << n, self._weight)), math.inf)
        self._packed = None
        if self._fewest <= self._rows:
            self._packed = PackedWeight(self._weight, self._bias, rows=self._rows)

    def __call__(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """(T, d) -> (T, N), in `out` if there is one."""
        if self._packed is not None and len(x) >= self._fewest:
            found = self._packed(x)
            return found if out is None else out.copy_(found)
        if self._bias is None:
            return torch.mm(x, self._transposed, out=out)
        return torch.addmm(self._bias, x, self._transposed, out=out)

    def add_to(self, residual: Tensor, x: Tensor) -> None:
        """Add the product of (T, d) to `residual` (T, N)."""
        if self._packed is not None and len(x) >= self._fewest:
            residual.add_(self._packed(x))
            return
        residual.addmm_(x, self._transposed)
        if self._bias is not None:
            residual.add_(self._bias)


class _Room:
    """Where the intermediate results of a pass of n tokens lie, and every view of them that a layer needs."""

    def __init__(self, like: Tensor, n: int, width: int, inner: int, heads: int, groups: int, dim: int) -> None:
        half = dim // 2
        self.n = n
        self.x = like.new_empty(n, width)
        self.normed, self.root = torch.empty_like(self.x), like.new_empty(n, 1)
        self.head_root = like.new_empty(n, heads + groups, 1)
        self.qkv = like.new_empty(n, (heads + 2 * groups) * dim)
        parts = self.qkv.view(n, heads + 2 * groups, dim)
        self.qk, self.v = parts[:, : heads + groups], parts[:, heads + groups :]
        self.turned = like.new_empty(n, heads + groups, dim)
        self.head_normed = torch.empty_like(self.turned)
        self.low, self.high = self.turned[..., :half], self.turned[..., half:]
        self.turned_q, self.turned_k = self.turned[:, :heads], self.turned[:, heads:]
        self.cos, self.sin = like.new_empty(n, dim), like.new_empty(n, half)
        self.angles = (self.cos.unsqueeze(1), self.sin.unsqueeze(1))
        self.q, self.attended = like.new_empty(n, heads, dim), like.new_empty(n, heads, dim)
        self.mixed = self.attended.view(n, heads * dim)
        self.gate_up = like.new_empty(n, 2 * inner)
        self.gate, self.up = self.gate_up[:, :inner], self.gate_up[:, inner:]
        self.gated = like.new_empty(n, inner)


class _Norm:
    """RMSNorm x / sqrt(mean(x^2) + eps) * w with the weight of a Hugging Face module, or of several for as many heads."""

    def __init__(self, modules: Sequence[Any], dtype: torch.dtype, heads: Sequence[int] = ()) -> None:
        for module in modules:
            if not type(module).__name__.endswith("RMSNorm"):
                raise NotLeanError(f"{type(module).__name__} is no RMSNorm")
        self._modules, self._heads = modules, heads
        self._dtype = dtype
        self._eps = float(modules[0].variance_epsilon)
        self.refresh()

    def refresh(self) -> None:
        weights = [module.weight.detach().to(self._dtype) for module in self._modules]
        if self._heads:
            weights = [weight.expand(n, -1) for weight, n in zip(weights, self._heads, strict=True)]
        self._weight = torch.cat(weights) if self._heads else weights[0]
        self._small = self._weight.new_full((1,), self._eps)

    def __call__(self, x: Tensor, root: Tensor, out: Tensor) -> Tensor:
        """The rows of x normalised, in `out`; `root` has one entry for each of them."""
        width = x.shape[-1]
        if self._dtype != torch.float32:
            return F.rms_norm(x, (width,), None, self._eps).mul_(self._weight)
        torch.linalg.vector_norm(x, dim=-1, keepdim=True, out=root)
        torch.addcmul(self._small, root, root, value=1 / width, out=root).rsqrt_()
        return torch.mul(x, root, out=out).mul_(self._weight)


class _Layer:
    """One layer's parameters, made ready."""

    def __init__(self, layer: Any, dtype: torch.dtype, heads: Sequence[int], **how: Any) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        if getattr(attention, "sliding_window", None) is not None:
            raise NotLeanError("its attention has a sliding window")
        self.norm = _Norm([layer.input_layernorm], dtype)
        self.qkv = Product([attention.q_proj, attention.k_proj, attention.v_proj], dtype, **how)
        self.head_norm: _Norm | None = None
        if hasattr(attention, "q_norm"):
            self.head_norm = _Norm([attention.q_norm, attention.k_norm], dtype, heads)
        self.out = Product([attention.o_proj], dtype, **how)
        self.norm_mlp = _Norm([layer.post_attention_layernorm], dtype)
        self.gate_up = Product([mlp.gate_proj, mlp.up_proj], dtype, **how)
        self.inner = int(mlp.gate_proj.out_features)
        self.down = Product([mlp.down_proj], dtype, **how)
        self.act = mlp.act_fn
        self.silu = isinstance(mlp.act_fn, nn.SiLU) or type(mlp.act_fn).__name__ == "SiLUActivation"
        self.scale = float(attention.scaling)

    def refresh(self) -> None:
        for part in (self.norm, self.qkv, self.head_norm, self.out, self.norm_mlp, self.gate_up, self.down):
            if part is not None:
                part.refresh()


class LeanDecoder:
    """Decodes by a forward of our own over the policy's weights.

    Args:
        policy: Whose weights decode.
        slots: Contexts held at once.
        dtype: Torch dtype name of a copy of the weights to decode with; the policy's own weights by default.

    Attributes:
        cache: What the slots hold.
        bytes_per_token: See `turnwise.models.decoder.Decoder`.

    Raises:
        NotLeanError: the model is none that this forward computes.
    """

    def __init__(self, policy: Policy, slots: int, *, dtype: str = "") -> None:
        model = underlying(policy.model)
        if type(model).__name__ not in FAMILIES or not type(model).__module__.startswith("transformers."):
            raise NotLeanError(f"{type(model).__name__} is none of {', '.join(FAMILIES)}")
        if not policy.packed or getattr(model, "is_quantized", False):
            raise NotLeanError("it has an attention variant, or weights of 4 or 8 bits")
        config = model.config
        self._embedding = _embedding(model.get_input_embeddings())
        self._dtype = getattr(torch, dtype) if dtype else self._embedding.weight.dtype
        how = {"adapted": policy.has_adapter and not policy._adapter_off, "rows": slots}
        self._like = self._embedding.weight.detach().new_empty(0, dtype=self._dtype)
        self.cache = SlotCache(config, slots, policy.context_limit, self._like)
        self.bytes_per_token = self.cache.bytes_per_token
        self._heads, self._width = int(config.num_attention_heads), int(config.hidden_size)
        heads = (self._heads, self.cache.heads)
        with torch.inference_mode(False), torch.no_grad():
            self._layers = [_Layer(layer, self._dtype, heads, **how) for layer in model.model.layers]
            self._norm = _Norm([model.model.norm], self._dtype)
            self._head = Product([model.get_output_embeddings()], self._dtype, **how)
        self._rotary = model.model.rotary_emb
        self._angles = (self._like, self._like)
        self._room = self._new_room(0)

    def advance(self, feed: Feed) -> Tensor:
        """See `turnwise.models.decoder.Decoder.advance`."""
        with torch.inference_mode():
            plan = Pass(self.cache, feed, self._heads)
            hidden = self._hidden(plan)
        # Logits are an ordinary tensor, that who samples may change in place.
        with torch.no_grad():
            return self._head(hidden).float()

    def copy(self, source: int, target: int, length: int) -> None:
        """See `turnwise.models.decoder.Decoder.copy`."""
        self.cache.copy(source, target, length)

    def refresh(self) -> None:
        """See `turnwise.models.decoder.Decoder.refresh`."""
        with torch.inference_mode(False), torch.no_grad():
            for part in (*self._layers, self._norm, self._head):
                part.refresh()
        self.cache.clear()

    def _hidden(self, plan: Pass) -> Tensor:
        """(W, d) last hidden states, normalised, of the wanted rows."""
        if self._room.n != len(plan.ids):
            self._room = self._new_room(len(plan.ids))
        room, half = self._room, self.cache.dim // 2
        room.x.copy_(F.embedding(plan.ids, self._embedding.weight))
        for table, out in zip(self._tables(), (room.cos, room.sin), strict=True):
            torch.index_select(table, 0, plan.positions, out=out)
        cos, sin = room.angles
        plan.between(room.q, room.attended)
        for index, layer in enumerate(self._layers):
            layer.qkv(layer.norm(room.x, room.root, room.normed), room.qkv)
            qk = room.qk
            if layer.head_norm is not None:
                qk = layer.head_norm(qk, room.head_root, room.head_normed)
            # Rotate each pair of entries (i, i + D/2) by the angle of its place.
            torch.mul(qk, cos, out=room.turned)
            room.low.addcmul_(qk[..., half:], sin, value=-1)
            room.high.addcmul_(qk[..., :half], sin)
            plan.store(index, room.turned_k, room.v)
            torch.mul(room.turned_q, layer.scale, out=room.q)
            plan.read(index)
            mixed = room.mixed
            if index == len(self._layers) - 1 and not plan.whole:
                # Behind the last attention only the wanted rows matter.
                mixed, states = mixed.index_select(0, plan.last), room.x.index_select(0, plan.last)
                room = room if len(states) == room.n else self._new_room(len(states))
                room.x.copy_(states)
            layer.out.add_to(room.x, mixed)
            layer.gate_up(layer.norm_mlp(room.x, room.root, room.normed), room.gate_up)
            gate = F.silu(room.gate, inplace=True) if layer.silu else layer.act(room.gate)
            layer.down.add_to(room.x, torch.mul(gate, room.up, out=room.gated))
        return self._norm(room.x, room.root, room.normed)

    def _new_room(self, n: int) -> _Room:
        return _Room(self._like, n, self._width, self._layers[0].inner, self._heads, self.cache.heads, self.cache.dim)

    def _tables(self) -> tuple[Tensor, Tensor]:
        """(capacity, D) cosines and (capacity, D/2) sines of every place, as the model's own rotary module has them."""
        if len(self._angles[0]) < self.cache.capacity:
            with torch.inference_mode(False), torch.no_grad():
                places = torch.arange(self.cache.capacity, device=self.cache.device)
                cos, sin = (part[0] for part in self._rotary(self._like, places[None]))
                self._angles = cos, sin[:, : self.cache.dim // 2].contiguous()
        return self._angles


def joined(parameters: Sequence[Tensor]) -> Tensor:
    """One tensor of which the parameters are consecutive rows; they become views into it unless they are already."""
    first, at = parameters[0], parameters[0].data_ptr()
    if len(parameters) == 1:
        return first.detach()
    storage = first.untyped_storage().data_ptr()
    for parameter in parameters:
        if (
            parameter.data_ptr() != at
            or parameter.untyped_storage().data_ptr() != storage
            or not parameter.is_contiguous()
        ):
            break
        at += parameter.numel() * parameter.element_size()
    else:
        rows = sum(len(parameter) for parameter in parameters)
        return first.detach().as_strided((rows, *first.shape[1:]), first.stride())
    whole = torch.cat([parameter.detach() for parameter in parameters])
    for parameter, rows in zip(parameters, whole.split([len(parameter) for parameter in parameters]), strict=True):
        parameter.data = rows
    return whole


def _linear(layer: Any) -> nn.Linear:
    """The linear layer itself, or the one that a LoRA layer of PEFT goes around."""
    base = layer
    if type(layer).__module__ == "peft.tuners.lora.layer" and type(layer).__name__ == "Linear":
        if layer.lora_variant or layer.fan_in_fan_out or any(layer.lora_bias.values()):
            raise NotLeanError("its adapter is more than W + s B A")
        base = layer.base_layer
    if not isinstance(base, nn.Linear) or base.weight.dtype not in _DTYPES:
        raise NotLeanError(f"{type(layer).__name__} is no plain linear layer")
    return base


def _folded(weight: Tensor, adapter: Any) -> Tensor:
    """The weight, with what the active adapters of a LoRA layer add to it."""
    folded = weight.detach()
    if adapter is not None and not adapter.disable_adapters and not adapter.merged:
        for name in adapter.active_adapters:
            if name in adapter.lora_A:
                folded = folded + adapter.get_delta_weight(name)
    return folded


def _embedding(module: Any) -> nn.Embedding:
    if type(module) is not nn.Embedding or module.max_norm is not None or module.weight.dtype not in _DTYPES:
        raise NotLeanError(f"{type(module).__name__} is no plain embedding")
    return module
