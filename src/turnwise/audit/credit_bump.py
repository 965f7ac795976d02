"""One logged reward is raised, the actual advantage code runs again, and what the advantages of the episode gain is read.

Code that divides by a deviation of the batch, or takes off its mean, moves every advantage with every reward. What that
does is seen in episodes of *other* tasks, which the reward cannot concern: after = scale · before + shift, the same numbers for
all. So that there are always some, the code is asked about every episode twice, the second time as one of another task. Where
scale and shift explain those exactly, they are taken off in the episode that was paid as well, and what is left is the reward's own
doing. They are left on where that episode's later turns did not move with the others: then the code leaves the paid episode out
of what it takes off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from turnwise.audit.errors import AuditError
from turnwise.audit.evidence import Advantages, Evidence, Level
from turnwise.audit.measure import NotMeasurable
from turnwise.audit.rerun import NoCreditError
from turnwise.episode import Episode

Floats = NDArray[np.float64]
"""float64, one entry per turn or token, as the function says."""

BUMP = "bump"
"""Source under which the raise is booked in `Turn.rewards`."""

_UPDATES = 4
"""Updates of a run that are looked at, evenly spaced."""

_EXACT = 1e-6
"""Largest distance, relative to the largest advantage, at which a scale and a shift explain all."""

_ELSEWHERE = "of another task"
"""Added to the group of an episode that is asked about again."""

_STILL = (1.0, 0.0)
"""The scale and the shift of what did not move."""


@dataclass(frozen=True)
class Response:
    """What the advantages of an episode gained when one of its rewards was raised, per unit of reward.

    Attributes:
        turn: Whose reward was raised.
        lengths: (n_turns,) action tokens of each turn.
        tokens: (n_action_tokens,) gain of each action token's advantage.
    """

    turn: int
    lengths: NDArray[np.int64]
    tokens: Floats

    @property
    def turns(self) -> Floats:
        """(n_turns,) gain of each turn, the mean over its tokens."""
        return by_turn(self.tokens, self.lengths)

    @property
    def moved(self) -> bool:
        """The raise moved something."""
        return bool(self.tokens.any())

    @property
    def at_end(self) -> bool:
        """It was the reward of the last turn."""
        return self.turn == len(self.lengths) - 1


@dataclass(frozen=True)
class Responses:
    """What came of all raises.

    Attributes:
        moved: Those that moved something.
        how: What was done, in words.
    """

    moved: tuple[Response, ...]
    how: str


@dataclass(frozen=True)
class _Raise:
    episode: Episode
    turn: int
    delta: float
    before: Floats
    after: Floats
    common: tuple[float, float] | None
    rounding: float

    @property
    def later(self) -> Floats:
        """How far the turns after the paid one moved."""
        after = turn_of(self.before, self.episode) > self.turn
        return np.abs(self.after - self.before)[after]

    def response(self, *, shared: bool) -> Response:
        """The gain, without what is common to the batch where the episode has its part of it."""
        scale, shift = self.common if shared and self.common is not None else (1.0, 0.0)
        gain = self.after - scale * self.before - shift
        gain[np.abs(gain) <= self.rounding] = 0.0
        lengths = self.episode.act_lengths
        tokens = gain if len(gain) == lengths.sum() else np.repeat(gain, lengths)
        return Response(self.turn, lengths, tokens / self.delta)


def responses(name: str, evidence: Evidence, *, least: int = 1) -> Responses | NotMeasurable:
    """Raise the last reward of some episodes, and the one half-way, by one standard deviation each.

    Args:
        name: For whom.
        evidence: Has the code and episodes; `Evidence.plays` is how often the code may run.
        least: Fewest turns of an episode that is asked about.

    Raises:
        AuditError: code that answers with other shapes than those of `turnwise.audit.Advantages`, or differently when
            asked again.
    """
    if evidence.advantages is None:
        return NotMeasurable(name, Level.L1, "the code that turned rewards into advantages is not known")
    updates = [iteration.trained for iteration in evidence.iterations if iteration.trained]
    if not updates:
        return NotMeasurable(name, Level.L1, "there are no episodes that trained")
    spaced = np.unique(np.linspace(0, len(updates) - 1, _UPDATES).round().astype(int))
    share = max(1, evidence.plays // (2 * len(spaced)))
    raises: list[_Raise] = []
    refusal = ""
    for place in spaced:
        rng = np.random.default_rng([evidence.seed, int(place)])
        try:
            raises += _raises(evidence.advantages, updates[place], share, least, rng)
        except NoCreditError as error:
            refusal = str(error)
    if refusal and not raises:
        return NotMeasurable(name, Level.L1, refusal)
    if not raises:
        turns = f"{least} turns or more" if least > 1 else "a turn"
        return NotMeasurable(
            name, Level.L1, f"no episode with {turns} had an advantage and a reward known at every turn"
        )
    return _read(name, raises, len(spaced))


def advantages_by(code: Advantages, episodes: Sequence[Episode]) -> list[Floats]:
    """What the code says of the episodes, (n_turns,) or (n_action_tokens,) each.

    Raises:
        AuditError: other shapes.
    """
    found = [np.asarray(one, dtype=np.float64) for one in code(episodes)]
    if len(found) != len(episodes):
        raise AuditError(
            f"the advantage code answered for {len(found)} of {len(episodes)} episodes; it owes one array each"
        )
    for i, (one, episode) in enumerate(zip(found, episodes, strict=True)):
        if one.shape not in ((len(episode.turns),), (episode.n_action_tokens,)):
            raise AuditError(
                f"the advantage code gave shape {one.shape} to episode {i}, which has {len(episode.turns)} turns and "
                f"{episode.n_action_tokens} action tokens; one number for each turn, or for each token"
            )
    return found


def by_turn(values: Floats, lengths: NDArray[np.int64]) -> Floats:
    """(n_turns,): values of turns as they are, those of tokens as the mean over the turn's.

    Args:
        values: (n_turns,) or (n_action_tokens,).
        lengths: (n_turns,) action tokens of each turn.
    """
    if len(values) == len(lengths):
        return values
    return np.add.reduceat(values, np.cumsum(lengths) - lengths) / lengths


def turn_of(values: Floats, episode: Episode) -> NDArray[np.int64]:
    """The turn that each entry of an episode's advantages belongs to."""
    turns = np.arange(len(episode.turns))
    return turns if len(values) == len(turns) else np.repeat(turns, episode.act_lengths)


