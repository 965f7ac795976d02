"""Data as episodes: (1) a group and a label survive, (2) the steps of an answer are turns with nothing between them, and
their ids in a row are the answer's, (3) a conversation is the context it renders to, and its system message stays, (4) what
does not fit is refused and never cut off a label, (5) it trains with a tokenizer that has no pad token and no template."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from tests.text import templates
from turnwise.algorithms import SFT
from turnwise.data import DataError, load, transcripts
from turnwise.episode import Source, Transcript
from turnwise.learners import LocalLearner
from turnwise.models import Policy
from turnwise.rollout import Memory, episodes_of
from turnwise.text import RAW, Conversation, Reader, Renderer

CHATML = Renderer(templates.byte_level(templates.CHATML, eos="<|im_end|>"))


@dataclass
class Act:
    """What `episodes_of` asks of a policy."""

    renderer: Renderer
    context_limit: int = 512


def test_a_pair_shares_its_group_and_the_label_pays() -> None:
    told = transcripts(load([{"prompt": "go", "chosen": "north", "rejected": "south"}] * 2))
    one, other, third, _ = episodes_of(told, Act(CHATML))  # type: ignore[arg-type]
    assert one.group == other.group != third.group
    assert [turn.rewards for turn in (*one.turns, *other.turns)] == [{"label": 1.0}, {"label": 0.0}]
    assert (one.turns[0].reward, one.source, one.terminated) == (1.0, Source.DATASET, True)
    (shown,) = episodes_of(transcripts(load([{"prompt": "go", "completion": "on"}])), Act(CHATML))  # type: ignore[arg-type]
    assert shown.turns[0].rewards == {"environment": 0.0}


@pytest.mark.parametrize("renderer", [CHATML, Renderer(templates.byte_level(None), template=RAW)])
@pytest.mark.parametrize("memory", [None, Memory(turns=0), Memory(limit=80, compact=True)])
def test_steps_are_turns_of_one_answer(renderer: Renderer, memory: Memory | None) -> None:
    row = {"prompt": "go", "completions": ["first north", "then south", "done"], "labels": [True, False, True]}
    (episode,) = episodes_of(transcripts(load([row])), Act(renderer), memory)  # type: ignore[arg-type]
    assert [turn.reward for turn in episode.turns] == [1.0, 0.0, 1.0]
    assert [len(turn.obs) for turn in episode.turns[1:]] == [0, 0]
    assert [turn.fresh for turn in episode.turns] == [True, False, False]
    assert episode.turns[0].obs.tolist() == renderer.first("go").tolist()
    whole = np.concatenate([turn.act for turn in episode.turns])
    assert whole.tolist() == renderer.action_ids("first north\nthen south\ndone").tolist()
    assert [int(turn.act[-1]) in renderer.stop for turn in episode.turns] == [False, False, True]
    assert Reader(renderer).transcript(episode).actions == ("first north", "then south", "done")


def test_nothing_is_said_between_steps() -> None:
    with pytest.raises(ValueError, match="between the steps"):
        Transcript(("a", "b"), ("c", "d"), (0.0, 0.0), True, False, separator="\n")


def test_a_conversation_is_its_rendering_and_its_system_message_stays() -> None:
    said = Conversation([{"role": "system", "content": "be brief"}, {"role": "user", "content": "go"}])
    talk = Transcript((said, "on"), ("north", "south"), (0.0, 0.0), True, False)
    (whole,) = episodes_of([talk], Act(CHATML))  # type: ignore[arg-type]
    assert whole.turns[0].obs.tolist() == CHATML.first(said).tolist()
    assert whole.turns[1].obs.tolist() == CHATML.following("on").tolist()
    (forgetful,) = episodes_of([talk], Act(CHATML), Memory(turns=0))  # type: ignore[arg-type]
    alone = Conversation([{"role": "system", "content": "be brief"}, {"role": "user", "content": "on"}])
    assert forgetful.turns[1].obs.tolist() == CHATML.first(alone).tolist()


LONG = "north " * 60


def test_a_row_that_does_not_fit_is_refused() -> None:
    narrow = Act(CHATML, context_limit=60)
    rows = [
        {"prompt": LONG, "completion": "on"},
        {"prompt": "on", "completion": LONG},
        {"prompt": "on", "chosen": "on", "rejected": LONG},
        {"prompt": "on", "completions": ["on", LONG], "labels": [True, False]},
    ]
    for row in rows:
        with pytest.raises(
            DataError, match=r"the data:1 is longer than the 60 tokens of the context: .*--max-length 60"
        ):
            episodes_of(transcripts(load([row])), narrow)  # type: ignore[arg-type]


def test_only_a_label_needs_the_whole() -> None:
    narrow = Act(CHATML, context_limit=60)
    user, assistant = ({"role": role, "content": "on"} for role in ("user", "assistant"))
    long = {"role": "user", "content": LONG}
    (cut,) = episodes_of(transcripts(load([{"messages": [user, assistant, long, assistant]}])), narrow)  # type: ignore[arg-type]
    assert (len(cut.turns), cut.truncated) == (1, True)
    pair = {"prompt": "on", "chosen": [assistant, long, assistant], "rejected": "x"}
    pair["rejected"] = [assistant]
    with pytest.raises(DataError, match="longer than the 60 tokens"):
        episodes_of(transcripts(load([pair])), narrow)  # type: ignore[arg-type]
    # What an expert showed is no data set: it is cut as before.
    shown = replace(transcripts(load([{"prompt": LONG, "completion": "on"}]))[0], source=Source.EXPERT)
    assert not episodes_of([shown], narrow)[0].turns  # type: ignore[arg-type]


@pytest.mark.parametrize("template", [None, RAW])
def test_a_tokenizer_without_pad_token_or_template_trains(template: str | None) -> None:
    tokenizer = templates.byte_level(None)
    assert (tokenizer.pad_token, tokenizer.chat_template) == (None, None)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=64, bos_token_id=None, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    policy = Policy(LlamaForCausalLM(config), tokenizer, renderer=Renderer(tokenizer, template=template))
    rows = [{"prompt": "go", "completion": " north"}, {"prompt": "where", "completion": " south, of course"}]
    episodes = episodes_of(transcripts(load(rows)), policy)
    learner = LocalLearner(policy, lr=1e-3, seed=0)
    before = SFT().improve(learner, episodes).metrics
    after = SFT().improve(learner, episodes).metrics
    assert np.isfinite([total / count for total, count in after.values()]).all()
    assert before.keys() == after.keys()
