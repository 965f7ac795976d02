"""The critic's regression on its targets."""

from __future__ import annotations

import torch
from torch import Tensor

from turnwise.batch import Batch, Outputs
from turnwise.metrics import Metrics, merge
from turnwise.objectives.objective import Objective, tally, tally_loss


def value_error(clip: float | None = None) -> Objective:
    """Half the squared error of the value head: L_t = u_t ½ (V_t − R_t)².

    The weights u are a stream of their own: a critic over turns has weight at the first action token of each turn only
    (`turn_start_mean`), one over tokens has it everywhere (`token_mean`), whatever weighs the policy loss.

    Args:
        clip: With a number, V may gain by moving at most this far from the value at collection time:
            L_t = u_t ½ max((V_t − R_t)², (V_old,t + clip(V_t − V_old,t, ±clip) − R_t)²), as in OpenAI baselines' PPO.

    Streams: ``return`` (the targets), ``value_weight``; with `clip` also ``old_value``.

    Raises:
        ValueError: `clip` is not positive, or the outputs carry no value.
    """
    if clip is not None and clip <= 0:
        raise ValueError(f"clip={clip} must be positive, or None for no clipping")

    def objective(outputs: Outputs, batch: Batch) -> tuple[Tensor, Metrics]:
        if outputs.value is None:
            raise ValueError(
                "value_error needs a value head, and the outputs carry no value; "
                "build the policy with a value head or use a credit function without critic"
            )
        weight, target = batch.stream("value_weight"), batch.stream("return")
        error = (outputs.value - target).square()
        figures = {"value/mean": outputs.value, "value/target": target}
        if clip is not None:
            old = batch.stream("old_value")
            held = old + (outputs.value - old).clamp(-clip, clip)
            held_error = (held - target).square()
            figures["clip_ratio/value"] = held_error > error
            error = torch.maximum(error, held_error)
        loss = 0.5 * weight * error
        return loss, merge([tally_loss("value/loss", loss, weight), tally(weight != 0, figures)])

    return objective
