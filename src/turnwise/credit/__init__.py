"""Credit: how far back a reward reaches. Pure numpy, one array per episode in and out.

A method chooses one function of each kind and composes them: `returns` or `gae_turns`/`gae_tokens` carry rewards back
in time; `leave_one_out_alive`, `batch_baseline`, `group_relative`, `leave_one_out` or a critic say what was to be
expected; `broadcast` puts a turn's advantage on its action tokens. ``docs/credit.md`` maps published names to
compositions.
"""

from turnwise.credit.anchors import anchor_advantages, anchor_groups, episode_and_step
from turnwise.credit.baselines import (
    batch_baseline,
    group_relative,
    leave_one_out,
    leave_one_out_alive,
    unit_scale,
    whiten,
    whiten_rewards,
)
from turnwise.credit.diagnosis import explained_variance, why_zero, zero_std, zero_std_metrics
from turnwise.credit.gae import gae_tokens, gae_turns
from turnwise.credit.returns import broadcast, place_at_end, returns, sum_by_turn, uniform
from turnwise.credit.selection import best_and_worst, best_of

__all__ = [
    "anchor_advantages",
    "anchor_groups",
    "batch_baseline",
    "best_and_worst",
    "best_of",
    "broadcast",
    "episode_and_step",
    "explained_variance",
    "gae_tokens",
    "gae_turns",
    "group_relative",
    "leave_one_out",
    "leave_one_out_alive",
    "place_at_end",
    "returns",
    "sum_by_turn",
    "uniform",
    "unit_scale",
    "whiten",
    "whiten_rewards",
    "why_zero",
    "zero_std",
    "zero_std_metrics",
]