def raised(episode: Episode, turn: int, delta: float) -> Episode:
    """The episode with the reward of one turn raised by `delta`."""
    old = episode.turns[turn]
    new = replace(old, reward=old.reward + delta, rewards={**old.rewards, BUMP: delta})
    return replace(episode, turns=(*episode.turns[:turn], new, *episode.turns[turn + 1 :]))


def _raises(
    code: Advantages, episodes: list[Episode], share: int, least: int, rng: np.random.Generator
) -> list[_Raise]:
    """The raises of one update."""
    asked = [*episodes, *(replace(episode, group=f"{episode.group} {_ELSEWHERE}") for episode in episodes)]
    before = advantages_by(code, asked)
    if not all(np.array_equal(a, b, equal_nan=True) for a, b in zip(before, advantages_by(code, asked), strict=True)):
        raise AuditError("the advantage code answers differently when asked again; seed what is random in it")
    rewards = np.concatenate([episode.rewards for episode in episodes])
    spread = float(np.nanstd(rewards)) if np.isfinite(rewards).any() else 0.0
    delta = spread if spread > 1e-9 * float(np.nanmax(np.abs(rewards), initial=0.0)) else 1.0
    able = [
        i
        for i, (episode, values) in enumerate(zip(episodes, before[: len(episodes)], strict=True))
        if len(episode.turns) >= least and np.isfinite(episode.rewards).all() and np.isfinite(values).all()
    ]
    # Those whose advantage is not 0 come first: a record may hold one rollout of a group, which is compared with none.
    order = rng.permutation(able).tolist()
    order = [i for i in order if before[i].any()] + [i for i in order if not before[i].any()]
    found: list[_Raise] = []
    for i in sorted(order[:share]):
        last = len(episodes[i].turns) - 1
        for turn in sorted({last // 2, last}):
            changed = [*asked[:i], raised(asked[i], turn, delta), *asked[i + 1 :]]
            after = advantages_by(code, changed)
            if np.isfinite(after[i]).all() and len(after[i]) == len(before[i]):
                common = _common(asked, before, after, i)
                rounding = _rounding([*before, after[i]])
                found.append(_Raise(episodes[i], turn, delta, before[i], after[i], common, rounding))
    return found


def _rounding(advantages: list[Floats]) -> float:
    """Differences no larger than this are no gain. Streams of a batch are float32."""
    largest = max(float(np.nanmax(np.abs(one), initial=0.0)) for one in advantages)
    single = all(np.array_equal(one, one.astype(np.float32), equal_nan=True) for one in advantages)
    return (1.5 * 2.0**-23 if single else 1e-12) * largest


def _common(
    episodes: list[Episode], before: list[Floats], after: list[Floats], paid: int
) -> tuple[float, float] | None:
    """The scale and the shift of what the raise cannot concern; None where they do not explain it."""
    x, y = [np.zeros(0)], [np.zeros(0)]
    for episode, was, now in zip(episodes, before, after, strict=True):
        if episode.group != episodes[paid].group and len(was) == len(now):
            x.append(was)
            y.append(now)
    told, then = np.concatenate(x), np.concatenate(y)
    known = np.isfinite(told) & np.isfinite(then)
    if known.any() and (told[known] == then[known]).all():
        return _STILL
    # Zero both times is what code says of a turn that nobody could score.
    known &= (told != 0) | (then != 0)
    return scale_and_shift(told[known], then[known], before[paid])


def scale_and_shift(before: Floats, after: Floats, of: Floats) -> tuple[float, float] | None:
    """Scale and shift that make the numbers before into those after; None where no such two do, or nothing tells.

    Args:
        before: (n,).
        after: (n,).
        of: (m,) the numbers that they are wanted for. A line is told by three numbers or more; fewer tell what becomes
            of themselves and of no others.
    """
    if not len(before):
        return None
    tolerance = _EXACT * max(float(np.abs(before).max()), float(np.abs(after).max()))
    if (np.abs(after - before) <= 1e-3 * tolerance).all():
        return _STILL
    distinct = np.unique(before)
    if len(distinct) < 3 and not np.isin(of, distinct).all():
        return None
    centre = before.mean()
    spread = float(((before - centre) ** 2).sum())
    scale = float(((before - centre) * (after - after.mean())).sum()) / spread if len(distinct) > 1 else 1.0
    shift = float(after.mean() - scale * centre)
    return (scale, shift) if (np.abs(scale * before + shift - after) <= tolerance).all() else None


def _read(name: str, raises: list[_Raise], updates: int) -> Responses | NotMeasurable:
    moving = [one for one in raises if one.common != _STILL]
    later = [one for one in moving if len(one.later)]
    shared = not later or any(float(one.later.max()) > one.rounding for one in later)
    found = [one.response(shared=shared) for one in raises]
    moved = tuple(one for one in found if one.moved)
    if not moved:
        return NotMeasurable(name, Level.L1, f"none of {len(raises)} raised rewards moved an advantage of its episode")
    how = f"{len(raises)} rewards raised by one standard deviation in {updates} update{'s' * (updates > 1)}"
    if len(moved) < len(raises):
        how += f", {len(raises) - len(moved)} of them moved nothing"
    taken = sum(one.common is not None for one in moving)
    if moving and shared and taken:
        how += f"; scale and shift of the batch taken off in {taken}"
    if moving and shared and taken < len(moving):
        how += f"; what else moves the batch could not be told apart in {len(moving) - taken}"
    return Responses(moved, how)
