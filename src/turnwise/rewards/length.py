"""What an answer costs when it is cut, or too long: penalties to put beside a judge's score.

Judged(source, {"environment": (1.0, environment), "cut": (1.0, missing_eos(1.0))})
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from turnwise.episode import Episode, Stop
from turnwise.rewards.reward import Reward, RewardError


def missing_eos(penalty: float) -> Reward:
    """−`penalty` for every action that used up its token budget without a stop token, 0 for the others.

    At one turn it is taken off the answer's score, as TRL's PPO does with ``missing_eos_penalty``: whatever a judge thinks
    of a sentence that does not end, it is worth less than one that does (Stiennon et al. 2020 used a fixed low score).

    Raises:
        RewardError: a penalty that is not positive.
    """
    if not penalty > 0 or not np.isfinite(penalty):
        raise RewardError(f"penalty={penalty} would not punish; give a positive number, in the unit of the score")

    def cut(episodes: list[Episode]) -> list[NDArray[np.float64]]:
        return [
            np.array([-penalty if turn.stop is Stop.LENGTH else 0.0 for turn in episode.turns]) for episode in episodes
        ]

    return cut


def overlong(limit: int, buffer: int) -> Reward:
    """DAPO's soft overlong punishment of every action of n tokens (arXiv 2503.14476, eq. 13).

    0 for n ≤ limit − buffer, then falling in a straight line to −1 at n = limit, and −1 beyond. The stop token counts.

    Args:
        limit: Tokens that an action may have.
        buffer: The last tokens of these, in which the punishment grows.

    Raises:
        RewardError: a buffer that is not positive or longer than the limit.
    """
    if not 0 < buffer <= limit:
        raise RewardError(f"limit={limit} and buffer={buffer}: the buffer has at least 1 token and at most the limit's")

    def too_long(episodes: list[Episode]) -> list[NDArray[np.float64]]:
        return [0.0 - np.clip((episode.act_lengths - (limit - buffer)) / buffer, 0.0, 1.0) for episode in episodes]

    return too_long
