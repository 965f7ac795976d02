"""What every iteration logs about its episodes, whatever the algorithm."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from turnwise.episode import UNSCORABLE, Episode, Stop


def episode_metrics(episodes: Sequence[Episode]) -> dict[str, tuple[float, float]]:
    """name -> (sum, count) over the episodes that the environment did not break; explained in ``docs/metrics.md``."""
    whole = [episode for episode in episodes if not episode.failed and episode.turns]
    turns = [turn for episode in whole for turn in episode.turns]
    actions = float(sum(len(turn.act) for turn in turns))
    returns = np.array([episode.undiscounted_return for episode in whole], dtype=np.float64)
    # A judge may have been unable to score a turn; such an episode has no return.
    scored = returns[~np.isnan(returns)]
    total: dict[str, tuple[float, float]] = {
        "episodes/count": (float(len(episodes)), 1.0),
        "episodes/failed": (float(sum(episode.failed for episode in episodes)), 1.0),
        "episodes/truncated": (float(sum(episode.truncated for episode in whole)), float(len(whole))),
        "reward": (float(scored.sum()), float(len(scored))),
        "reward_std": (float(scored.std()) if len(scored) else 0.0, float(bool(len(scored)))),
        "turns/mean": (float(len(turns)), float(len(whole))),
        "completions/mean_length": (actions, float(len(turns))),
        "completions/clipped_ratio": (float(sum(turn.stop is Stop.LENGTH for turn in turns)), float(len(turns))),
        "tokens/action": (actions, 1.0),
        "tokens/observation": (float(sum(len(turn.obs) for turn in turns)), 1.0),
    }
    total |= _by_source(whole)
    if success_told(whole):
        total["success"] = (sum(succeeded(episode) for episode in whole), float(len(whole)))
    return total


def _by_source(episodes: Sequence[Episode]) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation of what each source paid in an episode, and the episodes that it could not score."""
    paid = [name for episode in episodes for turn in episode.turns for name in turn.rewards]
    silent = [name.removeprefix(UNSCORABLE) for e in episodes for name in e.metrics if name.startswith(UNSCORABLE)]
    total: dict[str, tuple[float, float]] = {}
    for source in dict.fromkeys([*paid, *silent]):
        scored = [episode for episode in episodes if not episode.metrics.get(f"{UNSCORABLE}{source}")]
        sums = np.array([sum(turn.rewards.get(source, 0.0) for turn in episode.turns) for episode in scored])
        total[f"rewards/{source}/mean"] = (float(sums.sum()), float(len(sums)))
        total[f"rewards/{source}/std"] = (float(sums.std()) if len(sums) else 0.0, float(bool(len(sums))))
        total[f"rewards/{source}/unscorable"] = (float(len(episodes) - len(scored)), 1.0)
    return total


def success_told(episodes: Sequence[Episode]) -> bool:
    """Whether the environment says of any of the episodes if it succeeded."""
    return any("success" in episode.metrics for episode in episodes)


def succeeded(episode: Episode) -> float:
    """The episode's success; one that was cut before its environment could tell has not succeeded."""
    return float(episode.metrics.get("success", 0.0))
