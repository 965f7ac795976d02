"""Reading an episode gives back the text it was made of, whatever the template and the memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from turnwise.episode import Stop, Transcript
from turnwise.models import build_tokenizer
from turnwise.rollout import Memory, episodes_of
from turnwise.testing import build_dialogue
from turnwise.text import Reader, Renderer
from turnwise.text.renderer import PLAIN

CHATTY = (
    "{% for m in messages %}<|{{ m.role }} of 38|>{{ m.content }}<end>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant of 38|>{% endif %}"
)
DIALOGUE = Transcript(
    observations=("room 3 is dark . 8 lamps", "now it is light : 42", "leave"),
    actions=("light the lamp", "go 3", "leave room 38"),
    rewards=(0.0, -0.5, 1.0),
    terminated=False,
    truncated=True,
    last_obs="you are out",
    env="rooms",
    seed=4,
    goal="get out",
)


@dataclass
class Act:
    """What `episodes_of` asks of a policy."""

    renderer: Renderer
    context_limit: int = 512


def words() -> PreTrainedTokenizerFast:
    """The tokenizer of models from scratch, which knows the words of one world."""
    return build_tokenizer([*DIALOGUE.observations, *DIALOGUE.actions, DIALOGUE.last_obs])


def spelling() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer, which can spell everything."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=["<end>"], show_progress=False
    )
    tokenizer.train_from_iterator(DIALOGUE.observations, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", clean_up_tokenization_spaces=False)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return words()


@pytest.mark.parametrize(
    ("make", "template", "system"),
    [(words, None, None), (words, PLAIN, None)]
    + [(spelling, template, system) for template in (PLAIN, CHATTY) for system in (None, "you are 3 of 8")],
)
@pytest.mark.parametrize("turns", [None, 0])
def test_reading_inverts_rendering(
    make: Callable[[], PreTrainedTokenizerFast], template: str | None, system: str | None, turns: int | None
) -> None:
    renderer = Renderer(make(), template=template, system=system)
    (episode,) = episodes_of([DIALOGUE], Act(renderer), Memory(turns))  # type: ignore[arg-type]
    read = Reader(renderer).transcript(episode)
    assert read.observations == DIALOGUE.observations
    assert read.actions == DIALOGUE.actions
    assert read.last_obs == DIALOGUE.last_obs
    assert (read.rewards, read.seed, read.goal, read.truncated) == (DIALOGUE.rewards, 4, "get out", True)


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="<"), max_size=12), min_size=1, max_size=3))
@settings(max_examples=50, deadline=None)
def test_any_observation_comes_back_letter_by_letter(observations: list[str]) -> None:
    renderer = Renderer(spelling(), template=CHATTY)
    episode = build_dialogue([(text, "go") for text in observations], renderer)
    assert list(Reader(renderer).transcript(episode).observations) == observations


def test_an_action_that_was_cut_off_does_not_leak_into_the_next_observation(tokenizer) -> None:
    renderer = Renderer(tokenizer)
    episode = build_dialogue([("leave", "go 3"), ("now it is light", "leave")], renderer)
    first, second = episode.turns
    cut = type(first)(first.obs, first.act[:-1], first.logp[:-1], 0.0, fresh=True, stop=Stop.LENGTH)
    closed = type(second)(renderer.following("now it is light", Stop.LENGTH), second.act, second.logp, 0.0)
    episode = type(episode)("g", (cut, closed), True, False, np.zeros(0, np.int32))
    reader = Reader(renderer)
    assert reader.observation(episode, 1) == "now it is light"
    assert reader.action(episode, 0) == "go 3"


def test_a_retold_context_is_read_as_the_policy_saw_it(tokenizer) -> None:
    renderer = Renderer(tokenizer, template=PLAIN)
    (episode,) = episodes_of([DIALOGUE], Act(renderer), Memory(1))  # type: ignore[arg-type]
    seen = Reader(renderer).observation(episode, 2)
    assert all(part in seen for part in (DIALOGUE.observations[1], DIALOGUE.actions[1], DIALOGUE.observations[2]))
    assert DIALOGUE.observations[0] not in seen
