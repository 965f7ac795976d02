"""The last layer of a model answers where somebody reads, and nowhere else.

Below it every token matters, because later ones attend to it. Of the last layer only those tokens matter whose hidden state is
read: the one before each token that the policy sampled. Prompts and observations need its keys and values, but no step after
attention. In a network of few layers, or in dialogues of many observations, that is much of the work.

What this file leaves out: models whose layers are not made of two norms, attention and a feed-forward part in the usual order.
`turnwise.models.packing.runs_packed` compares, and they keep their own last layer.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

_PARTS = ("input_layernorm", "self_attn", "post_attention_layernorm", "mlp")


def install(trunk: nn.Module) -> bool:
    """Give the last layer a forward that heeds what the plan says is read. Parameters, names and what is saved stay as they are.

    Args:
        trunk: A Hugging Face model without its head.

    Returns:
        Whether the layer has the parts for that, and nobody else has changed its forward.
    """
    layer = _last(trunk)
    if layer is not None and "forward" not in vars(layer):
        layer.forward = partial(_forward, layer)
    return installed(trunk)


def installed(trunk: nn.Module) -> bool:
    """What the trunk returns has one row for each node that is read, if the plan says which."""
    forward = vars(_last(trunk) or trunk).get("forward")
    return isinstance(forward, partial) and forward.func is _forward


def rows(trunk: nn.Module, plan: Any, nodes: Tensor) -> Tensor:
    """(K,) rows of what the trunk returns under `plan` that belong to (K,) `nodes`; those that are read, if the plan says which."""
    if getattr(plan, "read", None) is None or not installed(trunk):
        return nodes
    return torch.arange(len(nodes), device=nodes.device)


def uninstall(trunk: nn.Module) -> None:
    """Give the last layer its own forward again."""
    if installed(trunk):
        del _last(trunk).forward


def _last(trunk: nn.Module) -> Any:
    layers: Any = getattr(trunk, "layers", None)
    known = isinstance(layers, nn.ModuleList) and len(layers) and all(hasattr(layers[-1], part) for part in _PARTS)
    return layers[-1] if known else None


def _forward(layer: Any, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
    """(1, U, d) -> (1, K, d) at the nodes that the plan says are read, or all of them if it does not say."""
    read = getattr(kwargs.get("plan"), "read", None)
    if read is None or args:
        return type(layer).forward(layer, hidden_states, *args, **kwargs)
    said = layer.self_attn(hidden_states=layer.input_layernorm(hidden_states), **kwargs)[0]
    rows = hidden_states.index_select(1, read) + said.index_select(1, read)
    return rows + layer.mlp(layer.post_attention_layernorm(rows))
