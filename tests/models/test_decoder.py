"""Decoders: (1) whatever is read in whatever pieces, logits are those of the model's own forward; (2) what attention reads at
once, and for whom, changes nothing; (3) slots grow, and what does not fit in memory is refused with what would."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.models import decoding, zoo
from turnwise.errors import TurnwiseError
from turnwise.models import CachedDecoder, RecomputeDecoder, cache, make_decoder, slot_attention


@pytest.mark.parametrize("kind", [CachedDecoder, RecomputeDecoder])
@pytest.mark.parametrize("name", ["llama, grouped queries", "gpt neox"])
def test_any_pieces_in_any_company_give_the_models_own_logits(name: str, kind: Callable[..., Any]) -> None:
    policy = zoo.policy(zoo.PACKED[name])
    contexts = decoding.Contexts(kind(policy, 6), policy.model, 6, words=zoo.V, longest=200)
    assert max(contexts.step() for _ in range(60)) < 2e-5
    contexts.forget()
    assert max(contexts.step() for _ in range(5)) < 2e-5


# ---- segments and stems ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("product", [0.0, 5e3, 2e4, 1e12])
def test_what_is_read_at_once_changes_nothing(product: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """From one product for each row to one for all, with every stem that saves anything."""
    policy = zoo.policy()
    seen = {"segments": 0, "stems": 0, "irregular": 0, "idle": 0}
    make = slot_attention.Segment.__init__

    def noting(self: Any, *args: Any) -> None:
        make(self, *args)
        seen["segments"] += 1
        seen["idle"] += self._cells is not None
        if self._stem is not None:
            seen["stems"] += 1
            seen["irregular"] += not self._stem._regular

    monkeypatch.setattr(slot_attention.Segment, "__init__", noting)
    monkeypatch.setattr(slot_attention, "_PRODUCT", {"cpu": product, "cuda": product})
    monkeypatch.setattr(slot_attention, "_STEM", 0.0)
    contexts = decoding.Contexts(CachedDecoder(policy, 8), policy.model, 8, words=zoo.V, longest=120, alike=True)
    assert max(contexts.step() for _ in range(100)) < 2e-5
    if product == 1e12:
        assert seen["segments"] <= 2 * 100  # one for rows with one token, one for the others
    if product in (5e3, 2e4):
        assert seen["stems"] > 4
        assert seen["irregular"]
        assert seen["idle"]


def test_slots_have_in_common_what_the_cache_says() -> None:
    decoder = CachedDecoder(zoo.policy(), 5)
    contexts = decoding.Contexts(decoder, decoder.policy.model, 5, words=3, longest=60)
    found = 0
    for _ in range(300):
        contexts.step(look=False)
        stem, shared = decoder.cache.stem.tolist(), decoder.cache.shared.tolist()
        for a, b in combinations(range(5), 2):
            n = min(shared[a], shared[b]) if stem[a] == stem[b] else 0
            assert contexts.held[a][:n] == contexts.held[b][:n]
            assert n <= min(len(contexts.held[a]), len(contexts.held[b]))
            found += n
    assert found > 300
    # Copies of one slot before and after it changed behind its stem share no more than the stem.
    held = decoder.cache
    held.clear()
    held.grow(np.array([0, 1]), 10)
    held.copy(0, 2, 15)
    held.overwrite(np.array([0]), np.array([12]))
    held.copy(0, 3, 15)
    assert held.stem[2] == held.stem[3]
    assert min(held.shared[2:4]) == 10


@pytest.mark.parametrize("how", ["in one pass", "copied"])
def test_a_common_beginning_is_read_once_for_all(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two groups of four grow by one token each, with a slot that is idle for a while."""
    monkeypatch.setattr(slot_attention, "_PRODUCT", {"cpu": 2e3, "cuda": 2e3})
    policy = zoo.policy()
    decoder = make_decoder(policy, 9)
    rng = np.random.default_rng(0)
    prompts = [rng.integers(0, zoo.V, n).tolist() for n in (60, 75)]
    contexts = {slot: list(prompts[slot // 4]) for slot in range(8)}
    if how == "in one pass":
        decoder.advance(decoding.feed([(slot, context, 0, True) for slot, context in contexts.items()]))
    else:
        decoder.advance(decoding.feed([(slot, contexts[slot], 0, True) for slot in (0, 4)]))
        for slot in (1, 2, 3, 5, 6, 7):
            decoder.copy(slot // 4 * 4, slot, len(contexts[slot]))
    keys = []
    for step in range(6):
        for context in contexts.values():
            context.append(int(rng.integers(zoo.V)))
        rows = [(slot, context, len(context) - 1, True) for slot, context in contexts.items() if slot != 3 or step == 5]
        if step == 5:
            rows[3] = (3, contexts[3], len(prompts[0]), True)
        said = decoder.advance(decoding.feed(rows))
        keys.append(decoder.cache._stems[0])  # pyright: ignore[reportAttributeAccessIssue]
        for mine, (_, context, _, _) in zip(said, rows, strict=True):
            truth = decoding.own_logits(policy.model, context)
            assert float((mine - truth).abs().max()) < 2e-5 * max(1.0, float(truth.abs().max()))
    assert all(keys)
    # Copied when the stem appears, and not for every token.
    assert len(set(keys[1:5])) == 1


@given(st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=6), min_size=2, max_size=7))
def test_stems_are_common_and_no_choice_of_two_levels_saves_more(contexts: list[list[int]]) -> None:
    contexts = sorted(contexts)

    def alike(rows: list[list[int]]) -> int:
        return next(
            (i for i, column in enumerate(zip(*rows, strict=False)) if len(set(column)) > 1), min(map(len, rows))
        )

    def best(n: int) -> int:
        """The most that any cut of the first n sorted contexts into runs can save."""
        return max((best(k) + alike(contexts[k:n]) * (n - k - 1) for k in range(n)), default=0)

    stems = slot_attention._stems(np.array([0, *(alike([a, b]) for a, b in pairwise(contexts))]))
    assert best(len(contexts)) == sum(length * (last - first - 1) for first, last, length in stems)
    assert all(length == alike(contexts[first:last]) > 0 for first, last, length in stems)


# ---- memory ----------------------------------------------------------------------------------------------------------


def test_too_little_memory_says_what_would_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = zoo.policy()
    decoder = make_decoder(policy, 6)
    each = 2 * 2 * 2 * 8 * 4  # layers, keys and values, heads, entries, bytes
    assert decoder.bytes_per_token == each
    held = 6 * 16 * each
    monkeypatch.setattr(cache, "free_memory", lambda device: 4 * 120 * each - held)
    decoder.advance(decoding.feed([(0, [5] * 30, 0, True)]))
    said = r"6 slots of 120 tokens need 0\.0\d+ GB of cache and 0\.0\d+ GB are free: \d slots of that length would fit"
    with pytest.raises(TurnwiseError, match=said):
        decoder.advance(decoding.feed([(0, [5] * 120, 30, True)]))
    # What was held is still there.
    said = decoder.advance(decoding.feed([(0, [5] * 31, 30, True)]))[0]
    assert float((said - decoding.own_logits(policy.model, [5] * 31)).abs().max()) < 2e-5


def test_doubling_stops_short_where_the_length_itself_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = make_decoder(zoo.policy(), 2)
    each = decoder.bytes_per_token
    monkeypatch.setattr(cache, "free_memory", lambda device: 2 * each * 20)
    decoder.advance(decoding.feed([(0, [5] * 17, 0, True)]))
    assert decoder.cache.capacity == 17  # pyright: ignore[reportAttributeAccessIssue]


def test_free_memory_is_what_the_system_and_the_container_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {
        "/proc/meminfo": "MemTotal: 900 kB\nMemAvailable: 700 kB\n",
        "/sys/fs/cgroup/memory.max": "600000\n",
        "/sys/fs/cgroup/memory.current": "400000\n",
        "/sys/fs/cgroup/memory.stat": "anon 300000\ninactive_file 50000\n",
    }

    def read(path: Path, *args: Any, **kwargs: Any) -> str:
        if str(path) in said:
            return said[str(path)]
        raise OSError

    monkeypatch.setattr(Path, "read_text", read)
    cpu = torch.device("cpu")
    assert cache.free_memory(cpu) == 250_000
    said["/sys/fs/cgroup/memory.max"] = "max\n"
    assert cache.free_memory(cpu) == 700 * 1024
    said.clear()
    assert cache.free_memory(cpu) is None
