"""Token deltas: (1) they add up to what the template renders, (2) k turns are a prefix of k + 1, (3) the token after an
answer ends an action, (4) an action cut short is closed, (5) an action written out comes back as its text,
(6) templates that rewrite the past are refused with the remedy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.text import templates
from turnwise.episode import Stop
from turnwise.text import Renderer, RendererError
from turnwise.text.renderer import PLAIN

TEMPLATES: dict[str, Any] = {
    "chatml": templates.byte_level(templates.CHATML, eos="<|im_end|>"),
    "chatml, another eos": templates.byte_level(templates.CHATML),
    "headers": templates.byte_level(templates.HEADERS, eos="<|eot|>", bos="<|bos|>", adds_bos=True),
    "brackets": templates.byte_level(templates.BRACKETS, eos="</s>", bos="<|bos|>", adds_bos=True),
}
RENDERERS = {name: Renderer(tokenizer) for name, tokenizer in TEMPLATES.items()}
PLAIN_RENDERERS = {
    "bytes": Renderer(templates.byte_level(None)),
    "bytes, bos": Renderer(templates.byte_level(None, bos="<|bos|>", adds_bos=True)),
    "pieces": Renderer(templates.sentence_pieces(None)),
}

# What a template may trim or a tokenizer may join to its neighbours is not the renderer's to keep.
words = st.text(st.characters(categories=["L", "N"], max_codepoint=0x2FF), min_size=1, max_size=8)
texts = st.lists(words, min_size=1, max_size=5).map(" ".join)
dialogues = st.lists(st.tuples(texts, texts), min_size=1, max_size=4)


def messages(dialogue: list[tuple[str, str]], system: str | None = None) -> list[dict[str, str]]:
    spoken = [{"role": "system", "content": system}] if system else []
    for obs, action in dialogue:
        spoken += [{"role": "user", "content": obs}, {"role": "assistant", "content": action}]
    return spoken


def deltas(renderer: Renderer, dialogue: list[tuple[str, str]]) -> list[np.ndarray[Any, Any]]:
    """The context before each action: first observation, action, delta, action …"""
    contexts: list[np.ndarray[Any, Any]] = []
    context = np.zeros(0, np.int32)
    for turn, (obs, action) in enumerate(dialogue):
        context = np.concatenate([context, renderer.following(obs) if turn else renderer.first(obs)])
        contexts.append(context)
        context = np.concatenate([context, renderer.action_ids(action)])
    return contexts


@pytest.mark.parametrize("name", RENDERERS)
@given(dialogue=dialogues)
def test_deltas_add_up_to_the_rendered_dialogue(name: str, dialogue: list[tuple[str, str]]) -> None:
    contexts = deltas(RENDERERS[name], dialogue)
    for k, context in enumerate(contexts):
        spoken = [*messages(dialogue[:k]), {"role": "user", "content": dialogue[k][0]}]
        text = TEMPLATES[name].apply_chat_template(spoken, tokenize=False, add_generation_prompt=True)
        assert context.tolist() == TEMPLATES[name].encode(text, add_special_tokens=False)
        assert k == 0 or context[: len(contexts[k - 1])].tolist() == contexts[k - 1].tolist()


@pytest.mark.parametrize("name", [*RENDERERS, *PLAIN_RENDERERS])
@given(text=texts)
def test_an_action_comes_back_as_its_text(name: str, text: str) -> None:
    renderer = (RENDERERS | PLAIN_RENDERERS)[name]
    ids = renderer.action_ids(text)
    assert int(ids[-1]) in renderer.stop
    assert not set(ids[:-1].tolist()) & renderer.stop
    assert renderer.action_text(ids) == text
    assert renderer.action_text(ids[:-1]) == text


@pytest.mark.parametrize("text", ["→ Tür öffnen", "走 north", "🚪🔑", "é", "a\tb", "line one\nline two", "x  y"])
@pytest.mark.parametrize("name", RENDERERS)
def test_unicode_survives(name: str, text: str) -> None:
    assert RENDERERS[name].action_text(RENDERERS[name].action_ids(text)) == text


@pytest.mark.parametrize(("name", "ends"), [
    ("chatml", {"<|im_end|>"}), ("chatml, another eos", {"<|im_end|>", "<|endoftext|>"}),
    ("headers", {"<|eot|>"}), ("brackets", {"</s>"}),
])  # fmt: skip
def test_what_ends_an_action(name: str, ends: set[str]) -> None:
    assert set(TEMPLATES[name].convert_ids_to_tokens(sorted(RENDERERS[name].stop))) == ends


def test_a_newline_ends_a_plain_action() -> None:
    assert set(PLAIN_RENDERERS["bytes"].tokenizer.convert_ids_to_tokens(sorted(PLAIN_RENDERERS["bytes"].stop))) == {
        "Ċ", "<|endoftext|>",
    }  # fmt: skip
    # A tokenizer that puts a blank before a lone newline must not make the blank the end of every action.
    pieces = PLAIN_RENDERERS["pieces"]
    assert set(pieces.tokenizer.convert_ids_to_tokens(sorted(pieces.stop))) == {"<0x0A>", "</s>"}


def test_plain_is_a_line_for_the_observation_and_one_for_the_action() -> None:
    renderer = PLAIN_RENDERERS["bytes"]
    context = np.concatenate([deltas(renderer, [("see a door", "open"), ("a key", "x")])[1]])
    assert renderer.text(context) == "see a door\n> open\na key\n>"


def test_plain_begins_as_the_tokenizer_begins_a_text() -> None:
    renderer = PLAIN_RENDERERS["bytes, bos"]
    bos = renderer.tokenizer.bos_token_id
    assert renderer.first("go")[0] == bos
    assert bos not in renderer.following("go")
    assert renderer.text(renderer.first("go")) == "<|bos|>go\n>"
    # A template that writes it itself does not get two.
    assert RENDERERS["headers"].first("go").tolist().count(TEMPLATES["headers"].bos_token_id) == 1


@pytest.mark.parametrize("name", [*RENDERERS, *PLAIN_RENDERERS])
def test_an_action_cut_short_is_closed(name: str) -> None:
    renderer = (RENDERERS | PLAIN_RENDERERS)[name]
    whole = renderer.action_ids("go north")
    stopped = np.concatenate([whole, renderer.following("a door")])
    cut = np.concatenate([whole[:-1], renderer.following("a door", Stop.LENGTH)])
    assert cut.tolist() == stopped.tolist()


def test_a_system_message_comes_first_and_once() -> None:
    tokenizer = TEMPLATES["chatml"]
    renderer = Renderer(tokenizer, system="be brief")
    dialogue = [("a", "b"), ("c", "d")]
    spoken = messages(dialogue, "be brief")[:-1]
    expected = tokenizer.apply_chat_template(spoken, tokenize=False, add_generation_prompt=True)
    assert renderer.text(deltas(renderer, dialogue)[1]) == expected


@pytest.mark.parametrize(
    ("template", "why"),
    [
        (templates.CLOSES_AT_END, "rewrites an earlier turn"),
        (templates.THINKS_FIRST, "generation prompt"),
        (templates.LAST_ONLY, "rewrites an earlier turn"),
        (
            templates.CHATML.replace("<|im_end|>", "{% if m.role == 'user' %} {{ m.content }}{% endif %}<|im_end|>"),
            "repeats",
        ),
        (templates.CHATML.replace("{{ m.content }}", "{{ m.content | upper }}"), "drops or rewrites"),
    ],
)
def test_templates_that_do_not_only_append_are_refused_with_the_remedy(template: str, why: str) -> None:
    with pytest.raises(RendererError, match=why) as caught:
        Renderer(templates.byte_level(template))
    assert "--template plain" in str(caught.value)
    assert Renderer(templates.byte_level(template), template=PLAIN).stop


def test_a_template_that_only_decorates_the_latest_answer_renders_the_past() -> None:
    tokenizer = templates.byte_level(templates.FORGETS_THINKING)
    renderer = Renderer(tokenizer)
    said = [
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": "north"},
        {"role": "user", "content": "on"},
    ]
    whole = tokenizer.apply_chat_template(said, add_generation_prompt=True, tokenize=False)
    deltas = np.concatenate([renderer.first("go"), renderer.action_ids("north"), renderer.following("on")])
    assert deltas.tolist() == tokenizer.encode(whole, add_special_tokens=False)
    assert renderer.stop >= {tokenizer.convert_tokens_to_ids("<|im_end|>")}


def test_a_refused_system_message_is_named() -> None:
    with pytest.raises(RendererError, match=r"system message first.*no system role"):
        Renderer(TEMPLATES["brackets"], system="be brief")


def test_a_tokenizer_that_joins_across_turns_is_refused() -> None:
    # Without a special token between turns, the blank before the next line belongs to its first word.
    joins = "{% for m in messages %}{{ m.role }}: {{ m.content }} {% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
    with pytest.raises(RendererError, match="prefix"):
        Renderer(templates.byte_level(joins))


def test_huge_texts_are_not_remembered() -> None:
    renderer = Renderer(templates.byte_level(None))
    before = renderer._encode_short.cache_info().currsize
    renderer.first("word " * 10_000)
    assert renderer._encode_short.cache_info().currsize == before
