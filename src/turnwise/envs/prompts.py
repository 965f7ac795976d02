"""A one-turn world over a list of prompts: what single-reply training is, seen as an environment.

The observation is the prompt, the action is the completion, a judge pays, and the episode ends. The seed chooses the
prompt: seed s asks row s modulo the number of rows, so that seeds 0 … n-1 ask each row once.

By name, rows come from data (`turnwise.data`): ``prompts?file=questions.jsonl&prompt=question``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from turnwise.envs.errors import EnvError, NotOffered
from turnwise.envs.text_env import Outcome, TextEnv

Row = Mapping[str, Any]
"""A prompt with its columns."""
Judge = Callable[[str, str, Row], float]
"""(prompt, completion, row) -> reward."""


class PromptEnv(TextEnv):
    """One prompt, one completion, one judgement.

    Held-out seeds ask the same rows: to measure on prompts that were not trained on, keep some back and evaluate in
    a second `PromptEnv` of those (``trained.evaluate(env=...)``).

    The expert says what the column "completion" of a row says, where there is one.

    Args:
        rows: Prompts, or mappings with a column "prompt" and any others that the judge reads. A prompt is a text, or a
            `turnwise.text.Conversation`.
        judge: Pays for a completion, given the prompt, the completion and the row. None pays 0: somebody else judges.
        name: Name in messages and records.

    Raises:
        EnvError: no rows, or a row without a text in its column "prompt".
    """

    def __init__(self, rows: Sequence[str | Row], judge: Judge | None = None, *, name: str = "prompts") -> None:
        super().__init__(name, max_turns=1)
        self.rows: list[Row] = [{"prompt": row} if isinstance(row, str) else row for row in rows]
        if not self.rows:
            raise EnvError(f"environment {name!r} needs at least one prompt")
        for number, row in enumerate(self.rows):
            if not isinstance(row.get("prompt"), str):
                raise EnvError(
                    f"environment {name!r}: row {number} has no text in column 'prompt' (columns {sorted(row)}); "
                    "rename the column, or make chat messages a turnwise.text.Conversation"
                )
        self.judge = judge
        self._score = 0.0

    @property
    def row(self) -> Row:
        """The row of the running episode."""
        return self.row_of(self.seed)

    def row_of(self, seed: int) -> Row:
        """The row that a seed asks, for reward functions that read its columns."""
        return self.rows[seed % len(self.rows)]

    def begin(self, seed: int) -> str:
        return self.row["prompt"]

    def act(self, text: str) -> Outcome:
        if self.judge is not None:
            self._score = float(self.judge(self.row["prompt"], text, self.row))
        return Outcome("", self._score, True)

    def metrics(self) -> dict[str, float]:
        return {} if self.judge is None else {"score": self._score}

    def optimal_action(self) -> str:
        """The row's column "completion".

        Raises:
            NotOffered: it has none.
        """
        known = self.row.get("completion")
        if not isinstance(known, str):
            raise NotOffered(f"environment {self.name!r} knows no answers; give its rows a column 'completion'")
        return known


class PromptFile:
    """Makes a `PromptEnv` of the prompts in a file, a folder of `datasets` or a hub id; nothing is paid.

    Bad rows are refused unless they are to be skipped. The file is read once, however many environments are made.
    """

    def __call__(
        self,
        *,
        file: str,
        split: str = "",
        kind: str = "",
        prompt: str = "prompt",
        skip_bad: bool = False,
        max_turns: int = 1,
    ) -> PromptEnv:
        """One environment.

        Args:
            file: Where the prompts are.
            split: Split of a data set.
            kind: What the rows hold; recognised by default.
            prompt: Name of the column that is the prompt.
            skip_bad: Leave bad rows out.
            max_turns: 1, a prompt having one reply.

        Raises:
            DataError: no such file, no prompts in it, or bad rows.
            EnvError: another number of turns.
        """
        if max_turns != 1:
            raise EnvError(f"environment 'prompts': max_turns={max_turns!r}, but a prompt has one reply; leave it out")
        return PromptEnv(_read(str(file), str(split), str(kind), str(prompt), bool(skip_bad)), name="prompts")

    def actions_for(self, options: Mapping[str, Any]) -> tuple[str, ...]:
        """The completions beside the prompts, each once: what is said here, for a vocabulary."""
        if "file" not in options:
            return ()
        said = (row.get("completion") for row in self(**options).rows)
        return tuple(dict.fromkeys(text for text in said if isinstance(text, str)))


def _read(file: str, split: str, kind: str, prompt: str, skip_bad: bool) -> list[dict[str, Any]]:
    """The rows; a file is read again only when it has changed."""
    path = Path(file).expanduser()
    written = path.stat().st_mtime_ns if path.is_file() else 0
    return _rows(file, split, kind, prompt, skip_bad, written)


@lru_cache(maxsize=4)
def _rows(file: str, split: str, kind: str, prompt: str, skip_bad: bool, written: int) -> list[dict[str, Any]]:
    from turnwise.data import load, prompts

    renamed = {} if prompt == "prompt" else {"prompt": prompt}
    return prompts(
        load(file, split=split, kind=kind or None, columns=renamed, learns_from="rollouts", skip_bad=skip_bad)
    )
