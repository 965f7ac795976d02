"""The last layer of a model answers where somebody reads, and nowhere else.

Below it every token matters, because later ones attend to it. Of the last layer only those tokens matter whose hidden state is
read: the one before each token that the policy sampled. Prompts and observations need its keys and values, but ask nothing of
attention, and no step after it. In a network of few layers, or in dialogues of many observations, that is much of the work.

Whoever listens to the last layer or a part of it (a hook) still gets what all tokens say. Behind it, at the norm before the head,
there is one row for each token that is read.

What this file leaves out: models whose layers are not made of two norms, attention and a feed-forward part in the usual order.
They keep their own last layer.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from turnwise.models.storage import first_line
from turnwise.models.tree_attention import Tree
from turnwise.tree import PrefixTree

log = logging.getLogger(__name__)

_PARTS = ("input_layernorm", "self_attn", "post_attention_layernorm", "mlp")


def install(trunk: nn.Module) -> bool:
    """Give the last layer a forward that heeds what the plan says is read. Parameters, names and what is saved stay as they are.

    Args:
        trunk: A Hugging Face model without its head.

    Returns:
        Whether the layer is made of the parts for that in their order, and nobody else has changed its forward.
    """
    layer = _last(trunk)
    if layer is not None and "forward" not in vars(layer) and _is_usual(layer):
        layer.forward = partial(_forward, layer)
    return _installed(layer)


def uninstall(trunk: nn.Module) -> None:
    """Give the last layer its own forward again."""
    layer = _last(trunk)
    if _installed(layer):
        del layer.forward


def at(hidden: Tensor, plan: Any, nodes: Tensor) -> Tensor:
    """(N, d) what is said at (N,) nodes, of which each is read if the plan says which are.

    Args:
        hidden: (U, d) of all nodes, or (K, d) of those that are read, as the last layer had it.
        plan: Under which the trunk ran.
        nodes: Indices of nodes.
    """
    read = _read(plan)
    if read is None or len(hidden) != len(read):
        return hidden.index_select(0, nodes)
    return hidden if nodes is read else hidden.index_select(0, torch.searchsorted(read, nodes.contiguous()))


def _last(trunk: nn.Module) -> Any:
    layers: Any = getattr(trunk, "layers", None)
    if not isinstance(layers, nn.ModuleList) or not len(layers):
        return None
    known = all(isinstance(getattr(layers[-1], part, None), nn.Module) for part in _PARTS)
    return layers[-1] if known else None


@torch.no_grad()
def _is_usual(layer: Any) -> bool:
    """The layer's own forward and ours agree with waves in the place of its parts, which no weights can make look alike."""
    x = torch.linspace(-1, 1, 12, dtype=torch.float64).view(1, 4, 3)
    read = torch.tensor([0, 2])
    nodes = PrefixTree.of(np.arange(4), [4])
    parts = [getattr(layer, name) for name in _PARTS]
    before = [vars(part).get("forward") for part in parts]
    for i, part in enumerate(parts):
        part.forward = partial(_wave, i + 1.0, part is layer.self_attn)
    try:
        given = dict.fromkeys(("attention_mask", "position_ids", "position_embeddings", "past_key_values"))
        whole = type(layer).forward(layer, x, **given)
        less = _forward(layer, x, plan=Tree(nodes, np.array([4]), x.device, read), **given)
        return torch.is_tensor(whole) and torch.allclose(whole[:, read], less)
    except Exception as error:  # a layer that looks alike and is not
        log.debug("%s keeps its own forward: %s", type(layer).__name__, first_line(error))
        return False
    finally:
        for part, forward in zip(parts, before, strict=True):
            del part.forward
            if forward is not None:
                part.forward = forward


def _wave(frequency: float, attends: bool, hidden_states: Tensor, **kwargs: Any) -> Any:
    said = torch.sin(frequency * hidden_states + 1)
    return (said, None) if attends else said


def _installed(layer: Any) -> bool:
    forward = vars(layer).get("forward") if layer is not None else None
    return isinstance(forward, partial) and forward.func is _forward


def _read(plan: Any) -> Tensor | None:
    return plan.read if isinstance(plan, Tree) else None


def _is_heard(part: nn.Module) -> bool:
    return bool(part._forward_hooks or part._forward_pre_hooks or part._backward_hooks or part._backward_pre_hooks)


def _forward(layer: Any, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
    """(1, U, d) -> (1, K, d) at the nodes that the plan says are read, or all of them if it does not say or somebody listens."""
    read = _read(kwargs.get("plan"))
    if read is None or len(read) == hidden_states.shape[1] or args or any(map(_is_heard, layer.modules())):
        return type(layer).forward(layer, hidden_states, *args, **kwargs)
    with kwargs["plan"].reading():
        said = layer.self_attn(hidden_states=layer.input_layernorm(hidden_states), **kwargs)[0]
    rows = hidden_states.index_select(1, read) + said.index_select(1, read)
    return rows + layer.mlp(layer.post_attention_layernorm(rows))
