"""The tokenizer made for one environment: (1) every action of every built-in world comes back as its text, (2) any number
can be written, (3) what is unknown is read as <unk> and never sampled, (4) it survives saving."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers as hf
from hypothesis import given
from hypothesis import strategies as st

from turnwise.envs import demonstrate, ids, spec
from turnwise.models import SIZES, Policy, build_model, build_tokenizer
from turnwise.text import Renderer

# TextWorld is an extra with a compiler of its own; its actions are words like any other's. Prompts are in a file.
WORLDS = [world for world in ids() if world not in ("textworld", "prompts")]


def known(world: str) -> tuple[tuple[str, ...], list[str]]:
    """Actions of a world, and everything that random play in it shows."""
    found = spec(world)
    said: list[str] = []
    for transcript in demonstrate(found.make, range(4), skill=0.0, max_turns=15):
        said += [*transcript.observations, *transcript.actions, transcript.last_obs]
    return found.actions, said


@pytest.mark.parametrize("world", WORLDS)
def test_actions_of_built_in_worlds_come_back(world: str) -> None:
    actions, said = known(world)
    tokenizer = build_tokenizer([*actions, *said])
    renderer = Renderer(tokenizer)
    for action in actions:
        assert renderer.action_text(renderer.action_ids(action)) == action
        assert len(renderer.action_ids(action)) <= 16
    for text in {*actions, *said}:
        assert tokenizer.unk_token_id not in renderer.first(text)


TOKENIZER = build_tokenizer(["go to room 3, then (slowly) wait-and-see!", "Ärger: öffne die Tür\nzwei Zeilen"])
RENDERER = Renderer(TOKENIZER)


@given(st.integers(0, 10**12))
def test_any_number_can_be_written(number: int) -> None:
    assert RENDERER.action_text(RENDERER.action_ids(f"go to {number}")) == f"go to {number}"


@pytest.mark.parametrize(
    "text", ["go to room 3, then (slowly) wait-and-see!", "Ärger: öffne die Tür\nzwei Zeilen", "go", "3", "room 12"]
)
def test_its_own_texts_come_back(text: str) -> None:
    assert RENDERER.action_text(RENDERER.action_ids(text)) == text


@given(st.text(max_size=30))
def test_any_text_is_read(text: str) -> None:
    ids = RENDERER.first(text)
    assert ids[-1] == TOKENIZER.convert_tokens_to_ids("<act>")
    assert ids.max() < len(TOKENIZER)
    assert not set(RENDERER.action_ids("go").tolist()) & set(ids[:0].tolist())


def test_unknown_words_are_read_as_unknown_and_never_sampled() -> None:
    assert RENDERER.first("xyzzy").tolist().count(TOKENIZER.unk_token_id) == 1
    policy = Policy(build_model(TOKENIZER), TOKENIZER)
    names = set(TOKENIZER.convert_ids_to_tokens(policy.banned.tolist()))
    assert names == {"<pad>", "<unk>", "<s>", "<act>"}


def test_the_most_frequent_words_are_kept() -> None:
    tokenizer = build_tokenizer(["a a a b b c"], max_words=2)
    assert [tokenizer.encode(w)[0] == tokenizer.unk_token_id for w in ("a", "b", "c")] == [False, False, True]


def test_it_does_not_depend_on_the_order_of_texts() -> None:
    texts = ["go north", "see a door", "take the key 7"]
    assert build_tokenizer(texts).get_vocab() == build_tokenizer(texts[::-1]).get_vocab()


def test_it_survives_saving(tmp_path: Path) -> None:
    TOKENIZER.save_pretrained(tmp_path)
    loaded: Any = hf.AutoTokenizer.from_pretrained(tmp_path)
    again = Renderer(loaded)
    for text in ("go to room 42", "xyzzy (slowly)", "öffne die Tür\nzwei", "  spaced   out "):
        assert np.array_equal(again.first(text), RENDERER.first(text))
        assert np.array_equal(again.following(text), RENDERER.following(text))
        assert np.array_equal(again.action_ids(text), RENDERER.action_ids(text))
    assert again.stop == RENDERER.stop


@pytest.mark.parametrize("size", SIZES)
def test_models_are_made_from_their_seed(size: str) -> None:
    a, b, c = (build_model(TOKENIZER, size, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all((a[name] == b[name]).all() for name in a)
    assert any((a[name] != c[name]).any() for name in a)
