"""Preferences between single replies in the errand world, and the world with one reply that somebody who compares them sees."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from turnwise.recipes.settings import Training, World

SINGLE_REPLY = World("turnwise.recipes.one_step:single_reply", memory=0, max_tokens=5, where="inline")
"""One situation of the errand world, one reply, its immediate reward."""

_ROUND = 512
_PAIRS = 11


def single_reply() -> Any:
    """A situation of the errand world that random moves lead to, and one reply."""
    from turnwise.envs import OneReply
    from turnwise.envs.errand import Errand

    return OneReply(Errand())


def write_pairs(path: Path, training: Training, policy: Any, pairs: int) -> None:
    """Write a file of preferences: two replies to the same situation, of which the one with the better immediate outcome is chosen.

    Pairs with equal outcomes are left out, and those with an empty reply.

    Args:
        path: JSONL file with the columns prompt, chosen and rejected.
        training: The settings that the policy acts with; its seed decides the situations.
        policy: Who replies.
        pairs: How many.
    """
    from turnwise.engines.noise import mix
    from turnwise.recipes.sources import make_collector, resolve_env
    from turnwise.text import Reader

    asked = replace(training, world=SINGLE_REPLY, seed=mix(training.seed, _PAIRS) % 2**31)
    collector, reader = make_collector(asked, resolve_env(asked, None), policy), Reader(policy.renderer)
    rows: list[dict[str, str]] = []
    rounds = 0
    try:
        while len(rows) < pairs:
            played = collector.rollouts(rounds, min(pairs, _ROUND), 2)
            rounds += 1
            for two in zip(played[::2], played[1::2], strict=True):
                worse, better = sorted(two, key=lambda one: one.undiscounted_return)
                said = {"chosen": reader.action(better, 0), "rejected": reader.action(worse, 0)}
                if better.undiscounted_return > worse.undiscounted_return and all(said.values()):
                    rows.append({"prompt": reader.observation(better, 0), **said})
    finally:
        collector.close()
    path.write_text("".join(json.dumps(row) + "\n" for row in rows[:pairs]))
