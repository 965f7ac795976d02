"""Rendering a dialogue as token deltas, so that nothing sampled is ever tokenised again.

A context grows by ``first(obs)``, then sampled ids, then ``following(obs)``, then sampled ids, and so on. The
constant pieces around an observation are read off the tokenizer's chat template once, by rendering two dialogues of
dummy messages, one a prefix of the other. A template that rewrites earlier turns when later ones arrive
cannot be rendered this way and is refused with the remedy.

What this file leaves out: tools and images. An observation is text.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import jinja2
import numpy as np

from turnwise.episode import Ids, Stop
from turnwise.errors import TurnwiseError
from turnwise.text.conversation import Conversation

PLAIN = (
    "{% for message in messages %}{% if message.role == 'assistant' %}> {{ message.content }}\n"
    "{% else %}{{ message.content }}\n{% endif %}{% endfor %}{% if add_generation_prompt %}>{% endif %}"
)
"""The template for a tokenizer without one: observation, ``>``, action, a line each. The newline ends an action."""

RAW = "{% for message in messages %}{{ message.content }}{% endfor %}"
"""The template of a base model: texts with nothing between them. The tokenizer's EOS ends an action.

A text without anything before it begins with the tokenizer's BOS, else its EOS, because nothing would predict its first
token.
"""

_OWN = (PLAIN, RAW)

_USER = ("Xq0", "Xq1")
_ASSISTANT = "Yq0"

# Longer texts are rarely met twice, and remembering them would cost more memory than tokenising them again costs time.
_REMEMBERED = 2048
_REMEMBERED_IDS = 256


class RendererError(TurnwiseError):
    """The chat template cannot be rendered as token deltas."""


class Renderer:
    """Token deltas of a chat template.

    Args:
        tokenizer: A Hugging Face tokenizer.
        system: System message put before the first observation.
        template: A Jinja chat template; by default the tokenizer's own, else `PLAIN`.

    Attributes:
        stop: Ids that end an action. The one the template writes after an assistant message, and the tokenizer's EOS.

    Raises:
        RendererError: rendering k turns is not a prefix, in tokens, of rendering k + 1 turns.
    """

    def __init__(self, tokenizer: Any, *, system: str | None = None, template: str | None = None) -> None:
        self.tokenizer = tokenizer
        self.template = template or getattr(tokenizer, "chat_template", None) or PLAIN
        self.system = system
        self._encode_short = lru_cache(maxsize=65_536)(self._encode_uncached)
        self._decode = lru_cache(maxsize=65_536)(self._decode_uncached)
        self._spell_short = lru_cache(maxsize=65_536)(self._spell)
        self._read_template()

    def _render(self, messages: list[dict[str, str]], *, generate: bool) -> str:
        try:
            return self.tokenizer.apply_chat_template(
                messages, chat_template=self.template, tokenize=False, add_generation_prompt=generate
            )
        except jinja2.TemplateError as error:
            roles = ", ".join(message["role"] for message in messages[1:])
            what = f"a {messages[0]['role']} message first" + (f" ({roles} after it)" if roles else "")
            system = " or leave the system message out" if messages[0]["role"] == "system" else ""
            raise RendererError(
                f"the chat template cannot render {what}: {error}; pass another template (--template plain){system}"
            ) from error

    def _read_template(self) -> None:
        head = [{"role": "system", "content": self.system}] if self.system else []
        user = [{"role": "user", "content": text} for text in _USER]
        assistant = {"role": "assistant", "content": _ASSISTANT}
        first = self._render([*head, user[0]], generate=True)
        closed = self._render([*head, user[0], assistant], generate=False)
        second = self._render([*head, user[0], assistant, user[1]], generate=True)
        remedy = (
            "; multi-turn training needs a template that only appends: pass template=turnwise.text.renderer.PLAIN "
            "(--template plain) or edit tokenizer.chat_template"
        )
        if _USER[0] not in first or _ASSISTANT not in closed or _USER[1] not in second:
            raise RendererError("the chat template drops or rewrites message contents" + remedy)
        opened = second[: second.rindex(_ASSISTANT)] if _ASSISTANT in second else ""
        # A message reads here as it does in the past: some templates put an empty thinking block into the latest one only.
        closed = opened + closed[closed.rindex(_ASSISTANT) :]
        if not second.startswith(closed):
            raise RendererError("the chat template rewrites an earlier turn when the next one arrives" + remedy)
        if not opened.startswith(first) or opened[len(first) :].strip(" "):
            raise RendererError(
                f"the template's generation prompt ends with {first[-20:]!r} but a finished assistant message begins "
                f"after {opened[-20:]!r}" + remedy
            )
        self._lead = opened[len(first) :]
        self._first = first.split(_USER[0])
        self._between = second[len(closed) :].split(_USER[1])
        if len(self._first) != 2 or len(self._between) != 2:
            raise RendererError("the chat template repeats an observation" + remedy)
        tail = self._after_action(closed[closed.rindex(_ASSISTANT) + len(_ASSISTANT) :])
        eos = self.tokenizer.eos_token_id
        if not len(tail) and eos is None:
            if self.template == RAW:
                raise RendererError(
                    "the tokenizer has no EOS token, which is what ends an action where texts are joined with nothing "
                    "between them (--template raw); set tokenizer.eos_token, or use --template plain"
                )
            raise RendererError("neither the chat template nor the tokenizer says what ends an action" + remedy)
        self._end = int(tail[0]) if len(tail) else int(eos)
        self._tail = tail[1:]
        self.stop: frozenset[int] = frozenset([self._end] if eos is None else [self._end, int(eos)])
        self._prefix = self._beginning()
        begin = getattr(self.tokenizer, "bos_token_id", None)
        self._nothing: Ids = np.array([self._end if begin is None else begin], np.int32)
        deltas = np.concatenate([self.first(_USER[0]), self.action_ids(_ASSISTANT), self.following(_USER[1])])
        # Our own plain template is only ever rendered as deltas, so nobody can tokenise it in another way.
        if self.template not in _OWN and len(tail) and not np.array_equal(deltas, self._encode_uncached(second)):
            raise RendererError("the tokens of k rendered turns are not a prefix of the tokens of k + 1 turns" + remedy)

    def _beginning(self) -> Ids:
        """What a tokenizer puts before a plain text; a chat template writes it itself."""
        bos = getattr(self.tokenizer, "bos_token_id", None)
        if self.template not in _OWN or bos is None or self.tokenizer.encode(_USER[0])[:1] != [bos]:
            return np.zeros(0, np.int32)
        return np.array([bos], np.int32)

    def _after_action(self, text: str) -> Ids:
        """Ids of the template's `text` after an assistant message, as they are behind that message.

        Tokenised alone, some tokenizers put a blank in front, and a blank must not become what ends an action.
        """
        message, both = self._encode_uncached(_ASSISTANT), self._encode_uncached(_ASSISTANT + text)
        n = len(message)
        return both[n:] if np.array_equal(both[:n], message) else self._encode_uncached(text)

    def _encode(self, text: str) -> Ids:
        return self._encode_short(text) if len(text) <= _REMEMBERED else self._encode_uncached(text)

    def _encode_uncached(self, text: str) -> Ids:
        ids = np.asarray(self.tokenizer.encode(text, add_special_tokens=False), dtype=np.int32)
        ids.setflags(write=False)
        return ids

    def _decode_uncached(self, ids: bytes) -> str:
        return self.tokenizer.decode(np.frombuffer(ids, dtype=np.int32).tolist(), skip_special_tokens=True).strip()

    def first(self, obs: str) -> Ids:
        """Ids of a context that begins with the observation `obs` and ends where the action starts.

        The messages of a `Conversation` go through the chat template, with the renderer's system message in front unless
        it has one of its own.

        Raises:
            RendererError: the template cannot render the roles of a conversation, or leaves a message out.
        """
        if isinstance(obs, Conversation) and [m["role"] for m in obs.messages] != ["user"]:
            ids = self._encode(self._conversation(obs))
        else:
            ids = self._encode(self._first[0] + obs + self._first[1])
        ids = np.concatenate([self._prefix, ids]) if len(self._prefix) else ids
        return ids if len(ids) else self._nothing

    def _conversation(self, conversation: Conversation) -> str:
        head = [{"role": "system", "content": self.system}] if self.system and conversation.system is None else []
        messages = [*head, *conversation.messages]
        rendered = self._render(messages, generate=True)
        for message in messages:
            # What an assistant thought is left out of the past by some templates, and is meant to be.
            if message["role"] != "assistant" and message["content"].strip() not in rendered:
                raise RendererError(
                    f"the chat template leaves out or rewrites a {message['role']} message; pass another template "
                    "(--template plain), or put what it says into the user's message"
                )
        return rendered

    def following(self, obs: str, stop: Stop = Stop.STOP) -> Ids:
        """Ids to append after an action, so that the next one can be sampled.

        An action cut by its token budget is closed first; the closing tokens belong to the observation.
        """
        ids = self._encode(self._between[0] + obs + self._between[1])
        head = self._tail if stop is Stop.STOP else np.concatenate([[self._end], self._tail])
        return np.concatenate([head, ids]).astype(np.int32) if len(head) else ids

    def action_text(self, ids: Ids) -> str:
        """The text of a sampled action: stop token, special tokens and surrounding blanks removed."""
        if len(ids) and int(ids[-1]) in self.stop:
            ids = ids[:-1]
        array = np.ascontiguousarray(ids, dtype=np.int32)
        return (self._decode if len(array) <= _REMEMBERED_IDS else self._decode_uncached)(array.tobytes())

    def action_ids(self, text: str) -> Ids:
        """Ids of an action somebody else wrote, with the stop token, as the policy would have sampled it."""
        return np.append(self._encode(self._lead + text), np.int32(self._end)).astype(np.int32)

    def step_ids(self, steps: Sequence[str], separator: str) -> list[Ids]:
        """Ids of one action that is written in steps, for each step its own.

        `separator` stands at the end of each step but the last, which ends with the stop token. Together they are
        what ``action_ids`` makes of the joined text, up to how a tokenizer joins the letters around a separator.
        """
        texts = [self._lead + steps[0], *steps[1:]]
        ids = [self._encode(text + separator) for text in texts[:-1]]
        return [*ids, np.append(self._encode(texts[-1]), np.int32(self._end)).astype(np.int32)]

    def text(self, ids: Ids) -> str:
        """All the text of `ids`, special tokens included, for people."""
        array = np.ascontiguousarray(ids, dtype=np.int32)
        return (self._spell_short if len(array) <= _REMEMBERED_IDS else self._spell)(array.tobytes())

    def _spell(self, ids: bytes) -> str:
        return self.tokenizer.decode(np.frombuffer(ids, dtype=np.int32).tolist(), skip_special_tokens=False)
