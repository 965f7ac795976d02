"""Packed training data: many sequences on one token axis, without padding.

Everything about token t is stored at t. The logit that predicts token t lives at position t-1 of the
network's output; that shift is made in `turnwise.models.policy` and nowhere else.

A *sequence* is a stretch of context the model sees at once. An episode is one sequence unless a turn is
`fresh` (compaction, memory-less policy): then a new sequence starts there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from turnwise.episode import Episode
from turnwise.tree import PrefixTree

Streams = Mapping[str, Sequence[NDArray[Any]]]
"""Per-token data by name: for each episode one array over its action tokens, all turns in a row."""

_SENTINEL: NDArray[np.int32] = np.zeros(1, np.int32)


@dataclass(frozen=True)
class Batch:
    """S sequences packed on one token axis of length T.

    Attributes:
        tokens: (T,) int64.
        cu_seqlens: (S + 1,) int64, cumulative sequence lengths, starting at 0 and ending at T.
        action: (T,) bool, the token was sampled by the policy: A of them.
        turn: (T,) int64, index of the turn within its episode.
        final: (T,) bool, a sentinel that stands for "the token after `last_obs`": F of them. Its value is the
            bootstrap value of a truncated episode; it is never an action and no other token sees it.
        token: name -> (T,) float32; zero outside action tokens.
        seq: name -> (S,) tensor; always holds ``episode``, the index of the sequence's episode. Where sequences must stay
            together, ``unit`` numbers what they form (a preference pair) and ``side`` says which part of it each is.
    """

    tokens: Tensor
    cu_seqlens: Tensor
    action: Tensor
    turn: Tensor
    final: Tensor
    token: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    seq: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])

    def __len__(self) -> int:
        """Number of sequences S."""
        return len(self.cu_seqlens) - 1

    @property
    def lengths(self) -> Tensor:
        """(S,) int64, tokens per sequence."""
        return self.cu_seqlens.diff()

    @property
    def positions(self) -> Tensor:
        """(T,) int64, position of each token within its sequence."""
        starts = torch.repeat_interleave(self.cu_seqlens[:-1], self.lengths)
        return torch.arange(len(self.tokens), device=self.tokens.device) - starts

    @property
    def sequence(self) -> Tensor:
        """(T,) int64, index of the sequence each token belongs to."""
        return torch.repeat_interleave(torch.arange(len(self), device=self.tokens.device), self.lengths)

    @property
    def turn_start(self) -> Tensor:
        """(T,) bool, the first action token of each turn."""
        before = torch.cat([self.action.new_zeros(1), self.action[:-1]])
        first = self.positions == 0
        changed = torch.cat([self.action.new_ones(1), self.turn[1:] != self.turn[:-1]])
        return self.action & (~before | first | changed)

    def stream(self, name: str) -> Tensor:
        """(A,) float32, the stream `name` at the action tokens.

        Raises:
            KeyError: no such stream, with the list of those there are.
        """
        if name not in self.token:
            raise KeyError(f"the batch has no stream {name!r}; it has {sorted(self.token)}")
        return self.token[name][self.action]

    def with_stream(self, name: str, values: Tensor) -> Batch:
        """A copy with the (A,) `values` stored as stream `name`."""
        full = torch.zeros(self.tokens.shape, dtype=torch.float32, device=self.tokens.device)
        full[self.action] = values.to(torch.float32)
        return replace(self, token={**self.token, name: full})

    def weighted(self, weight: Callable[[Batch], Tensor]) -> Batch:
        """A copy whose stream ``weight`` is `weight(self)`, (A,).

        Call it on everything that enters one optimizer step, before any micro-batching: losses are then sums, and
        the gradient does not depend on the split.
        """
        return self.with_stream("weight", weight(self))

    def token_index(self, sequences: Tensor | Sequence[int]) -> Tensor:
        """Positions on the token axis of all tokens of the named sequences, in the given order."""
        chosen = torch.as_tensor(sequences, dtype=torch.int64, device=self.tokens.device)
        lengths = self.lengths[chosen]
        ends = lengths.cumsum(0)
        offset = torch.repeat_interleave(self.cu_seqlens[:-1][chosen] - (ends - lengths), lengths)
        return torch.arange(len(offset), device=self.tokens.device) + offset

    def select(self, sequences: Tensor | Sequence[int]) -> Batch:
        """The named sequences, in the given order."""
        chosen = torch.as_tensor(sequences, dtype=torch.int64, device=self.tokens.device)
        index = self.token_index(chosen)
        lengths = self.lengths[chosen]
        return Batch(
            tokens=self.tokens[index],
            cu_seqlens=torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]),
            action=self.action[index],
            turn=self.turn[index],
            final=self.final[index],
            token={name: values[index] for name, values in self.token.items()},
            seq={name: values[chosen] for name, values in self.seq.items()},
        )

    def minibatches(self, turns: int, rng: np.random.Generator) -> Iterator[Batch]:
        """The sequences in random order, in parts of about `turns` turns each, as even as whole sequences allow.

        Counting turns rather than sequences means the same amount of experience per step whether an episode is one
        long sequence or a sequence per turn. Sequences that share a value of ``seq["unit"]`` stay together.
        """
        starts = self.turn_start
        per_sequence = torch.zeros(len(self), dtype=torch.int64).index_add(
            0, self.sequence[starts], starts[starts].long()
        )
        turns_of: NDArray[np.int64] = per_sequence.numpy()
        blocks = self._units() if "unit" in self.seq else None
        sizes = turns_of if blocks is None else np.array([turns_of[block].sum() for block in blocks], np.int64)
        order = rng.permutation(len(sizes))
        passed = np.zeros(len(sizes) + 1, np.int64)
        passed[1:] = np.cumsum(sizes[order])
        total = int(passed[-1])
        n = max(1, min(len(sizes), round(total / turns)))
        ends: NDArray[np.float64] = total * np.arange(1, n) / n
        above = cast("NDArray[np.int64]", np.searchsorted(passed, ends))
        nearer_below: NDArray[np.bool_] = ends - passed[above - 1] < passed[above] - ends
        for part in np.split(order, above - nearer_below):
            if len(part):
                yield self.select(_tensor(part) if blocks is None else [i for unit in part for i in blocks[int(unit)]])

    def _units(self) -> list[list[int]]:
        """Sequence indices of each unit, in the order in which units first appear."""
        unit = _integers(self.seq["unit"]) if "unit" in self.seq else range(len(self))
        members: dict[int, list[int]] = {}
        for index, key in enumerate(unit):
            members.setdefault(key, []).append(index)
        return list(members.values())

    def micro_batches(self, max_tokens: int, *, share: bool = True) -> Iterator[list[int]]:
        """Sequence indices of each micro-batch, up to `max_tokens` tokens; a unit that is larger comes alone.

        Sequences that share a value of ``seq["unit"]`` (for example the two sides of a preference pair) stay together.

        Args:
            max_tokens: Budget.
            share: Tokens of a common beginning count once, and sequences that begin alike come together: a model that reads
                prefixes once has the least to do. Without, sequences come sorted by length, for one that pads.
        """
        lengths = _integers(self.lengths)
        distinct = sum(lengths)
        if not share:
            blocks = sorted(self._units(), key=lambda block: max(lengths[i] for i in block))
            paths = np.split(np.arange(sum(lengths)), np.cumsum(lengths, dtype=np.int64)[:-1])
        else:
            tree = PrefixTree.of(self.tokens.cpu().numpy(), lengths)  # pyright: ignore[reportUnknownMemberType]
            distinct, rank = len(tree), np.argsort(tree.order)
            blocks = sorted(self._units(), key=lambda block: min(rank[i] for i in block))
            paths = np.split(tree.node, np.cumsum(lengths, dtype=np.int64)[:-1])
        if blocks and distinct <= max_tokens:
            yield [i for block in blocks for i in block]
            return
        nodes = [  # one path has each of its nodes once
            paths[block[0]] if len(block) == 1 else np.unique(np.concatenate([paths[i] for i in block]))
            for block in blocks
        ]
        for first, last in _parts(nodes, max_tokens):
            yield [i for block in blocks[first:last] for i in block]

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        return Batch(
            tokens=self.tokens.to(device),
            cu_seqlens=self.cu_seqlens.to(device),
            action=self.action.to(device),
            turn=self.turn.to(device),
            final=self.final.to(device),
            token={name: values.to(device) for name, values in self.token.items()},
            seq={name: values.to(device) for name, values in self.seq.items()},
        )


@dataclass(frozen=True)
class Outputs:
    """What a model says about a batch.

    Attributes:
        logp: (A,) float32, log-probability of each action token under the sampling distribution.
        entropy: (A,) float32, entropy in nats of the distribution each action token was drawn from.
        value: (A,) float32, value of the context before each action token; None without a value head.
        final_value: (F,) float32, value at each sentinel; None without a value head.
        score: (A,) or (A, L) float32, what a model that scores says about the context up to and *including* each action
            token; None for a policy. Such a model has no distribution of its own: its `logp` and `entropy` are 0.
    """

    logp: Tensor
    entropy: Tensor
    value: Tensor | None = None
    final_value: Tensor | None = None
    score: Tensor | None = None


def with_units(batch: Batch, units: Sequence[int], sides: Sequence[int] | None = None) -> Batch:
    """A copy that says which episodes form a unit, so that no minibatch and no micro-batch takes them apart.

    Args:
        batch: A packed batch.
        units: For each packed episode, the number of its unit: ``seq["unit"]`` of all its sequences.
        sides: For each packed episode, its part in the unit (+1 the chosen, −1 the rejected one of a pair): ``seq["side"]``.
    """
    owner = batch.seq["episode"]
    added = {"unit": units} if sides is None else {"unit": units, "side": sides}
    fields = {name: torch.tensor(values, dtype=torch.int64)[owner] for name, values in added.items()}
    return replace(batch, seq={**batch.seq, **fields})


def pack(episodes: Sequence[Episode], streams: Streams | None = None, *, bootstrap: bool = False) -> Batch:
    """Pack episodes into one batch.

    Args:
        episodes: Episodes with at least one turn each.
        streams: name -> one array per episode over its action tokens, (n_action_tokens,).
        bootstrap: Append `last_obs` and a sentinel to every truncated episode that has one, so that its value can be
            read. Sentinels come in the order of the episodes.

    Returns:
        Sequences in the order of the episodes; ``seq["episode"]`` maps each back to its episode.

    Raises:
        ValueError: an episode without turns, or a stream whose length is not the number of action tokens.
    """
    streams = streams or {}
    _check_streams(streams, episodes)
    pieces: list[NDArray[Any]] = []
    turn_of: list[int] = []
    begins: list[int] = []
    owner: list[int] = []
    sentinels: list[int] = []
    for i, episode in enumerate(episodes):
        if not episode.turns:
            raise ValueError(
                f"episode {i} ({episode.group!r}, seed {episode.seed}) has no turns; drop it before packing"
            )
        for t, turn in enumerate(episode.turns):
            if turn.fresh or t == 0:
                begins.append(len(pieces))
                owner.append(i)
            pieces += (turn.obs, turn.act)
            turn_of += (t, t)
        if bootstrap and episode.truncated and len(episode.last_obs):
            if episode.last_fresh:
                begins.append(len(pieces))
                owner.append(i)
            sentinels.append(len(pieces) + 1)
            pieces += (episode.last_obs, _SENTINEL)
            turn_of += (len(episode.turns),) * 2
    if not pieces:
        pieces, turn_of = [_SENTINEL[:0]], [0]
    lengths = np.fromiter(map(len, pieces), np.int64, len(pieces))
    # Observations and actions alternate, and a sentinel stands where an action would.
    sampled = np.arange(len(pieces)) % 2 == 1
    sampled[sentinels] = False
    final = np.zeros(len(pieces), np.bool_)
    final[sentinels] = True
    is_action = _tensor(np.repeat(sampled, lengths))
    full: dict[str, Tensor] = {}
    for name, arrays in streams.items():
        values = torch.zeros(len(is_action), dtype=torch.float32)
        values[is_action] = _tensor(np.concatenate(arrays).astype(np.float32))
        full[name] = values
    ends = np.concatenate([[0], np.cumsum(lengths)])
    return Batch(
        tokens=_tensor(np.concatenate(pieces).astype(np.int64)),
        cu_seqlens=_tensor(np.append(ends[begins], ends[-1]).astype(np.int64)),
        action=is_action,
        turn=_tensor(np.repeat(np.array(turn_of, np.int64), lengths)),
        final=_tensor(np.repeat(final, lengths)),
        token=full,
        seq={"episode": torch.tensor(owner, dtype=torch.int64)},
    )


def _check_streams(streams: Streams, episodes: Sequence[Episode]) -> None:
    """Refuse streams that do not have one entry for each action token."""
    if not streams:
        return
    counts = [episode.n_action_tokens for episode in episodes]
    for name, arrays in streams.items():
        if len(arrays) != len(episodes):
            raise ValueError(f"stream {name!r} has {len(arrays)} arrays for {len(episodes)} episodes")
        for i, (array, n) in enumerate(zip(arrays, counts, strict=True)):
            if len(array) != n:
                raise ValueError(f"stream {name!r} of episode {i} has {len(array)} entries for {n} action tokens")


def unpack(values: Tensor | NDArray[Any], episodes: Sequence[Episode]) -> list[NDArray[Any]]:
    """Split an (A,) stream in packing order back into one array per episode.

    Raises:
        ValueError: the stream has another number of entries than the episodes have action tokens.
    """
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else values
    ends = np.cumsum([episode.n_action_tokens for episode in episodes], dtype=np.int64)
    total = int(ends[-1]) if len(ends) else 0
    if len(array) != total:
        raise ValueError(f"a stream of {len(array)} entries for {total} action tokens of {len(episodes)} episodes")
    return np.split(array, ends[:-1]) if len(ends) else []


def per_turn(values: Sequence[NDArray[Any]], episodes: Sequence[Episode]) -> list[NDArray[Any]]:
    """The entry at the first action token of each turn, one array of (n_turns,) per episode."""
    picked: list[NDArray[Any]] = []
    for array, episode in zip(values, episodes, strict=True):
        starts = np.concatenate([[0], np.cumsum(episode.act_lengths)[:-1]]).astype(np.int64)
        picked.append(np.asarray(array)[starts])
    return picked


def _parts(nodes: list[NDArray[np.int64]], budget: int) -> Iterator[tuple[int, int]]:
    """Cut blocks in order into parts of at most `budget` distinct nodes, where little is shared across the cut.

    Args:
        nodes: (n,) distinct nodes of each block.
        budget: Of a part; a larger block comes alone.

    Yields:
        First block of a part and the one behind its last.
    """
    seen = np.full(max((int(one.max(initial=-1)) for one in nodes), default=-1) + 1, -1)
    first = 0
    while first < len(nodes):
        used, last = 0, len(nodes)
        cuts: list[tuple[int, int]] = []
        for block in range(first, len(nodes)):
            new = int(np.count_nonzero(seen[nodes[block]] != first))
            full = used + new > budget
            # The next part may begin here if this one is at least half full; the later, the better.
            if block > first and (full or 2 * used >= budget):
                cuts.append((len(nodes[block]) - new, -block))
            if block > first and full:
                last = -min(cuts)[1]
                break
            seen[nodes[block]] = first
            used += new
        yield first, last
        first = last


def _tensor(array: NDArray[Any]) -> Tensor:
    return torch.from_numpy(array)  # pyright: ignore[reportUnknownMemberType]


def _integers(values: Tensor) -> list[int]:
    return cast("list[int]", values.tolist())  # pyright: ignore[reportUnknownMemberType]


__all__ = ["Batch", "Outputs", "Streams", "pack", "per_turn", "unpack", "with_units"]
