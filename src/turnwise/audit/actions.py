"""The action space: what an action is, how many of them are used, and how much of what happens next they decide."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from turnwise.audit.controls import Control, Trial, planted
from turnwise.audit.evidence import Evidence, Iteration, Level
from turnwise.audit.measure import Measurement, NotMeasurable, Series, ratio_interval
from turnwise.audit.players import held_out_seeds, table_player
from turnwise.audit.quantity import Quantity, Section
from turnwise.audit.witness import Choices, sample, witness
from turnwise.envs.exact import Tabular, from_transitions, uniform_policy
from turnwise.envs.table_env import TableEnv
from turnwise.envs.text_env import plain
from turnwise.episode import Episode

_LENGTH = "actions/length"
_ENTROPY = "actions/entropy"
_UNIFORM = "world/actuation_uniform"
_OWN = "world/actuation_own"

VISITS = 5
"""Least number of visits to a state from which its own action probabilities are estimated."""

_UNDERSTOOD_AS_NOTHING = "(no action)"

_RANKS = 50
"""Kinds of actions that are drawn."""


def action_length(evidence: Evidence) -> Measurement | NotMeasurable:
    """Tokens per action: the mean number of tokens that were sampled in a turn. Needs L1.

    One token a turn is an action in the sense of a game, hundreds are an answer. Where a record holds words and no tokens,
    words are counted.
    """
    episodes = evidence.episodes
    if not episodes:
        return NotMeasurable(_LENGTH, Level.L1, "there are no episodes that trained")
    sums = [float(episode.n_action_tokens) for episode in episodes]
    counts = [float(len(episode.turns)) for episode in episodes]
    kinds = len({turn.act.tobytes() for episode in episodes for turn in episode.turns})
    how = f"{int(sum(sums)):,} {evidence.unit} in {int(sum(counts)):,} turns, {kinds:,} different actions; linearised ratio"
    value = sum(sums) / sum(counts)
    return Measurement(_LENGTH, value, ratio_interval(sums, counts), len(episodes), how, f"{evidence.unit} per action")


def action_entropy(evidence: Evidence) -> Measurement | NotMeasurable:
    """Entropy of the policy's actions, in bits: how many kinds of them it uses, evenly counted, is two to its power.

    Over all turns of all episodes, whatever the state. Where somebody plays, an action is its text as worlds read it
    (`turnwise.envs.text_env.plain`), and all that the world's table does not know are one kind; otherwise it is the sampled
    tokens of a recorded turn. ``H = -sum_a p_a log2 p_a`` of the observed shares is too small by about (kinds - 1) / (2 N ln 2);
    the delete-one-episode jackknife takes that off (Zahl 1977, Ecology 58:907). Interval by linearisation over episodes; if
    one kind is all there is, it reaches to the entropy of another one with a share of 3/n (the rule of three). Needs L1, or
    L3 where no episodes are recorded.
    """
    if evidence.player is not None and evidence.make_env is not None:
        known = None if evidence.tabular is None else {plain(text) for text in evidence.tabular.actions}
        played = evidence.player(evidence.make_env, held_out_seeds(evidence.plays, evidence.seed))
        episodes: list[list[Hashable]] = [[_parsed(text, known) for text in episode.actions] for episode in played]
        source = "texts said in episodes that were played"
    else:
        episodes = [[turn.act.tobytes() for turn in episode.turns] for episode in evidence.episodes]
        source = "recorded token sequences, over all updates"
    episodes = [actions for actions in episodes if actions]
    if not episodes:
        return NotMeasurable(_ENTROPY, Level.L1, "there is no action, neither recorded nor played")
    return entropy_of(episodes, source)


def entropy_of(episodes: Sequence[Sequence[Hashable]], source: str) -> Measurement:
    """The entropy of actions by episode; see `action_entropy`.

    Args:
        episodes: Actions of each; none is empty.
        source: What they are, for `how`.
    """
    counts = [Counter(actions) for actions in episodes]
    total = Counter[Hashable]()
    for count in counts:
        total.update(count)
    shares = {action: n / total.total() for action, n in total.items()}
    plugged = _entropy(total)
    n = len(episodes)
    value = plugged
    if n > 1:
        value = n * plugged - (n - 1) * float(np.mean([_entropy(total - count) for count in counts]))
    # The j-th action adds -log2 of its share: these sums make the plug-in, and their spread its spread.
    sums = [float(sum(-k * np.log2(shares[a]) for a, k in count.items())) for count in counts]
    low, high = ratio_interval(sums, [float(count.total()) for count in counts])
    value = max(value, 0.0) + 0.0  # no minus zero
    low, high = max(low + value - plugged, 0.0), high + value - plugged
    if len(total) == 1:
        unseen = min(3.0 / n, 0.5)
        high = float(-unseen * np.log2(unseen) - (1 - unseen) * np.log2(1 - unseen))
    ranked = sorted(shares.values(), reverse=True)[:_RANKS]
    series = Series(
        "share of each action", tuple(map(float, range(1, len(ranked) + 1))), tuple(ranked), x_label="rank", y_label="share"
    )  # fmt: skip
    foreign = f", {shares[_UNDERSTOOD_AS_NOTHING]:.0%} of them no action" if _UNDERSTOOD_AS_NOTHING in shares else ""
    how = f"{len(total):,} kinds among {total.total():,} {source}{foreign}; jackknife over {n} episodes, linearised interval"
    return Measurement(_ENTROPY, value, (min(low, value), max(high, value)), n, how, "bits", (series,))


def actuation_uniform(evidence: Evidence) -> Measurement | NotMeasurable:
    """Bits that an action decides of what happens next, under uniform actions: I(A; S'|S), exact in each state.

    ``I = H(S'|s) - H(S'|s, A)`` with A uniform, from the table; S' is the next state and whether the episode ended; mean over
    the states that the policy went through. log2 A where every action leads elsewhere for certain, 0 where none matters: a
    bound on what a policy can do there, whatever it does do. Needs L4.
    """
    choices = witness(_UNIFORM, evidence)
    if isinstance(choices, NotMeasurable):
        return choices
    assert evidence.tabular is not None
    return actuation_of(evidence.tabular, choices)


def actuation_of(tabular: Tabular, choices: Choices) -> Measurement:
    """See `actuation_uniform`, in the states of choices that were noted or drawn.

    Args:
        tabular: The world they were made in.
        choices: The choices.
    """
    visited, which = np.unique(choices.states, return_inverse=True)
    uniform = np.full(tabular.n_actions, 1.0 / tabular.n_actions)
    bits = np.array([uniform @ _surprises(tabular, state, uniform) for state in visited])[which.reshape(-1)]
    how = f"exact in each of {len(visited):,} states, {len(choices):,} visits; {tabular.n_actions} actions; linearised ratio"
    return _by_episode(_UNIFORM, tabular, choices, bits, np.ones(len(bits), bool), 0.0, how)


def actuation_own(evidence: Evidence) -> Measurement | NotMeasurable:
    """Bits that the policy's own choice decides of what happens next: I(A; S'|S) with A as the policy chooses in S.

    What the next state tells is exact, from the table; the policy's probabilities in a state are the shares of its actions
    there, over all its visits, at least 5 of them. Plugged in they make the figure too small; the delete-one-visit jackknife
    takes that off in each state. Mean over visits; interval by linearisation over episodes. 0 for a policy that always does
    the same in a state, however much it could do: print it beside the same under uniform actions. Needs L4.
    """
    choices = witness(_OWN, evidence)
    if isinstance(choices, NotMeasurable):
        return choices
    assert evidence.tabular is not None
    return own_actuation_of(evidence.tabular, choices)


def own_actuation_of(tabular: Tabular, choices: Choices) -> Measurement | NotMeasurable:
    """See `actuation_own`, of choices that were noted or drawn.

    Args:
        tabular: The world they were made in.
        choices: The choices.
    """
    visited, which = np.unique(choices.states, return_inverse=True)
    which = which.reshape(-1)
    counts = np.zeros((len(visited), tabular.n_actions))
    np.add.at(counts, (which, choices.actions), 1.0)
    often = counts.sum(-1) >= VISITS
    used = often[which]
    if not used.any():
        return NotMeasurable(
            _OWN, Level.L4, f"no state was visited {VISITS} times in {len(choices):,} turns, so the policy's choices in it are "
            "not known; let it play more episodes"
        )  # fmt: skip
    surprises, missing = np.zeros_like(counts), np.zeros(len(visited))
    for i in np.flatnonzero(often):
        total, state = counts[i].sum(), int(visited[i])
        plugged = counts[i] / total
        surprises[i] = _surprises(tabular, state, plugged)
        without = 0.0
        for action in np.flatnonzero(counts[i]):
            left = counts[i].copy()
            left[action] -= 1.0
            rest = left / (total - 1)
            without += plugged[action] * float(rest @ _surprises(tabular, state, rest))
        missing[i] = (total - 1) * (float(plugged @ surprises[i]) - without)
    correction = float(missing[which[used]].mean())
    how = (
        f"{int(used.sum()):,} of {len(choices):,} visits, in the {int(often.sum()):,} states with {VISITS} visits or more; jackknife "
        f"adds {correction:.3f}; linearised ratio"
    )
    return _by_episode(_OWN, tabular, choices, surprises[which, choices.actions], used, correction, how)


def _parsed(text: str, known: set[str] | None) -> str:
    read = plain(text)
    return read if known is None or read in known else _UNDERSTOOD_AS_NOTHING


def _entropy(counts: Counter[Hashable]) -> float:
    p = np.array(list(counts.values()), dtype=np.float64)
    p /= p.sum()
    return float(-(p * np.log2(p)).sum())


def _surprises(tabular: Tabular, state: int, policy: NDArray[np.float64]) -> NDArray[np.float64]:
    """(A,): the divergence of what follows each action from what follows the policy, bits; its mean is I(A; S'|s)."""
    after = tabular.successor[state] * 2 + tabular.ended[state]
    which = np.unique(after, return_inverse=True)[1].reshape(after.shape)
    channel = np.zeros((tabular.n_actions, int(which.max()) + 1))
    np.add.at(channel, (np.arange(tabular.n_actions)[:, None], which), tabular.probability[state])
    overall = policy @ channel
    ratio = np.where(channel > 0, channel / np.maximum(overall, 1e-300), 1.0)
    return np.where(policy > 0, (channel * np.log2(ratio)).sum(-1), 0.0)


def _by_episode(
    name: str,
    tabular: Tabular,
    choices: Choices,
    bits: NDArray[np.float64],
    used: NDArray[np.bool_],
    correction: float,
    how: str,
) -> Measurement:
    """Mean of `bits` over the visits that are `used`, plus `correction`; at most what A actions can decide."""
    sums = np.bincount(choices.episodes[used], weights=bits[used])
    counts = np.bincount(choices.episodes[used]).astype(np.float64)
    sums, counts = sums[counts > 0], counts[counts > 0]
    most = float(np.log2(tabular.n_actions))
    value = min(max(float(sums.sum() / counts.sum()) + correction, 0.0), most)
    low, high = (end + correction for end in ratio_interval(list(sums), list(counts)))
    ends = min(max(low, 0.0), value), max(min(high, most), value)
    return Measurement(name, value, ends, len(counts), how, "bits")


def grid(rows: int = 4, columns: int = 4, *, edges: bool = False, slip: float = 0.0, horizon: int = 12) -> Tabular:
    """A grid with four moves, begun in a corner, in which nothing is paid and nothing ends.

    Args:
        rows: At least 3, so that the ways up and down lead to different cells.
        columns: Likewise.
        edges: Walls around it; without them it is a torus.
        slip: Probability of a step to the left, and of one to the right, of where one wanted to go.
        horizon: Number of turns.
    """
    steps = ((-1, 0), (0, 1), (1, 0), (0, -1))

    def to(r: int, c: int, way: int) -> int:
        dr, dc = steps[way % 4]
        if edges:
            return min(max(r + dr, 0), rows - 1) * columns + min(max(c + dc, 0), columns - 1)
        return (r + dr) % rows * columns + (c + dc) % columns

    transitions = [
        [
            [(p, to(r, c, way + turn), 0.0, False) for p, turn in ((1 - 2 * slip, 0), (slip, 1), (slip, 3))]
            for way in range(4)
        ]
        for r in range(rows)
        for c in range(columns)
    ]
    return from_transitions(
        transitions, np.eye(rows * columns)[0], horizon, ("go north", "go east", "go south", "go west")
    )


@cache
def _torus() -> Tabular:
    return grid()


def _nothing() -> Tabular:
    """Four actions of which none does anything."""
    world = _torus()
    here = np.broadcast_to(np.arange(world.n_states)[:, None, None], world.successor.shape)
    return replace(world, successor=here.copy())


def _plays(world: Tabular, policy: NDArray[np.float64] | None = None, plays: int = 64) -> Evidence:
    player = table_player(uniform_policy(world) if policy is None else policy, world.actions)
    return Evidence(tabular=world, make_env=lambda: TableEnv(world), player=player, plays=plays)


def _shares(*p: float) -> Evidence:
    """Acts with these probabilities everywhere."""
    return _plays(_torus(), np.tile(p, (_torus().n_states, 1)))


def length_controls() -> list[Control | Trial]:
    """Known answers of `action_length`."""
    short, long = planted([0.0, 1.0], tokens=2), planted([0.0, 1.0], tokens=5, seed=1)
    return [
        Control("two tokens every turn", _recorded(short, short), 2.0),
        Control("two tokens in half of the turns, five in the others", _recorded(short, long), 3.5),
        Control("turns count, not episodes: (4 + 2) / 3", _recorded(short, planted([1.0], tokens=2)), 2.0),
        Control("no episodes", Evidence(), None),
    ]


def entropy_controls() -> list[Control | Trial]:
    """Known answers of `action_entropy`."""
    one, two = planted([0.0, 1.0], tokens=1), planted([0.0, 1.0], tokens=2)
    return [
        Control("four actions alike: 2 bits", _shares(0.25, 0.25, 0.25, 0.25), 2.0, 0.02),
        Control("shares 1/2, 1/4, 1/8, 1/8: 1.75 bits", _shares(0.5, 0.25, 0.125, 0.125), 1.75, 0.1),
        Control("always the same", _shares(0.0, 1.0, 0.0, 0.0), 0.0),
        Control("recorded: two kinds, half of the episodes each", _recorded(*[one, two] * 60), 1.0, 0.02),
        Control("recorded: always the same", _recorded(one, one), 0.0),
        Control("neither recorded nor played", Evidence(), None),
        Trial("how often the interval holds 1.75 bits, in 200 draws", _entropy_coverage, 0.9, side="at least", slow=True),
    ]  # fmt: skip


def uniform_controls() -> list[Control | Trial]:
    """Known answers of `actuation_uniform`."""
    slippery = 2 - _bits_of(0.8, 0.1, 0.1)
    return [
        Control("a 4-way torus: 2 bits everywhere", _plays(_torus()), 2.0),
        Control("a 4-way torus, by somebody who always goes east: still 2 bits", _shares(0.0, 1.0, 0.0, 0.0), 2.0),
        Control("a corner: two of four moves stay, 1.5 bits", _plays(grid(edges=True, horizon=1)), 1.5),
        Control("a torus with slips: 2 - H(0.8, 0.1, 0.1) bits", _plays(grid(5, 5, slip=0.1)), slippery),
        Control("no action does anything", _plays(_nothing()), 0.0),
        Control("nobody plays", Evidence(tabular=_torus()), None),
    ]


def own_controls() -> list[Control | Trial]:
    """Known answers of `actuation_own`."""
    return [
        Control("a 4-way torus, uniform actions: 2 bits", _shares(0.25, 0.25, 0.25, 0.25), 2.0, 0.05),
        Control("a 4-way torus, two actions alike: 1 bit", _shares(0.5, 0.0, 0.5, 0.0), 1.0, 0.05),
        Control("a 4-way torus, always east", _shares(0.0, 1.0, 0.0, 0.0), 0.0),
        Control("no action does anything", _plays(_nothing()), 0.0),
        Control("too few visits", _plays(grid(horizon=1), plays=VISITS - 1), None),
        Control("nobody plays", Evidence(tabular=_torus()), None),
        Trial("how often the interval holds 2 - H(0.8, 0.1, 0.1) bits, in 200 draws", _own_coverage, 0.9, side="at least", slow=True),
    ]  # fmt: skip


def _recorded(*episodes: Episode) -> Evidence:
    return Evidence(iterations=(Iteration(episodes),))


def _bits_of(*p: float) -> float:
    return float(-sum(x * np.log2(x) for x in p))


def _entropy_coverage() -> float:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        drawn = rng.choice(4, p=[0.5, 0.25, 0.125, 0.125], size=(40, 12))
        low, high = entropy_of([[int(a) for a in row] for row in drawn], "draws").interval
        hits += low <= 1.75 <= high
    return hits / 200


def _own_coverage() -> float:
    world, policy = grid(5, 5, slip=0.1), np.tile([0.7, 0.1, 0.1, 0.1], (25, 1))
    # By the symmetry of the torus every state has the same figure, and p(S') follows from the shares by hand.
    overall = [
        0.8 * a + 0.1 * (b + c) for a, b, c in ((0.7, 0.1, 0.1), (0.1, 0.7, 0.1), (0.1, 0.1, 0.1), (0.1, 0.1, 0.7))
    ]
    truth = _bits_of(*overall) - _bits_of(0.8, 0.1, 0.1)
    hits = 0
    for draw in range(200):
        found = own_actuation_of(world, sample(world, policy, 60, [3, draw]))
        hits += isinstance(found, Measurement) and found.interval[0] <= truth <= found.interval[1]
    return hits / 200


def _quantity(
    name: str, title: str, question: str, measure: Callable[[Evidence], Measurement | NotMeasurable],
    controls: Callable[[], list[Control | Trial]], level: Level,
) -> Quantity:  # fmt: skip
    return Quantity(name, title, question, Section.WORLD, measure, controls, level)


QUANTITIES = (
    _quantity(
        _LENGTH, "action length", "How many tokens is one action?", action_length, length_controls, Level.L1
    ),
    _quantity(
        _ENTROPY, "action entropy", "How evenly are how many kinds of action used, in bits, whatever the state?",
        action_entropy, entropy_controls, Level.L1,
    ),
    _quantity(
        _UNIFORM, "actuation, uniform", "How many bits of what happens next would a uniform action decide? I(A; S'|S)",
        actuation_uniform, uniform_controls, Level.L4,
    ),
    _quantity(
        _OWN, "actuation, own", "How many bits of what happens next do the policy's own choices decide? I(A; S'|S)",
        actuation_own, own_controls, Level.L4,
    ),
)  # fmt: skip
"""What this module measures."""
