"""The prompts of the procedure: how one asks for a critique and for a revision. They are text files that a user can edit.

Both are asked for in the dialogue that the reply belongs to, so they need not repeat it. They may have the gaps
``{principle}``, ``{prompt}`` and ``{reply}``, and the revision ``{critique}``. Comparisons are asked by
`turnwise.teachers.JudgeTeacher`, which has a template of its own.

Bai et al. 2022, "Constitutional AI: Harmlessness from AI Feedback", arXiv 2212.08073. The wording is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from turnwise.text.conversation import Conversation
from turnwise.text.principles import Principle
from turnwise.text.template import check_template, fill, read_template

GAPS = ("principle", "prompt", "reply", "critique")
"""The gaps that the prompts may have; the critique's cannot have the last."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a writer is asked for.

    Attributes:
        kind: A critique of the reply, or a revision of it.
        principle: By which principle.
        prompt: What was asked first.
        reply: What is criticised or revised.
        critique: What was said against it; empty where the critique is what is asked for.
        text: The request in words.
    """

    kind: Literal["critique", "revision"]
    principle: Principle
    prompt: str
    reply: str
    critique: str
    text: str

    @property
    def messages(self) -> list[dict[str, str]]:
        """The dialogue up to the request, as chat messages; a critique stands in it as said by the one who revises."""
        prompt = self.prompt
        asked = list(prompt.messages) if isinstance(prompt, Conversation) else [_message("user", prompt)]
        said = [*asked, _message("assistant", self.reply)]
        if not self.critique:
            return [*said, _message("user", self.text)]
        return [*said, _message("user", f"{self.critique}\n\n{self.text}")]


Writer = Callable[[list[Request]], Sequence[str]]
"""Whoever writes critiques or revisions other than the policy: requests -> a text for each, in order; an empty one for none.

All that are open come in one call, so that a writer may batch them.
"""


def by_rule(requests: list[Request]) -> list[str]:
    """A writer that knows the checkable forms: it names what offends, and applies the stated rewrite.

    A principle without a checkable form it lets pass.
    """
    return [_by_rule(request) for request in requests]


def _by_rule(request: Request) -> str:
    check = request.principle.check
    if request.kind == "revision":
        return request.reply if check is None else check.rewrite(request.reply)
    offence = "" if check is None else check.offence(request.reply)
    return f"The reply goes against the principle: {offence}." if offence else "The reply keeps to the principle."


@dataclass(frozen=True)
class Procedure:
    """The prompts.

    Attributes:
        critique: Asks what is wrong with a reply; has to have the gap ``{principle}``.
        revision: Asks to write it again.

    Raises:
        TemplateError: a gap that nobody fills, or one that is missing.
    """

    critique: str
    revision: str

    def __post_init__(self) -> None:
        check_template(self.critique, ["principle"], GAPS[:3], "the prompt for critiques")
        check_template(self.revision, [], GAPS, "the prompt for revisions")

    @classmethod
    def read(cls, folder: str | Path | None = None) -> Procedure:
        """The prompts in ``critique.txt`` and ``revision.txt`` of a folder.

        Args:
            folder: Where to look; a file that is not there is taken from those that come with turnwise, as both are without
                a folder.

        Raises:
            TemplateError: a file that cannot be read, or a prompt that cannot be used.
        """
        own = {name: Path(folder) / f"{name}.txt" for name in ("critique", "revision")} if folder is not None else {}
        texts = {
            name: read_template(
                own[name] if name in own and own[name].exists() else None, "turnwise.text", f"{name}.txt"
            )
            for name in ("critique", "revision")
        }
        return cls(**{name: text.strip() for name, text in texts.items()})

    def critique_request(self, prompt: str, reply: str, principle: Principle) -> Request:
        """Ask for a critique."""
        text = fill(self.critique, {"principle": principle.text, "prompt": prompt, "reply": reply})
        return Request("critique", principle, prompt, reply, "", text)

    def revision_request(self, prompt: str, reply: str, critique: str, principle: Principle) -> Request:
        """Ask for a revision."""
        fields = {"principle": principle.text, "prompt": prompt, "reply": reply, "critique": critique}
        return Request("revision", principle, prompt, reply, critique, fill(self.revision, fields))


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}
