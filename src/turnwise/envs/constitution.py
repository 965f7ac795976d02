"""Critique and revision as a world: the first supervised stage of constitutional AI, seen as episodes.

Observation 1 is the prompt, and the action is a reply. Observation 2 asks for a critique of that reply by a principle that the seed
draws, and the action is the critique. Observation 3 asks for a revision, and the action is the revised reply. With more
rounds, the revision is criticised in turn, by another principle. Nobody is paid: what is learnt from is the last
action (`turnwise.rollout.distil`).

With a `critic`, somebody else writes the critiques, and the policy replies and revises.

Bai et al. 2022, arXiv 2212.08073, section 3.1.
"""

from __future__ import annotations

from collections.abc import Sequence

from turnwise.envs.errors import EnvError
from turnwise.envs.prompts import Row
from turnwise.envs.text_env import Outcome, TextEnv
from turnwise.text.principles import Principle, drawn, violations
from turnwise.text.procedure import Procedure, Request, Writer


class ConstitutionEnv(TextEnv):
    """One prompt, one reply, and its critique and revision by principles.

    The seed chooses the prompt, as in `PromptEnv`, and draws the principles.

    Args:
        rows: Prompts, or mappings with a column "prompt".
        principles: What replies are criticised by.
        procedure: The prompts of the procedure; those that come with turnwise by default.
        rounds: Critiques and revisions of one reply, each by another principle.
        critic: Who writes the critiques, where it is not the policy itself.
        name: Name in messages and records.

    Raises:
        EnvError: no rows, a row without a text in its column "prompt", no principle, or no round.
    """

    def __init__(
        self,
        rows: Sequence[str | Row],
        principles: Sequence[Principle],
        procedure: Procedure | None = None,
        *,
        rounds: int = 1,
        critic: Writer | None = None,
        name: str = "constitution",
    ) -> None:
        if rounds < 1:
            raise EnvError(f"environment {name!r}: rounds={rounds}: a reply needs at least one critique and revision")
        super().__init__(name, max_turns=1 + rounds * (2 if critic is None else 1))
        self.prompts: list[str] = []
        for number, row in enumerate(rows):
            prompt = row if isinstance(row, str) else row.get("prompt")
            if not isinstance(prompt, str):
                raise EnvError(f"environment {name!r}: row {number} has no text in column 'prompt'; rename the column")
            self.prompts.append(prompt)
        if not self.prompts:
            raise EnvError(f"environment {name!r} needs at least one prompt")
        if not principles:
            raise EnvError(f"environment {name!r} needs at least one principle")
        self.principles = tuple(principles)
        self.procedure = procedure or Procedure.read()
        self.rounds = rounds
        self.critic = critic
        self._left: list[Principle] = []
        self._first = ""
        self._reply = ""
        self._asked: Request | None = None

    @property
    def prompt(self) -> str:
        """The prompt of the running episode."""
        return self.prompts[self.seed % len(self.prompts)]

    def begin(self, seed: int) -> str:
        self._left = drawn(self.principles, seed, self.rounds)
        self._first = self._reply = ""
        self._asked = None
        return self.prompt

    def act(self, text: str) -> Outcome:
        if self._asked is not None and self._asked.kind == "critique":
            return self._ask_revision(text, "")
        if self._asked is None:
            self._first = text
        self._reply = text
        if not self._left:
            return Outcome("", 0.0, True)
        asked = self.procedure.critique_request(self.prompt, text, self._left.pop(0))
        if self.critic is None:
            self._asked = asked
            return Outcome(asked.text, 0.0)
        self._asked = asked
        critique = self.critic([asked])[0]
        return self._ask_revision(critique, f"{critique}\n\n" if critique.strip() else "")

    def _ask_revision(self, critique: str, said: str) -> Outcome:
        assert self._asked is not None
        principle = self._asked.principle
        self._asked = self.procedure.revision_request(self.prompt, self._reply, critique, principle)
        return Outcome(said + self._asked.text, 0.0)

    def metrics(self) -> dict[str, float]:
        """How many principles that can be checked the first reply and the last offend against."""
        return {
            "violations_before": float(len(violations(self.principles, self._first))),
            "violations_after": float(len(violations(self.principles, self._reply))),
        }
