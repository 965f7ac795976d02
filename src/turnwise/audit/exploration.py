"""Exploration: how much of the world the policy gets to see, and what it can do that the base never did."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from itertools import product
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from turnwise.audit.controls import Control, Trial
from turnwise.audit.evidence import Evidence, Level
from turnwise.audit.measure import Measurement, NotMeasurable, Series, share_interval
from turnwise.audit.player import Player, speaker
from turnwise.audit.players import held_out_seeds, table_player
from turnwise.audit.quantity import Quantity, Section
from turnwise.audit.witness import Choices, sample, witness
from turnwise.envs.exact import Array, Tabular, uniform_policy
from turnwise.envs.table_env import TableEnv
from turnwise.episode import Transcript

_COVER = "explore/states"
_BEYOND = "explore/beyond_base"

_Z = NormalDist().inv_cdf(0.975)
"""The 97.5 % quantile of the normal distribution."""

SAMPLES = 32
"""Episodes of the base for each task."""


def reachable(tabular: Tabular) -> NDArray[np.bool_]:
    """(S,) whether an action can be due in a state within the horizon, under any actions at all.

    States in which the episode has ended do not count, nor do those that are first entered when the time is up.
    """
    now = tabular.initial > 0
    seen = now.copy()
    edges = (tabular.probability > 0) & ~tabular.ended
    for _ in range(tabular.horizon - 1):
        after = np.zeros_like(now)
        after[tabular.successor[now][edges[now]]] = True
        if not (after & ~seen).any():
            break
        now = after & ~seen
        seen |= after
    return seen


def cover(visits: NDArray[np.bool_], m: int) -> float:
    """Number of different states that m of the episodes are expected to see.

    ``sum_s 1 - C(N - n_s, m) / C(N, m)`` for the N episodes of which n_s saw state s: every choice of m of them counts alike
    (Hurlbert 1971; sample-based rarefaction). Unbiased for m new episodes of the same policy, m <= N.

    Args:
        visits: (N, S) which episode saw which state.
        m: Number of episodes, 1 .. N.
    """
    n = len(visits)
    counts, times = np.unique(visits.sum(0), return_counts=True)
    missed = [math.comb(n - int(count), m) / math.comb(n, m) for count in counts]
    return float(times @ (1.0 - np.array(missed)))


def states_seen(evidence: Evidence) -> Measurement | NotMeasurable:
    """Different states the policy acted in / states it could have acted in, over `Evidence.plays` episodes. Needs L4.

    The denominator is exact (`reachable`). The figure belongs to its number of episodes, which see more the more they are:
    the first curve is the expected share for fewer episodes (`cover`), the second is the same for uniform actions. The
    interval, for the expected share, is `seen_interval`.
    """
    choices = witness(_COVER, evidence)
    if isinstance(choices, NotMeasurable):
        return choices
    tabular = evidence.tabular
    assert tabular is not None
    visits = visits_of(choices, tabular)
    n, total = len(visits), int(reachable(tabular).sum())
    seen = int(visits.any(0).sum())
    low, high = seen_interval(visits, total)
    chance = visits_of(sample(tabular, uniform_policy(tabular), n, [evidence.seed, 0xC0]), tabular)
    refused = f"; {choices.refused} replies that are no action left out" if choices.refused else ""
    how = (
        f"{seen:,} of {total:,} reachable states in {n} episodes; uniform actions see {int(chance.any(0).sum()):,}; "
        f"jackknife over episodes{refused}"
    )
    series = (_curve("policy", visits, total), _curve("uniform actions", chance, total))
    return Measurement(_COVER, seen / total, (low / total, high / total), n, how, "share", series)


def seen_interval(visits: NDArray[np.bool_], total: int) -> tuple[float, float]:
    """95 % interval of the expected number of different states that N episodes see.

    The number seen ± 1.96 s with the jackknife over episodes, ``s^2 = (N - 1)/N * sum_i (u_i - mean u)^2 + 1``, u_i being the
    states that episode i alone saw. The first term is at least the variance in expectation (Efron & Stein 1981); where no
    episode was the only one to see anything it is 0, and the 1 stands for the one state that another episode might have
    been the only one to see. Fewer than four episodes say nothing about spread: the interval is then everything.

    Args:
        visits: (N, S) which episode saw which state.
        total: Number of states there are to see.
    """
    n, seen = len(visits), int(visits.any(0).sum())
    if n < 4:
        return -math.inf, math.inf
    alone = (visits & (visits.sum(0) == 1)).sum(1).astype(np.float64)
    half = _Z * math.sqrt((n - 1) / n * float(((alone - alone.mean()) ** 2).sum()) + 1.0)
    return max(seen - half, 0.0), min(seen + half, float(total))


def visits_of(choices: Choices, tabular: Tabular) -> NDArray[np.bool_]:
    """(N, S) whether the player acted in a state, for each episode.

    Args:
        choices: What was played.
        tabular: The world.
    """
    found = np.zeros((len(choices.starts), tabular.n_states), dtype=bool)
    found[choices.episodes, choices.states] = True
    return found


def beyond_base(evidence: Evidence) -> Measurement | NotMeasurable:
    """Share of the tasks that the policy solved of which `SAMPLES` episodes of the base solved none. Needs L4.

    A task is a seed, and solved where the figure ``success`` of its last step is above 0. The policy plays each of
    `Evidence.plays` tasks once; of those that it solved, the first `plays` / 4 are given to the base.

    Never in N samples does not mean never: with 0 of N the base's rate is below 3/N with 95 % confidence (Hanley &
    Lippman-Hand 1983). Nor does it mean that something was learnt: a copy of the base that draws anew solves a task of rate
    p that N samples do not with probability ``p (1 - p)^N``, which is at most ``N^N / (N + 1)^(N + 1)`` of all tasks; what that
    is of the solved ones stands beside the figure.
    """
    player, base, make = evidence.player, evidence.base, evidence.make_env
    if player is None or make is None:
        return NotMeasurable(_BEYOND, Level.L4, "there is no policy and no environment for it to act in")
    if base is None:
        return NotMeasurable(_BEYOND, Level.L4, "there is no base, the policy before it was trained, to compare with")
    tasks = held_out_seeds(evidence.plays, evidence.seed)
    played = player(make, tasks)
    if not any("success" in episode.metrics for episode in played):
        return NotMeasurable(_BEYOND, Level.L4, "the environment has no figure 'success', so nothing says what one is")
    solved = [task for task, episode in zip(tasks, played, strict=True) if _succeeded(episode)]
    asked = solved[: max(evidence.plays // 4, 1)]
    if not asked:
        return NotMeasurable(_BEYOND, Level.L4, f"the policy solved none of {len(tasks)} tasks")
    tried = base(make, [task for task in asked for _ in range(SAMPLES)])
    wins = np.array([_succeeded(episode) for episode in tried]).reshape(len(asked), SAMPLES).sum(1)
    never = int((wins == 0).sum())
    share = never / len(asked)
    by_luck = min(SAMPLES**SAMPLES / (SAMPLES + 1) ** (SAMPLES + 1) * len(tasks) / len(solved), 1.0)
    how = (
        f"of {len(asked)} tasks the policy solved ({len(solved)} of {len(tasks)}), {never} by none of the base's {SAMPLES} samples: "
        f"its rate there is below {3 / SAMPLES:.2g} (95 %); a copy that draws anew could have {by_luck:.2g} at most; Wilson interval"
    )
    return Measurement(_BEYOND, share, share_interval(share, np.ones(len(asked))), len(asked), how, "share")


def states_controls() -> list[Control | Trial]:
    """Known answers of `states_seen`, on a corridor of seven rooms with walls, entered in the middle."""
    wide, short = _corridor(6), _corridor(2)
    once, twice = _enumerated(6)
    walk = _plays(wide, uniform_policy(wide), 400)
    return [
        Control("always left, 3 rooms from the wall: 4 of 7", _plays(wide, _always(wide, 0)), 4 / 7),
        Control("pushes a wall it stands at: 4 of 7, however long", _plays(_corridor(30), _always(wide, 0)), 4 / 7),
        Control("always left with time for 2 actions: 2 of the 3 within reach", _plays(short, _always(short, 0)), 2 / 3),
        Control("uniform actions, many episodes: everything", walk, 1.0),
        Control("uniform actions, one episode: by enumeration", walk, once, 0.02, figure=lambda m: m.series[0].y[0]),
        Control("uniform actions, two episodes: by enumeration", walk, twice, 0.02, figure=lambda m: m.series[0].y[1]),
        Control("nobody plays", Evidence(tabular=wide), None),
        Control("no table", Evidence(player=_plays(wide, _always(wide, 0)).player, make_env=lambda: TableEnv(wide)), None),
        Trial("how often the interval holds the expected share, in 400 draws of 6 episodes", coverage, 0.95, side="at least"),
    ]  # fmt: skip


def beyond_controls() -> list[Control | Trial]:
    """Known answers of `beyond_base`, on locks."""
    from turnwise.envs.locks import ACTIONS, Locks, tabular

    def uniform(depth: int, seed: int) -> Player:
        return table_player(uniform_policy(tabular(depth=depth)), ACTIONS, seed=seed)

    def against(policy: Player, base: Player | None, depth: int = 2) -> Evidence:
        return Evidence(make_env=lambda: Locks(depth=depth), player=policy, base=base)

    expert, coin = _reader(lambda seed: True), speaker(lambda *_: "take coin")
    return [
        Control("a copy of the base, noise and all", against(uniform(2, 0), uniform(2, 0)), 0.0),
        # Each of 32 samples opens a lock of one turn with 1/3; all fail with (2/3)^32 = 2e-6.
        Control("a copy that draws anew, of a base that solves a third", against(uniform(1, 1), uniform(1, 0), 1), 0.0),
        Control("a base that never tries", against(expert, coin), 1.0),
        Control("a base that can do every other task", against(expert, _reader(lambda seed: seed % 2 == 0)), 0.5),
        Control("a policy that solves nothing", against(coin, expert), None),
        Control("no base", against(expert, None), None),
    ]


def coverage(draws: int = 400, episodes: int = 6) -> float:
    """Share of draws of uniform walks in the corridor whose `seen_interval` holds the expected number, known by enumeration.

    Args:
        draws: How often the episodes are drawn anew.
        episodes: Episodes in each draw.
    """
    tabular = _corridor(6)
    total = int(reachable(tabular).sum())
    truth = sum(1.0 - (1.0 - p) ** episodes for p in _chances(6))
    visits = visits_of(sample(tabular, uniform_policy(tabular), draws * episodes, 5), tabular)
    ends = [seen_interval(part, total) for part in visits.reshape(draws, episodes, -1)]
    return sum(low <= truth <= high for low, high in ends) / draws


_ROOMS, _MIDDLE = 7, 3


@cache
def _corridor(horizon: int) -> Tabular:
    here = np.arange(_ROOMS)
    successor = np.stack([np.maximum(here - 1, 0), np.minimum(here + 1, _ROOMS - 1)], axis=1)[..., None]
    nothing = np.zeros((_ROOMS, 2, 1))
    start = np.eye(_ROOMS)[_MIDDLE]
    return Tabular(np.ones((_ROOMS, 2, 1)), successor, nothing, nothing > 0, start, horizon, ("left", "right"))


def _chances(horizon: int) -> list[float]:
    """The probability that a uniform walk acts in each room, by writing down every walk."""
    walks = list(product((-1, 1), repeat=horizon - 1))
    times = [0] * _ROOMS
    for walk in walks:
        room, seen = _MIDDLE, {_MIDDLE}
        for step in walk:
            room = min(max(room + step, 0), _ROOMS - 1)
            seen.add(room)
        for room in seen:
            times[room] += 1
    return [count / len(walks) for count in times]


def _enumerated(horizon: int) -> tuple[float, float]:
    """Expected share of rooms that one walk and that two see; all are within reach of six actions."""
    chances = _chances(horizon)
    return sum(chances) / _ROOMS, sum(1.0 - (1.0 - p) ** 2 for p in chances) / _ROOMS


def _always(tabular: Tabular, action: int) -> Array:
    return np.tile(np.eye(tabular.n_actions)[action], (tabular.n_states, 1))


def _plays(tabular: Tabular, policy: Array, plays: int = 8) -> Evidence:
    player = table_player(policy, tabular.actions)
    return Evidence(tabular=tabular, make_env=lambda: TableEnv(tabular), player=player, plays=plays)


def _reader(able: Callable[[int], bool]) -> Player:
    """Turns a lock as its code says where it is able to, and takes the coin elsewhere."""

    def say(observations: Sequence[str], _: Sequence[str], seed: int) -> str:
        return observations[-1].split("lock ")[1].split()[0] if able(seed) else "take coin"

    return speaker(say)


def _succeeded(episode: Transcript) -> bool:
    return episode.metrics.get("success", 0.0) > 0


def _curve(label: str, visits: NDArray[np.bool_], total: int) -> Series:
    n = len(visits)
    places = sorted({m for m in (1, 2, 3, 5, 8, 12, 16, 24, 32, 48, 64, 96, 128) if m < n} | {n})
    shares = tuple(cover(visits, m) / total for m in places)
    return Series(label, tuple(map(float, places)), shares, x_label="episodes", y_label="share of reachable states")


QUANTITIES = (
    Quantity(
        _COVER,
        "states seen",
        "Of the states that can be reached, in how many did the policy act?",
        Section.WORLD,
        states_seen,
        states_controls,
        Level.L4,
    ),
    Quantity(
        _BEYOND,
        "beyond the base",
        f"Of the tasks the policy solves, how many does the policy it started from never solve in {SAMPLES} samples?",
        Section.GOAL,
        beyond_base,
        beyond_controls,
        Level.L4,
    ),
)
"""What this module measures."""
