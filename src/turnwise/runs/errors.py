"""What a run can tell its user when it cannot go on."""

from __future__ import annotations

from pathlib import Path

from turnwise.errors import TurnwiseError


class RunError(TurnwiseError):
    """A run folder, a record, a checkpoint or the disk under them is not what it should be."""


class Interrupted(TurnwiseError):  # noqa: N818 - the user asked for it; it is not an error
    """The user stopped the run. Everything up to `saved` is on disk; the command line exits with code 130.

    Attributes:
        path: The run folder.
        done: Iterations that were completed.
        saved: Iterations that a resumed run will find done.
    """

    def __init__(self, path: Path, done: int, saved: int, steps: int) -> None:
        self.path = path
        self.done = done
        self.saved = saved
        lost = f" ({done - saved} to be repeated: there was no time to save)" if done > saved else ""
        super().__init__(
            f"stopped after iteration {done} of {steps}; the run goes on from iteration {saved}{lost} with\n"
            f"  turnwise train --resume {path}"
        )
