"""Conversations as observations: (1) one message of the user is rendered as its text is, (2) several are rendered as the
template renders them, (3) that is the context which a rollout of the same words has, (4) the renderer's system message
stands in front unless there is another, (5) it reads as text and survives pickling, (6) a template that cannot render it,
or leaves something out, is named, (7) a reader gives the messages back."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.text import templates
from tests.text.test_renderer import PLAIN_RENDERERS, RENDERERS, texts
from turnwise.errors import TurnwiseError
from turnwise.models import build_tokenizer
from turnwise.testing import build_dialogue
from turnwise.text import PLAIN, RAW, Conversation, Reader, Renderer, RendererError

SCRATCH = Renderer(build_tokenizer(["go north south", "take the key", "be brief"]))
RAW_RENDERERS = {
    "raw bytes": Renderer(templates.byte_level(None), template=RAW),
    "raw bytes, bos": Renderer(templates.byte_level(None, bos="<|bos|>", adds_bos=True), template=RAW),
    "raw pieces": Renderer(templates.sentence_pieces(None), template=RAW),
}
ALL = {**RENDERERS, **PLAIN_RENDERERS, **RAW_RENDERERS, "scratch": SCRATCH}


def user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


def assistant(content: str) -> dict[str, str]:
    return {"role": "assistant", "content": content}


def system(content: str) -> dict[str, str]:
    return {"role": "system", "content": content}


@pytest.mark.parametrize("name", ALL)
@given(text=st.one_of(texts, st.text(st.characters(codec="utf-8"), max_size=20)))
def test_one_message_of_the_user_is_rendered_as_its_text(name: str, text: str) -> None:
    assert ALL[name].first(Conversation([user(text)])).tolist() == ALL[name].first(text).tolist()


# In raw text and in the template of a model from scratch, what ends an action is written nowhere in the past.
@pytest.mark.parametrize("name", [*RENDERERS, "bytes", "bytes, bos"])
@given(dialogue=st.lists(st.tuples(texts, texts), min_size=1, max_size=3), last=texts)
def test_what_was_said_before_is_the_context_a_rollout_has(
    name: str, dialogue: list[tuple[str, str]], last: str
) -> None:
    renderer = ALL[name]
    said = [message for obs, action in dialogue for message in (user(obs), assistant(action))]
    whole = renderer.first(Conversation([*said, user(last)]))
    parts = []
    for turn, (obs, action) in enumerate(dialogue):
        parts += [renderer.following(obs) if turn else renderer.first(obs), renderer.action_ids(action)]
    together = np.concatenate([*parts, renderer.following(last)])
    assert renderer.text(whole) == renderer.text(together)
    if name in RENDERERS:
        assert whole.tolist() == together.tolist()


def test_the_messages_go_through_the_template() -> None:
    tokenizer = templates.byte_level(templates.CHATML)
    messages = [system("be brief"), user("go"), assistant("north"), user("on")]
    expected = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert Renderer(tokenizer).text(Renderer(tokenizer).first(Conversation(messages))) == expected


def test_the_policys_system_message_stands_in_front_unless_there_is_another() -> None:
    renderer = Renderer(templates.byte_level(templates.CHATML), system="be kind")
    two = [user("go"), assistant("north"), user("on")]
    assert renderer.text(renderer.first(Conversation(two))).startswith("<|im_start|>system\nbe kind<|im_end|>")
    own = renderer.text(renderer.first(Conversation([system("be brief"), *two])))
    assert own.startswith("<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\ngo")
    assert "be kind" not in own


def test_a_beginning_of_sequence_is_written_once() -> None:
    for name in ("bytes, bos", "raw bytes, bos"):
        bos = ALL[name].tokenizer.bos_token_id
        ids = ALL[name].first(Conversation([system("be brief"), user("go")])).tolist()
        assert ids[0] == bos
        assert ids.count(bos) == 1
    said = Conversation([user("go"), assistant("on"), user("go")])
    assert RENDERERS["headers"].first(said).tolist().count(RENDERERS["headers"].tokenizer.bos_token_id) == 1


def test_it_reads_as_text() -> None:
    assert Conversation([user("go on")]) == "go on"
    several = Conversation([system("be brief"), user("go"), assistant("north"), user("on")])
    assert several == "system: be brief\nuser: go\nassistant: north\nuser: on"
    assert (several.system, Conversation([user("go")]).system) == ("be brief", None)
    assert f"{several[:6]}" == "system"


def test_it_survives_pickling() -> None:
    said = Conversation([system("be brief"), user("go")])
    again = pickle.loads(pickle.dumps(said))
    assert type(again) is Conversation
    assert (str(again), again.messages) == (str(said), said.messages)


@pytest.mark.parametrize(
    ("messages", "why"),
    [
        ([], "at least one message"),
        ([user("a"), assistant("b")], "ends with the assistant"),
        ([user("a"), system("b")], "message 1 is a system message"),
        ([{"role": "tool", "content": "x"}], "the role 'tool'"),
        ([{"role": "user", "content": None}], "type NoneType"),
        (["go"], "is a str"),
    ],
)
def test_what_is_no_conversation_is_refused(messages: list[Any], why: str) -> None:
    with pytest.raises(TurnwiseError, match=why):
        Conversation(messages)


def test_a_template_that_cannot_render_a_role_is_named() -> None:
    renderer = RENDERERS["brackets"]
    with pytest.raises(
        RendererError, match=r"system message first \(user after it\).*no system role.*--template plain"
    ):
        renderer.first(Conversation([system("be brief"), user("go")]))
    silent = templates.CHATML.replace("{% for m in messages %}", "{% for m in messages if m.role != 'system' %}")
    with pytest.raises(RendererError, match=r"leaves out or rewrites a system message.*--template plain"):
        Renderer(templates.byte_level(silent)).first(Conversation([system("be brief"), user("go")]))


# ---- --template raw


def test_raw_is_the_texts_with_nothing_between_them() -> None:
    renderer = RAW_RENDERERS["raw bytes"]
    tokenizer = renderer.tokenizer
    together = np.concatenate([renderer.first("go north"), renderer.action_ids(" south")])
    assert together.tolist() == [*tokenizer.encode("go north"), *tokenizer.encode(" south"), tokenizer.eos_token_id]
    assert renderer.stop == {tokenizer.eos_token_id}
    talk = np.concatenate([together, renderer.following(" east")])
    assert renderer.text(talk) == "go north south<|endoftext|> east"
    assert renderer.text(renderer.first(Conversation([user("go "), assistant("on "), user("!")]))) == "go on !"


def test_raw_never_begins_with_nothing() -> None:
    plain, marked = RAW_RENDERERS["raw bytes"], Renderer(templates.byte_level(None, bos="<|bos|>"), template=RAW)
    assert plain.first("").tolist() == [plain.tokenizer.eos_token_id]
    assert marked.first("").tolist() == [marked.tokenizer.bos_token_id]
    assert marked.first("go").tolist() == marked.tokenizer.encode("go")


def test_raw_needs_an_end_of_sequence() -> None:
    tokenizer = templates.byte_level(None)
    tokenizer.eos_token = None
    with pytest.raises(RendererError, match=r"no EOS token.*set tokenizer.eos_token"):
        Renderer(tokenizer, template=RAW)


def test_a_tokenizer_without_pad_token_or_template_speaks_plainly() -> None:
    tokenizer = templates.byte_level(None)
    assert tokenizer.pad_token is None
    assert Renderer(tokenizer).template == PLAIN
    tokenizer.eos_token = None
    assert Renderer(tokenizer).stop == {tokenizer.convert_tokens_to_ids("Ċ")}


# ---- steps


@pytest.mark.parametrize("name", [*RENDERERS, *PLAIN_RENDERERS, "raw bytes"])
@given(steps=st.lists(texts, min_size=1, max_size=4))
def test_the_steps_of_an_answer_add_up_to_it(name: str, steps: list[str]) -> None:
    renderer = ALL[name]
    ids = renderer.step_ids(steps, "\n")
    assert len(ids) == len(steps)
    assert int(ids[-1][-1]) in renderer.stop
    if "pieces" not in name:
        assert renderer.text(np.concatenate(ids)) == renderer.text(renderer.action_ids("\n".join(steps)))
        for step in ids[:-1]:
            assert renderer.text(step).endswith("\n")


# ---- reading


@pytest.mark.parametrize("name", ["chatml", "chatml, another eos", "headers"])
@pytest.mark.parametrize("policy_system", [None, "be kind"])
@pytest.mark.parametrize(
    "messages",
    [
        [user("go")],
        [system("be brief"), user("go")],
        [user("go"), assistant("north"), user("on")],
        [system("be\nbrief"), user("go"), assistant("north"), user("on"), assistant("a: b"), user("line\nline")],
    ],
)
def test_reading_gives_the_messages_back(name: str, policy_system: str | None, messages: list[dict[str, str]]) -> None:
    renderer = Renderer(RENDERERS[name].tokenizer, system=policy_system)
    reader = Reader(renderer)
    said = Conversation(messages)
    (first, second) = (
        reader.observation(build_dialogue([(said, "yes"), ("and now", "no")], renderer), turn) for turn in (0, 1)
    )
    assert first == said
    assert second == "and now"
    if len(messages) > 1:
        assert isinstance(first, Conversation)
        assert first.messages == said.messages


@pytest.mark.parametrize("name", ["brackets", "bytes", "raw bytes", "scratch"])
def test_where_messages_cannot_be_told_apart_all_of_them_are_read(name: str) -> None:
    renderer = ALL[name]
    said = Conversation([user("go north"), assistant("take the key"), user("go south")])
    read = Reader(renderer).observation(build_dialogue([(said, "go")], renderer), 0)
    assert all(message["content"] in read for message in said.messages)


def test_a_template_that_leaves_the_system_message_out_can_be_read() -> None:
    dated = "Today is the 3rd.{% for m in messages if m.role != 'system' %}"
    renderer = Renderer(templates.byte_level(templates.CHATML.replace("{% for m in messages %}", dated)))
    assert Reader(renderer).observation(build_dialogue([("go", "on")], renderer), 0) == "go"
