"""Persistence: disturbed in the middle of an episode, does the policy still reach what it reaches undisturbed?

Each figure is a recovery rate over that of a reference planner in the same disturbed tasks, so that what cannot be mended, by
anybody, in the time that is left does not count against the policy. Beside each stands success without a disturbance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from turnwise.audit.controls import Control, Trial
from turnwise.audit.evidence import Evidence, Level
from turnwise.audit.measure import (
    Measure,
    Measurement,
    NotMeasurable,
    Series,
    share_interval,
    share_ratio_interval,
)
from turnwise.audit.player import Player, TextGame, play_once, speaker
from turnwise.audit.players import held_out_seeds, table_player
from turnwise.audit.quantity import Quantity, Section
from turnwise.envs.errors import EnvError, NotOffered
from turnwise.envs.exact import Tabular, from_transitions, planner
from turnwise.envs.interrupted import Blackout, Distracted, Interrupted
from turnwise.envs.table_env import TableEnv
from turnwise.episode import Transcript

Disturbance = Callable[[TextGame, int, int], TextGame]
"""(environment, action of the player that it follows, seed) -> the environment with a disturbance."""

_SUCCESS = "goal/success"


def _moves(env: TextGame, turn: int, seed: int) -> TextGame:
    return Interrupted(env, turn=turn, moves=5, seed=seed)


def _teleport(env: TextGame, turn: int, seed: int) -> TextGame:
    return Interrupted(env, turn=turn, moves=0, scatter=True, seed=seed)


def _blank(env: TextGame, turn: int, seed: int) -> TextGame:
    return Blackout(env, turn=turn, seed=seed)


def _distraction(env: TextGame, turn: int, seed: int) -> TextGame:
    return Distracted(env, turn=turn, seed=seed)


DISTURBANCES: dict[str, tuple[str, Disturbance]] = {
    "moves": ("after 5 forced random moves", _moves),
    "teleport": ("after being put elsewhere", _teleport),
    "blank": ("after 3 empty observations", _blank),
    "distraction": ("after 3 observations with irrelevant words", _distraction),
}
"""Name -> what happens, in words, and the wrapper that does it."""


def success(evidence: Evidence) -> Measurement | NotMeasurable:
    """Share of undisturbed episodes that end in success, as the world itself says it. Needs L3."""
    found = _undisturbed(_SUCCESS, evidence)
    if isinstance(found, NotMeasurable):
        return found
    share = float(np.mean(found))
    how = f"{int(sum(found))} of {len(found)} episodes; Wilson interval"
    return Measurement(_SUCCESS, share, share_interval(share, np.ones(len(found))), len(found), how, "share")


def persistence(kind: str) -> Measure:
    """The measure of recovery from one kind of disturbance, relative to a planner.

    ``(share of the policy's disturbed episodes that succeed) / (the same of the reference planner)``. The disturbance comes
    half-way through the planner's median episode; episodes that are over before count in neither share. The planner is the
    world's own expert, who knows the state (also where it cannot be seen), or the optimal policy of its table. 0 is a script
    that nothing but its own course can finish, 1 recovery wherever it is possible. Interval: MOVER-R. Needs L3 and an expert,
    or L4.

    A policy without a memory that sees the whole state recovers by construction: it cannot know that anything happened.
    That is said in `how` where the player is known to be of this kind.

    Args:
        kind: One of `DISTURBANCES`.
    """
    name = f"persistence/{kind}"
    words, disturb = DISTURBANCES[kind]

    def measure(evidence: Evidence) -> Measurement | NotMeasurable:
        calm = _undisturbed(name, evidence)
        if isinstance(calm, NotMeasurable):
            return calm
        if not sum(calm):
            return NotMeasurable(
                name, Level.L3, f"the policy succeeds in none of {len(calm)} undisturbed episodes, so there is nothing to recover"
            )  # fmt: skip
        assert evidence.make_env is not None
        assert evidence.player is not None
        make, seeds = evidence.make_env, held_out_seeds(evidence.plays, evidence.seed)
        try:
            reference = _reference(evidence)
            plan = reference(make, seeds)
            turn = int(np.median([len(episode.actions) for episode in plan])) // 2
            if turn < 1:
                return NotMeasurable(
                    name, Level.L3, "the planner is done in one turn, so there is no middle to disturb"
                )

            def disturbed() -> TextGame:
                return disturb(make(), turn, evidence.seed)

            theirs, ours = _recovered(reference(disturbed, seeds)), _recovered(evidence.player(disturbed, seeds))
        except (NotOffered, EnvError) as error:
            return NotMeasurable(name, Level.L4, f"{error}")
        if not theirs or not sum(theirs):
            return NotMeasurable(name, Level.L3, f"not even the planner succeeds {words} after turn {turn}")
        if not ours:
            return NotMeasurable(
                name, Level.L3, f"no episode of the policy lasts beyond turn {turn}, when it is disturbed"
            )
        mine, best = float(np.mean(ours)), float(np.mean(theirs))
        plain = " a memory-less policy, which cannot notice;" if _memoryless(evidence.player) else ""
        how = (
            f"succeeds in {mine:.2f} of {len(ours)} episodes {words} at turn {turn}, the planner in {best:.2f} of {len(theirs)}; "
            f"undisturbed {np.mean(calm):.2f};{plain} ratio of shares, MOVER-R interval"
        )
        own, best_ends = share_interval(mine, np.ones(len(ours))), share_interval(best, np.ones(len(theirs)))
        rest = share_interval(float(np.mean(calm)), np.ones(len(calm)))
        series = Series(
            "success", (0.0, 1.0, 2.0), (float(np.mean(calm)), mine, best),
            (rest[0], own[0], best_ends[0]), (rest[1], own[1], best_ends[1]),
            "0 undisturbed, 1 disturbed, 2 planner disturbed", "share of episodes",
        )  # fmt: skip
        interval = share_ratio_interval(mine, len(ours), best, len(theirs))
        return Measurement(name, mine / best, interval, len(ours), how, "share of the planner's", (series,))

    measure.__name__ = f"persistence_{kind}"
    return measure


def expert(make: Callable[[], TextGame], seeds: Sequence[int]) -> list[Transcript]:
    """The player that does what the world's own expert would do, whatever can be seen.

    Args:
        make: Makes an environment with ``optimal_action()``.
        seeds: What it is reset with.

    Raises:
        NotOffered: the environment has no expert.
    """
    env = make()
    try:
        if not env.has_wrapper_attr("optimal_action"):
            raise NotOffered(f"{env} has no expert to compare with; give it a method optimal_action() -> str")
        return [play_once(env, seed, lambda *_: env.get_wrapper_attr("optimal_action")()) for seed in seeds]
    finally:
        env.close()


def _reference(evidence: Evidence) -> Player:
    """The world's expert; where it has none, the optimal policy of its table."""
    assert evidence.make_env is not None
    try:
        expert(evidence.make_env, held_out_seeds(1, evidence.seed))
    except NotOffered:
        if evidence.tabular is None:
            raise
        world = evidence.tabular
        return table_player(planner(world, world.horizon), world.actions, state_of=_true_state)
    return expert


def _true_state(env: TextGame) -> int:
    state = getattr(env.unwrapped, "state_index", None)
    if state is None:
        raise NotOffered(f"{env} does not count its states; give it a method state_index() -> int")
    return int(state())


def _memoryless(player: Player) -> bool:
    return bool(getattr(player, "memoryless", False))


def _undisturbed(name: str, evidence: Evidence) -> NotMeasurable | list[float]:
    """Success of each undisturbed episode."""
    if evidence.player is None or evidence.make_env is None:
        return NotMeasurable(name, Level.L3, "there is no policy and no environment for it to act in")
    seeds = held_out_seeds(evidence.plays, evidence.seed)
    played = evidence.player(evidence.make_env, seeds)
    found = [episode.metrics["success"] for episode in played if "success" in episode.metrics]
    if len(found) < len(played) or not found:
        return NotMeasurable(
            name, Level.L3, 'the world does not say which episodes succeed; it needs a figure "success"'
        )
    return [float(value > 0) for value in found]


def _recovered(played: Sequence[Transcript]) -> list[float]:
    """Success of each episode in which the disturbance took place."""
    return [float(e.metrics.get("success", 0.0) > 0) for e in played if e.metrics.get("interrupted")]


GOAL = 15
"""Cell of the treasure in the controls' world: two rows and three columns from the start."""


def torus(rows: int = 4, columns: int = 6, horizon: int = 30) -> Tabular:
    """A grid without edges: four moves, and digging, which ends the episode and pays 1 at the treasure.

    The sides are even, so that an odd number of moves never leads back to where one was.

    Args:
        rows: Even.
        columns: Even.
        horizon: Number of turns.
    """
    steps = ((-1, 0), (1, 0), (0, -1), (0, 1))
    transitions = [
        [
            *([(1.0, (r + dr) % rows * columns + (c + dc) % columns, 0.0, False)] for dr, dc in steps),
            [(1.0, r * columns + c, float(r * columns + c == GOAL), True)],
        ]
        for r in range(rows)
        for c in range(columns)
    ]
    start = np.eye(rows * columns)[0]
    return from_transitions(transitions, start, horizon, ("north", "south", "west", "east", "dig"))


SCRIPT = ("south", "south", "east", "east", "east", "dig")
"""The way from the start of `torus` to its treasure."""


def _scripted(observations: Sequence[str], own: Sequence[str], seed: int) -> str:
    return SCRIPT[min(len(own), len(SCRIPT) - 1)]


def _reads(lost: str) -> Callable[[Sequence[str], Sequence[str], int], str]:
    """Acts by the observation, whatever was before; says `lost` where that is not one of the world's."""
    world = torus()
    best = planner(world, world.horizon)[0].argmax(-1)

    def say(observations: Sequence[str], own: Sequence[str], seed: int) -> str:
        words = observations[-1].split()
        return world.actions[best[int(words[3])]] if words[:1] == ["turn"] else lost

    return say


def _half(observations: Sequence[str], own: Sequence[str], seed: int) -> str:
    return (_scripted if seed % 2 else _reads("north"))(observations, own, seed)


def _plays(player: Player, plays: int = 40) -> Evidence:
    return Evidence(player=player, make_env=lambda: TableEnv(torus()), plays=plays)


def success_controls() -> list[Control | Trial]:
    """Known answers of `success`."""
    return [
        Control("a script that fits", _plays(speaker(_scripted)), 1.0),
        Control("digs at once", _plays(speaker(lambda *_: "dig")), 0.0),
        Control("digs at once in every second task", _plays(speaker(_every_second)), 0.5),
        Control("nobody plays", Evidence(), None),
    ]


def _every_second(observations: Sequence[str], own: Sequence[str], seed: int) -> str:
    return "dig" if seed % 2 else _scripted(observations, own, seed)


def persistence_controls(kind: str) -> list[Control | Trial]:
    """Known answers of `persistence`.

    Args:
        kind: Of disturbance.
    """
    shared: list[Control | Trial] = [
        Control("the planner", _plays(expert), 1.0),
        Control("reads and does not lose its way", _plays(speaker(_reads("north"))), 1.0),
        Control("never succeeds undisturbed", _plays(speaker(lambda *_: "dig")), None),
        Control("nobody plays", Evidence(), None),
    ]
    if kind in ("moves", "teleport"):
        return [
            Control("a script: right undisturbed, never again on its way", _plays(speaker(_scripted)), 0.0),
            Control("a script in every second task", _plays(speaker(_half)), 0.5),
            *shared,
        ]
    return [
        Control("gives up where it cannot read", _plays(speaker(_reads("dig"))), 0.0),
        Control("a script has no eyes to close", _plays(speaker(_scripted)), 1.0),
        *shared,
    ]


def _quantity(kind: str) -> Quantity:
    words = DISTURBANCES[kind][0]
    return Quantity(
        f"persistence/{kind}",
        f"persistence, {kind}",
        f"How often does the policy succeed {words}, relative to a planner in the same place?",
        Section.GOAL,
        persistence(kind),
        partial(persistence_controls, kind),
        Level.L3,
    )


QUANTITIES = (
    Quantity(
        _SUCCESS,
        "success",
        "In which share of undisturbed episodes does the policy succeed, as the world says it?",
        Section.GOAL,
        success,
        success_controls,
        Level.L3,
    ),
    *(_quantity(kind) for kind in DISTURBANCES),
)
"""What this module measures."""
