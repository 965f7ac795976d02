"""Refusing nonsense at construction, with the reason and the remedy."""

from __future__ import annotations

from typing import Any

from turnwise.errors import TurnwiseError


class SettingsError(TurnwiseError, ValueError):
    """A hyperparameter that cannot work."""


_RULES: dict[str, tuple[Any, str]] = {
    "episodes": (lambda x: x >= 1, "an iteration needs at least one episode"),
    "groups": (lambda x: x >= 1, "an iteration needs at least one start state"),
    "group_size": (lambda x: x >= 2, "gives zero advantage; use a critic (ppo) or group_size ≥ 2"),
    "gamma": (lambda x: 0 <= x <= 1, "a discount lies in [0, 1]"),
    "lam": (lambda x: 0 <= x <= 1, "the trace decay lies in [0, 1]"),
    "clip": (lambda x: x > 0, "a trust region needs a positive width; 0.2 is usual"),
    "epochs": (lambda x: x >= 1, "the experience would never be used; use at least 1"),
    "minibatch": (lambda x: x >= 1, "an optimizer step needs at least one turn"),
    "value_coef": (
        lambda x: x > 0,
        "the critic would never learn; use a positive weight, or reinforce, which has none",
    ),
    "entropy_coef": (lambda x: x >= 0, "a negative bonus makes the policy collapse; use 0 or a small positive number"),
    "kl_coef": (lambda x: x >= 0, "a negative penalty pays for leaving the reference; use 0 or a positive number"),
    "reward_scale": (lambda x: x > 0, "would erase or flip the reward; use a positive number"),
}


def check_settings(settings: Any) -> None:
    """Check every field that has a rule.

    Raises:
        SettingsError: naming the field, its value, the reason and the remedy.
    """
    for name, (holds, reason) in _RULES.items():
        value = getattr(settings, name, None)
        if value is not None and not holds(value):
            raise SettingsError(f"{type(settings).__name__}: {name}={value}: {reason}")
