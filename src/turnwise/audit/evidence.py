"""What an audit may look at, from a bare configuration to the world itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from turnwise.episode import Episode, Source
from turnwise.runs import RunError, RunFolder, read_episodes, read_metrics, read_streams

if TYPE_CHECKING:
    from turnwise.audit.player import Player
    from turnwise.envs.exact import Tabular
    from turnwise.models import Policy


Advantages = Callable[[Sequence[Episode]], Sequence[NDArray[np.float64]]]
"""Episodes -> for each one (n_turns,) or (n_action_tokens,) advantages, as an algorithm computes them from the rewards."""


class Level(IntEnum):
    """How much there is to look at; each level includes those below."""

    L0 = 0
    """The configuration."""
    L1 = 1
    """Episodes with their rewards."""
    L2 = 2
    """Log-probabilities and the versions of the weights that sampled and that were trained."""
    L3 = 3
    """The policy, and its environment to act in."""
    L4 = 4
    """A second policy to compare with, and an exact view of the environment."""


@dataclass(frozen=True, slots=True)
class Iteration:
    """The episodes of one update.

    Attributes:
        episodes: What the update learnt from.
        version: Version of the weights that the update began from; None where nobody recorded it.
        number: Number of the iteration in its run, from 1; None where nobody recorded it.
        advantages: For each episode (n_turns,) what the algorithm thought of its turns, NaN or nothing of those it left
            out; empty where nobody recorded it.
    """

    episodes: tuple[Episode, ...]
    version: int | None = None
    number: int | None = None
    advantages: tuple[NDArray[np.float64], ...] = field(default=(), compare=False)

    @property
    def trained(self) -> list[Episode]:
        """Those that can have trained: with a turn, and not broken by the environment."""
        return [episode for episode in self.episodes if episode.turns and not episode.failed]


@dataclass(frozen=True)
class Evidence:
    """What there is to look at. Whatever is left out, a measure that needs it says so.

    Attributes:
        config: L0: the settings of the run.
        iterations: L1, and L2 where they know the version: episodes by update, in order.
        policy: L3: the policy.
        make_env: L3: makes its environment.
        other: L4: a second policy.
        tabular: L4: the environment as a table.
        player: L3: the policy as somebody who plays environments; see `turnwise.audit.player`.
        base: L4: the policy before it was trained, likewise.
        scaffold: L4: puts the run's scaffold (a loop that repeats the goal, hints, checks) around its environment.
        advantages: The code that assigned credit in the run; see `turnwise.audit.credit_reach`.
        metrics: L0: the lines of the run's metrics, in order, without figures that are not finite.
        evaluation: L0: the run's last evaluation, as it was stored.
        signal: L4: the reward as it is given, (S, A) or (H, S, A) expected payment for each action in the states of
            `tabular`; None where it is that of the table itself.
        unit: What `Turn.act` counts: "tokens", or "words" in records of others that hold no tokens.
        ids: What `Turn.obs` and `Turn.act` hold are token ids; else they stand for as many tokens or words, and mean nothing.
        gaps: What of the record could not be read, and why.
        plays: Episodes that a measure may play for each of its figures.
        seed: Of all random choices of a measure.
    """

    config: Mapping[str, Any] | None = None
    iterations: Sequence[Iteration] = ()
    policy: Policy | None = None
    make_env: Callable[[], Any] | None = None
    other: Policy | None = None
    tabular: Tabular | None = None
    player: Player | None = None
    base: Player | None = None
    scaffold: Callable[[Any], Any] | None = None
    advantages: Advantages | None = None
    metrics: Sequence[Mapping[str, float]] = ()
    evaluation: Mapping[str, Any] | None = None
    signal: NDArray[np.float64] | None = None
    unit: Literal["tokens", "words"] = "tokens"
    ids: bool = True
    gaps: tuple[str, ...] = ()
    plays: int = 64
    seed: int = 0

    @property
    def settings(self) -> Mapping[str, Any]:
        """The settings of the training by part (algorithm, feedback, data …); empty where nobody recorded them."""
        config = self.config or {}
        training = config.get("training", config)
        return training if isinstance(training, Mapping) else {}

    @property
    def episodes(self) -> list[Episode]:
        """All episodes that can have trained."""
        return [episode for iteration in self.iterations for episode in iteration.trained]


def evidence_of(folder: str | Path) -> Evidence:
    """The evidence in a run folder: its configuration, its metrics and its record of episodes (L0 to L2).

    The version that an update began from is the one that the driver wrote into the metrics. Where it did not, in
    older runs, it is inferred: a run refreshes its source before every iteration, so the newest version that
    sampled is the one the update began from, and it rises from one iteration to the next. Where it does not, the episodes
    come from somewhere else and the version of the update is unknown.

    What cannot be read (a file that was cut off, or is of another version) is left out and named in `Evidence.gaps`.

    Raises:
        RunError: no run there.
    """
    run = RunFolder.view(folder)
    gaps: list[str] = []
    lines = _lines(run, gaps)
    recorded = {int(line["iteration"]): line for line in lines}
    iterations: list[Iteration] = []
    newest = -1
    for number in run.recorded():
        try:
            episodes = tuple(read_episodes(run.episodes(number)))
            advantages = tuple(read_streams(run.episodes(number)).get("advantage", ()))
        except RunError as error:
            gaps.append(str(error))
            continue
        versions = [turn.version for e in episodes if e.source is Source.POLICY for turn in e.turns]
        sampled = max(versions, default=-1)
        told = recorded.get(number, {}).get("learner/version")
        version = int(told) if told is not None else sampled if sampled > newest else None
        iterations.append(Iteration(episodes, version, number, advantages))
        newest = max(newest, sampled)
    return Evidence(
        config=run.config,
        iterations=tuple(iterations),
        metrics=tuple(lines),
        evaluation=_evaluation(run, gaps),
        gaps=tuple(gaps),
    )


def _lines(run: RunFolder, gaps: list[str]) -> list[dict[str, float]]:
    """The metrics; none where they are damaged."""
    try:
        lines = read_metrics(run.metrics)
    except RunError as error:
        gaps.append(str(error))
        return []
    return [{name: float(v) for name, v in line.items() if isinstance(v, int | float)} for line in lines]


def _evaluation(run: RunFolder, gaps: list[str]) -> Mapping[str, Any] | None:
    """The stored evaluation; None where there is none."""
    if not run.evaluation.exists():
        return None
    try:
        found = json.loads(run.evaluation.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        gaps.append(f"{run.evaluation} is damaged; evaluate the run again")
        return None
    return found if isinstance(found, dict) else None
