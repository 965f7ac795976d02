"""Where actions end: (1) stop strings end with the token that completes them, for tokenizers of words and of bytes, whatever
the characters; (2) asking for text costs nothing where no token can complete one; (3) the engine ends there, alone and among
others, and goes on to its budget where the string never comes."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from tests.models import zoo
from turnwise.engines import LocalEngine, Request
from turnwise.engines.ending import Ending
from turnwise.engines.noise import mix
from turnwise.episode import Stop
from turnwise.models import Policy, Sampling, build_model


def byte_level() -> PreTrainedTokenizerFast:
    """Bytes and merges of them, so that a character may come in two tokens and a token may hold half of two."""
    from tokenizers import Tokenizer
    from tokenizers.decoders import ByteLevel as Decoder
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel
    from tokenizers.trainers import BpeTrainer

    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = Decoder()
    trainer = BpeTrainer(
        vocab_size=330, initial_alphabet=ByteLevel.alphabet(), special_tokens=["<end>"], show_progress=False
    )
    tokenizer.train_from_iterator(["é→é→ über </a> </answer> naïve → ok\n"] * 3, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", clean_up_tokenization_spaces=False)


TOKENIZERS = {"words": zoo.TOKENIZER, "bytes": byte_level()}
STRINGS = ["o", "go", " go", "north go", "th", "é", "→é", "</answer>", "\n", "�", "é→ ", "<end>", " ", "aa"]


def text(name: str, ids: Any) -> str:
    return TOKENIZERS[name].decode(list(ids), skip_special_tokens=True)


@settings(max_examples=150)
@given(st.sampled_from(sorted(TOKENIZERS)), st.integers(0, 10_000), st.sets(st.sampled_from(STRINGS), min_size=1))
def test_an_action_ends_with_the_token_that_completes_a_string(name: str, seed: int, strings: set[str]) -> None:
    rng = np.random.default_rng(seed)
    vocabulary = len(TOKENIZERS[name])
    encoded = TOKENIZERS[name].encode(rng.choice(["go north → é", "é→é </answer>\n", "see a door"]))
    ids = np.concatenate([rng.integers(0, vocabulary, rng.integers(0, 6)), encoded, rng.integers(0, vocabulary, 4)])
    stop = int(rng.integers(0, vocabulary))
    # By the definition, from the text of each beginning.
    expected = len(ids), 0
    for n in range(1, len(ids) + 1):
        if ids[n - 1] == stop:
            expected = n, 1
            break
        if any(string in text(name, ids[:n]) for string in strings):
            expected = n, 2
            break
    ending = Ending([stop], sorted(strings), vocabulary, lambda ids: text(name, ids))
    got = len(ids), 0
    for n in range(1, len(ids) + 1):
        how = int(ending.ended(ids[n - 1 : n], lambda _, n=n: ids[:n].tolist())[0])
        if how:
            got = n, how
            break
    assert got == expected


def test_text_is_decoded_only_where_a_token_can_complete_a_string() -> None:
    asked: list[int] = []

    def decode(ids: list[int]) -> str:
        asked.append(len(ids))
        return text("words", ids)

    ending = Ending([], ["north"], zoo.V, decode)
    go, north = (zoo.TOKENIZER.encode(word)[0] for word in ("go", "north"))
    action = [go] * 40
    for n in range(1, 41):
        assert not ending.ended(np.array([go]), lambda _, n=n: action[:n])[0]
    assert asked == [2]
    assert ending.ended(np.array([go, north]), lambda row: [*action, north])[1] == 2


POLICY = Policy(build_model(zoo.TOKENIZER, seed=4), zoo.TOKENIZER)


def run(requests: list[Request], **options: Any) -> list[Any]:
    async def work() -> list[Any]:
        engine = LocalEngine(POLICY, **options)
        return await asyncio.gather(*(engine.generate(request) for request in requests))

    return asyncio.run(work())


def test_the_engine_ends_there() -> None:
    context = POLICY.renderer.first("see a door")

    def requests(*stop: str) -> list[Request]:
        sampling = Sampling(max_tokens=12, stop=stop)
        return [Request(context, i, mix(i), sampling, POLICY.renderer.stop) for i in range(20)]

    free, ended = run(requests()), run(requests("th", "key"))
    alone = [run([request], slots=1)[0] for request in requests("th", "key")]
    strings = 0
    for whole, cut, one in zip(free, ended, alone, strict=True):
        assert cut.ids.tolist() == one.ids.tolist()
        assert cut.stop is one.stop
        ns = [n for n in range(1, len(whole.ids) + 1) if any(s in text("words", whole.ids[:n]) for s in ("th", "key"))]
        n = ns[0] if ns else len(whole.ids)
        assert cut.ids.tolist() == whole.ids[:n].tolist()
        assert cut.stop is (Stop.STRING if ns else whole.stop)
        strings += bool(ns)
    assert 3 <= strings <= 19


@pytest.mark.parametrize("stop", ["never said", "\x00", "🙂"])
def test_a_string_that_never_comes_ends_at_the_budget(stop: str) -> None:
    context = POLICY.renderer.first("see a door")
    sampling = Sampling(max_tokens=9, stop=(stop,))
    done = run([Request(context, i, mix(i), sampling, frozenset()) for i in range(8)])
    assert {one.stop for one in done} == {Stop.LENGTH}
    assert {len(one.ids) for one in done} == {9}


def test_the_next_observation_closes_an_action_that_a_string_ended() -> None:
    renderer = POLICY.renderer
    action = renderer.action_ids("go north")
    closed = np.concatenate([action, renderer.following("see a door", Stop.STOP)])
    cut = np.concatenate([action[:-1], renderer.following("see a door", Stop.STRING)])
    assert cut.tolist() == closed.tolist()
