"""Splitting an action into steps changes what is credited and nothing else: (1) the ids, log-probabilities and packed
tokens are the same, (2) joining gives back what was split, (3) a step ends with its separator and is never blank,
(4) credit for whole answers is the same, (5) a reader still reads the answer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from turnwise.batch import pack
from turnwise.credit import broadcast, leave_one_out, uniform
from turnwise.episode import Episode, Source, Stop, Turn
from turnwise.errors import TurnwiseError
from turnwise.models import build_tokenizer
from turnwise.rollout import Logged, Stepwise, join_steps, split_steps
from turnwise.text import Renderer

TOKENIZER = build_tokenizer(["a b c d ; ask again", "a\nb\nc\nd\na;a"])
RENDERER = Renderer(TOKENIZER)
PIECES = ["a", " b", " c", "\n", "\n", " ;", "d"]


def episode(texts: list[str], *, cut: bool = False, group: str = "g", reward: float = 1.0) -> Episode:
    turns: list[Turn] = []
    for t, text in enumerate(texts):
        ids = RENDERER.action_ids(text)
        ids = ids[:-1] if cut and len(ids) > 1 else ids
        obs = RENDERER.first("ask") if t == 0 else RENDERER.following("again", turns[-1].stop)
        logp = -np.arange(1, len(ids) + 1).astype(np.float32)
        paid = reward * (t + 1)
        turns.append(
            Turn(
                obs,
                ids,
                logp,
                paid,
                version=t,
                fresh=t == 0,
                stop=Stop.LENGTH if cut else Stop.STOP,
                rewards={"x": paid},
            )
        )
    return Episode(group, tuple(turns), True, False, np.zeros(0, np.int32), source=Source.DATASET)


texts = st.lists(st.lists(st.sampled_from(PIECES), max_size=12).map("".join), min_size=1, max_size=3)


@settings(max_examples=60, deadline=None)
@given(texts, st.booleans(), st.sampled_from(["\n", ";", "\n\n", " c"]))
def test_a_split_episode_is_the_same_experience(words: list[str], cut: bool, separator: str) -> None:
    whole = episode(words, cut=cut)
    split = split_steps(whole, RENDERER, separator)
    for name in ("act", "logp"):
        a, b = (np.concatenate([getattr(t, name) for t in e.turns]) for e in (whole, split))
        assert a.tolist() == b.tolist()
    one, other = pack([whole]), pack([split])
    assert one.tokens.tolist() == other.tokens.tolist()
    assert one.action.tolist() == other.action.tolist()
    assert one.cu_seqlens.tolist() == other.cu_seqlens.tolist()
    assert split.undiscounted_return == whole.undiscounted_return
    assert len(split.answers) == len(whole.turns)
    for steps, turn in zip(split.answers, whole.turns, strict=True):
        parts = [split.turns[step] for step in steps]
        assert [part.reward for part in parts] == [0.0] * (len(parts) - 1) + [turn.reward]
        assert [part.stop for part in parts] == [Stop.STOP] * (len(parts) - 1) + [turn.stop]
        assert all(part.version == turn.version for part in parts)
        read = [RENDERER.text(part.act) for part in parts]
        assert all(separator in text for text in read[:-1])
        if len(parts) > 1:
            assert all(RENDERER.action_text(part.act).replace(separator, "").strip() for part in parts)
    assert_equal(join_steps(split), whole)


def assert_equal(a: Episode, b: Episode) -> None:
    assert len(a.turns) == len(b.turns)
    for x, y in zip(a.turns, b.turns, strict=True):
        for name in ("obs", "act", "logp"):
            assert getattr(x, name).tolist() == getattr(y, name).tolist()
        assert (x.reward, x.version, x.fresh, x.stop, x.rewards) == (
            y.reward,
            y.version,
            y.fresh,
            y.stop,
            dict(y.rewards),
        )


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("a b\nc", ["a b", "c"]),
        ("a\n\nb\n", ["a", "b"]),
        ("\n\na\nb", ["a", "b"]),
        ("a b c", ["a b c"]),
        ("", [""]),
        ("\n", [""]),
    ],
)
def test_a_step_ends_with_its_separator_and_is_never_blank(text: str, steps: list[str]) -> None:
    split = split_steps(episode([text]), RENDERER)
    assert [RENDERER.action_text(turn.act) for turn in split.turns] == steps
    assert [len(turn.obs) > 0 for turn in split.turns] == [True] + [False] * (len(steps) - 1)
    assert int(split.turns[-1].act[-1]) in RENDERER.stop


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(texts, st.floats(-2, 2)), min_size=2, max_size=5))
def test_credit_for_whole_answers_is_credit_spread_over_steps(made: list[tuple[list[str], float]]) -> None:
    # One answer each: at one turn every credit is the bandit's.
    whole = [episode(words[:1], reward=reward) for words, reward in made]
    split = [split_steps(e, RENDERER) for e in whole]

    def tokens(episodes: list[Episode]) -> list[Any]:
        advantage = leave_one_out([e.undiscounted_return for e in episodes], ["g"] * len(episodes))
        turns = uniform(advantage, [len(e.turns) for e in episodes])
        return broadcast(turns, [e.act_lengths for e in episodes])

    for a, b in zip(tokens(whole), tokens(split), strict=True):
        assert a.tolist() == b.tolist()


def test_as_a_source_it_passes_everything_on() -> None:
    stored = Logged([episode(["a\nb", "c"]), episode(["d"])])
    source = Stepwise(stored, RENDERER)
    handed = source.rollouts(0, 2)
    assert sorted(len(e.turns) for e in handed) == [1, 3]
    source.refresh(type("L", (), {"version": 1})())
    source.close()
    with pytest.raises(TurnwiseError, match="a line break is usual"):
        Stepwise(stored, RENDERER, separator="")
