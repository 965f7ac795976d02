"""Packing: (1) every token of every episode is there once, where it belongs; (2) streams come back as they were put in;
(3) any way of splitting a batch is a partition of it; (4) sentinels stand for the token after the last observation."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from turnwise.batch import Batch, pack, per_turn, unpack, with_units
from turnwise.episode import Cut, Episode, Turn

ids = st.lists(st.integers(0, 99), max_size=4).map(lambda x: np.array(x, np.int32))
acts = ids.filter(len)


@st.composite
def episodes_(draw: st.DrawFn) -> Episode:
    n = draw(st.integers(1, 4))
    turns: list[Turn] = []
    for t in range(n):
        act = draw(acts)
        fresh = t == 0 or draw(st.booleans())
        obs = draw(acts if fresh else ids)
        turns.append(Turn(obs, act, np.arange(len(act), dtype=np.float32), float(t), fresh=fresh))
    cut = draw(st.none() | st.just(Cut.TURN_LIMIT))
    last_fresh = cut is not None and draw(st.booleans())
    last = draw(acts if last_fresh else ids) if cut else np.zeros(0, np.int32)
    return Episode("g", tuple(turns), cut is None, cut is not None, last, last_fresh, cut=cut)


some = st.lists(episodes_(), min_size=1, max_size=5)


def sequences(episodes: list[Episode], bootstrap: bool) -> list[tuple[int, list[tuple[int, bool, bool, int]]]]:
    """By hand: (episode, [(id, is action, is sentinel, turn)]) of every sequence."""
    found: list[tuple[int, list[tuple[int, bool, bool, int]]]] = []
    for i, episode in enumerate(episodes):
        for t, turn in enumerate(episode.turns):
            if t == 0 or turn.fresh:
                found.append((i, []))
            found[-1][1].extend((int(x), False, False, t) for x in turn.obs)
            found[-1][1].extend((int(x), True, False, t) for x in turn.act)
        if bootstrap and episode.truncated and len(episode.last_obs):
            if episode.last_fresh:
                found.append((i, []))
            n = len(episode.turns)
            found[-1][1].extend((int(x), False, False, n) for x in episode.last_obs)
            found[-1][1].append((0, False, True, n))
    return found


def unpacked(batch: Batch) -> list[tuple[int, list[tuple[int, bool, bool, int]]]]:
    rows = list(
        zip(batch.tokens.tolist(), batch.action.tolist(), batch.final.tolist(), batch.turn.tolist(), strict=True)
    )
    bounds = batch.cu_seqlens.tolist()
    return [(e, rows[a:b]) for e, (a, b) in zip(batch.seq["episode"].tolist(), pairwise(bounds), strict=True)]


@given(some, st.booleans())
def test_every_token_is_there_once(episodes: list[Episode], bootstrap: bool) -> None:
    batch = pack(episodes, bootstrap=bootstrap)
    assert unpacked(batch) == sequences(episodes, bootstrap)
    assert len(batch) == len(batch.seq["episode"])
    assert batch.lengths.sum() == len(batch.tokens)


@given(some, st.booleans())
def test_derived_axes(episodes: list[Episode], bootstrap: bool) -> None:
    batch = pack(episodes, bootstrap=bootstrap)
    by_hand = sequences(episodes, bootstrap)
    assert batch.positions.tolist() == [p for _, rows in by_hand for p in range(len(rows))]
    assert batch.sequence.tolist() == [s for s, (_, rows) in enumerate(by_hand) for _ in rows]
    starts = batch.turn_start[batch.action].tolist()
    assert starts == [k == 0 for e in episodes for turn in e.turns for k in range(len(turn.act))]
    assert not batch.turn_start[~batch.action].any()


@given(some, st.data())
def test_streams_come_back(episodes: list[Episode], data: st.DataObject) -> None:
    values = [np.arange(e.n_action_tokens, dtype=np.float64) + 100 * i for i, e in enumerate(episodes)]
    batch = pack(episodes, {"x": values})
    assert batch.stream("x").tolist() == np.concatenate(values).tolist()
    assert (batch.token["x"][~batch.action] == 0).all()
    for a, b in zip(unpack(batch.stream("x"), episodes), values, strict=True):
        assert a.tolist() == b.tolist()
    again = batch.with_stream("x", batch.stream("x") + 1).weighted(lambda b: b.stream("x") * 2)
    assert again.stream("weight").tolist() == ((np.concatenate(values) + 1) * 2).tolist()
    order = data.draw(st.permutations(range(len(batch))))
    chosen = batch.select(order)
    expected = [unpacked(batch)[i] for i in order]
    assert unpacked(chosen) == expected
    first = [v for s in order for v in batch.token["x"][batch.sequence == s].tolist()]
    assert chosen.token["x"].tolist() == first


@given(some)
def test_the_first_entry_of_each_turn(episodes: list[Episode]) -> None:
    values = [np.concatenate([[t] + [-1] * (len(turn.act) - 1) for t, turn in enumerate(e.turns)]) for e in episodes]
    assert [v.tolist() for v in per_turn(values, episodes)] == [list(range(len(e.turns))) for e in episodes]


@given(some, st.integers(1, 30), st.integers(0, 99))
def test_units_are_never_taken_apart(episodes: list[Episode], turns: int, seed: int) -> None:
    """Each minibatch and each micro-batch holds a unit whole or not at all, and together they are a partition."""
    units = [i // 2 for i in range(len(episodes))]
    batch = with_units(pack(episodes), units, [1 - 2 * (i % 2) for i in range(len(episodes))])
    rng = np.random.default_rng(seed)
    whole = sorted(batch.seq["unit"].tolist())
    minibatches = [part.seq["unit"].tolist() for part in batch.minibatches(turns, rng)]
    micro = [batch.seq["unit"][torch.tensor(part)].tolist() for part in batch.micro_batches(turns)]
    for parts in (minibatches, micro):
        assert sorted(unit for part in parts for unit in part) == whole
        assert sum(len(set(part)) for part in parts) == len(set(whole))


@given(some, st.integers(1, 30))
def test_micro_batches_are_a_partition_within_the_budget(episodes: list[Episode], budget: int) -> None:
    batch = pack(episodes)
    for share in (True, False):
        parts = list(batch.micro_batches(budget, share=share))
        assert sorted(i for part in parts for i in part) == list(range(len(batch)))
        for part in parts:
            assert len(part) == 1 or tokens_to_read(batch, part, share) <= budget


def tokens_to_read(batch: Batch, part: list[int], share: bool = True) -> int:
    """Tokens of some sequences, each distinct prefix counted once if it is shared."""
    bounds, tokens = batch.cu_seqlens.tolist(), batch.tokens.tolist()
    prefixes = [tuple(tokens[bounds[i] : end]) for i in part for end in range(bounds[i] + 1, bounds[i + 1] + 1)]
    return len(set(prefixes)) if share else len(prefixes)


def group(prompt: int, n: int) -> list[Episode]:
    """Answers of three tokens to one prompt of six."""
    obs = np.arange(6, dtype=np.int32) + prompt
    acts = [np.array([100 + i, 1, 2], np.int32) for i in range(n)]
    return [
        Episode(f"{prompt}", (Turn(obs, act, np.zeros(3, np.float32), 0.0),), True, False, np.zeros(0, np.int32))
        for act in acts
    ]


def test_who_begins_alike_comes_together_and_counts_what_is_distinct() -> None:
    groups = [group(prompt, 4) for prompt in (0, 10, 20)]
    batch = pack([groups[i % 3][i // 3] for i in range(12)])
    assert tokens_to_read(batch, [0, 3, 6, 9]) == 6 + 4 * 3
    for budget in (18, 20, 27):  # 27 has room for half of the next group, whose prompt would then be read twice
        assert [sorted(i % 3 for i in part) for part in batch.micro_batches(budget)] == [[0] * 4, [1] * 4, [2] * 4]
    assert len(list(batch.micro_batches(36))) == 2
    assert len(list(batch.micro_batches(35, share=False))) == 4
    # A group that is too large is cut where it has to be.
    assert [len(part) for part in pack(groups[0]).micro_batches(12)] == [2, 2]


@given(some, st.integers(1, 30))
def test_units_stay_together(episodes: list[Episode], budget: int) -> None:
    batch = pack(episodes)
    unit = torch.arange(len(batch)) // 2
    batch = Batch(
        batch.tokens, batch.cu_seqlens, batch.action, batch.turn, batch.final, {}, {**batch.seq, "unit": unit}
    )
    parts = list(batch.micro_batches(budget))
    home = {i: number for number, part in enumerate(parts) for i in part}
    assert all(home[i] == home[i + 1] for i in range(0, len(batch) - 1, 2))


@given(some, st.integers(1, 6), st.integers(0, 5))
def test_minibatches_are_a_partition_of_about_the_asked_size(episodes: list[Episode], turns: int, seed: int) -> None:
    batch = pack(episodes, {"number": [np.arange(e.n_action_tokens) + 1000 * i for i, e in enumerate(episodes)]})
    parts = list(batch.minibatches(turns, np.random.default_rng(seed)))
    assert sorted(x for part in parts for x in part.stream("number").tolist()) == sorted(
        batch.stream("number").tolist()
    )
    again = list(batch.minibatches(turns, np.random.default_rng(seed)))
    assert [p.tokens.tolist() for p in parts] == [p.tokens.tolist() for p in again]
    sizes = [int(part.turn_start.sum()) for part in parts]
    largest = max(int(batch.select([s]).turn_start.sum()) for s in range(len(batch)))
    assert max(sizes) <= 1.5 * turns + 1 + largest
    assert all(len(part) for part in parts)


def test_many_short_sequences_make_even_minibatches() -> None:
    one = Turn(np.ones(2, np.int32), np.ones(1, np.int32), np.zeros(1, np.float32), 0.0, fresh=True)
    batch = pack([Episode("g", (one,), True, False, np.zeros(0, np.int32)) for _ in range(640)])
    sizes = [int(part.turn_start.sum()) for part in batch.minibatches(128, np.random.default_rng(0))]
    assert sizes == [128] * 5
    assert [len(part) for part in batch.minibatches(10_000, np.random.default_rng(0))] == [640]


@pytest.mark.parametrize(("lengths", "turns"), [([10] * 4, 10), ([5, 5], 5), ([4] * 12, 8)])
def test_whole_episodes_make_even_minibatches(lengths: list[int], turns: int) -> None:
    def one(fresh: bool) -> Turn:
        return Turn(np.ones(2, np.int32), np.ones(1, np.int32), np.zeros(1, np.float32), 0.0, fresh=fresh)

    batch = pack(
        [Episode("g", tuple(one(t == 0) for t in range(n)), True, False, np.zeros(0, np.int32)) for n in lengths]
    )
    sizes = [int(part.turn_start.sum()) for part in batch.minibatches(turns, np.random.default_rng(0))]
    assert sizes == [turns] * (sum(lengths) // turns)


def test_nothing_is_packed_into_nothing() -> None:
    batch = pack([])
    assert len(batch) == 0
    assert len(batch.tokens) == 0
    assert unpack(torch.zeros(0), []) == []
    assert per_turn([], []) == []
    assert list(batch.micro_batches(10)) == []
    assert list(batch.minibatches(10, np.random.default_rng(0))) == []


def test_what_does_not_fit_is_named() -> None:
    one = Turn(np.ones(2, np.int32), np.ones(2, np.int32), np.zeros(2, np.float32), 0.0, fresh=True)
    episode = Episode("here", (one,), True, False, np.zeros(0, np.int32), seed=5)
    empty = Episode("gone", (), True, False, np.zeros(0, np.int32), seed=7)
    with pytest.raises(ValueError, match=r"episode 1 \('gone', seed 7\) has no turns"):
        pack([episode, empty])
    with pytest.raises(ValueError, match="stream 'x' of episode 0 has 3 entries for 2 action tokens"):
        pack([episode], {"x": [np.zeros(3)]})
    with pytest.raises(ValueError, match="1 arrays for 2 episodes"):
        pack([episode, episode], {"x": [np.zeros(2)]})
    with pytest.raises(ValueError, match="3 entries for 2 action tokens"):
        unpack(torch.zeros(3), [episode])
    with pytest.raises(KeyError, match=r"no stream 'y'; it has \['x'\]"):
        pack([episode], {"x": [np.zeros(2)]}).stream("y")


def test_it_moves_as_a_whole() -> None:
    one = Turn(np.ones(2, np.int32), np.ones(2, np.int32), np.zeros(2, np.float32), 0.0, fresh=True)
    batch = pack([Episode("g", (one,), True, False, np.zeros(0, np.int32))], {"x": [np.ones(2)]}).to("meta")
    tensors = [
        batch.tokens,
        batch.cu_seqlens,
        batch.action,
        batch.turn,
        batch.final,
        batch.token["x"],
        batch.seq["episode"],
    ]
    assert all(tensor.device.type == "meta" for tensor in tensors)
