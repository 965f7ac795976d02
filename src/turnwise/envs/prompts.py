"""A one-turn world over a list of prompts: what single-reply training is, seen as an environment.

The observation is the prompt, the action is the completion, a judge pays, and the episode ends. The seed chooses the
prompt: seed s asks row s modulo the number of rows, so that seeds 0 … n-1 ask each row once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from turnwise.envs.errors import EnvError
from turnwise.envs.text_env import Outcome, TextEnv

Row = Mapping[str, Any]
"""A prompt with its columns."""
Judge = Callable[[str, str, Row], float]
"""(prompt, completion, row) -> reward."""


class PromptEnv(TextEnv):
    """One prompt, one completion, one judgement.

    Held-out seeds ask the same rows: to measure on prompts that were not trained on, keep some back and evaluate in
    a second `PromptEnv` of those (``trained.evaluate(env=...)``).

    Args:
        rows: Prompts, or mappings with a column "prompt" and any others that the judge reads.
        judge: Pays for a completion, given the prompt, the completion and the row.
        name: Name in messages and records.

    Raises:
        EnvError: no rows, or a row without a text in its column "prompt".
    """

    def __init__(self, rows: Sequence[str | Row], judge: Judge, *, name: str = "prompts") -> None:
        super().__init__(name, max_turns=1)
        self.rows: list[Row] = [{"prompt": row} if isinstance(row, str) else row for row in rows]
        if not self.rows:
            raise EnvError(f"environment {name!r} needs at least one prompt")
        for number, row in enumerate(self.rows):
            if not isinstance(row.get("prompt"), str):
                raise EnvError(
                    f"environment {name!r}: row {number} has no text in column 'prompt' (columns {sorted(row)}); "
                    "rename the column, or render a conversation to text first"
                )
        self.judge = judge
        self._score = 0.0

    @property
    def row(self) -> Row:
        """The row of the running episode."""
        return self.rows[self.seed % len(self.rows)]

    def begin(self, seed: int) -> str:
        return self.row["prompt"]

    def act(self, text: str) -> Outcome:
        self._score = float(self.judge(self.row["prompt"], text, self.row))
        return Outcome("", self._score, True)

    def metrics(self) -> dict[str, float]:
        return {"score": self._score}
