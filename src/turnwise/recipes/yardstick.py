"""What the best policy would earn: the figure beside which a return means something."""

from __future__ import annotations

from turnwise.envs.registry import EnvSpec


def best_return(world: EnvSpec, tasks: int = 256) -> tuple[float, str] | None:
    """The optimal expected return and how it is known; None where nobody knows it.

    By dynamic programming where the world has tables. Otherwise by its expert on the held-out tasks: an upper bound for
    most policies when the expert sees the whole state, and an estimate.
    """
    from turnwise.envs import demonstrate, optimal_return
    from turnwise.envs.errors import NotOffered
    from turnwise.runs import evaluation_seeds

    if world.exact is not None:
        tabular = world.exact()
        return optimal_return(tabular, world.max_turns), "dynamic programming"
    try:
        shown = demonstrate(world.make, evaluation_seeds(tasks), skill=1.0)
    except NotOffered:
        return None
    return sum(sum(transcript.rewards) for transcript in shown) / len(shown), f"its expert on {tasks} held-out tasks"
