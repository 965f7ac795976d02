"""The file of a run: what is trained on, what is held out, and the one-turn world over its prompts."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from turnwise.envs.registry import EnvSpec
from turnwise.episode import Transcript
from turnwise.errors import TurnwiseError
from turnwise.recipes import sources
from turnwise.recipes.settings import Training

if TYPE_CHECKING:
    from turnwise.data import Dataset

log = logging.getLogger(__name__)

NONE_HELD_OUT = (
    "no rows were held out, so these are figures on rows that were trained on; train with --held-out 0.1, or evaluate on another "
    "file with --data FILE"
)
"""What an evaluation on all rows is warned with."""


@dataclass(frozen=True)
class Split:
    """A data set in two parts that share no prompt.

    Attributes:
        training: Rows to train on.
        held_out: Rows that no run trains on; which ones depends on the prompts alone, so all runs keep the same.
    """

    training: Dataset
    held_out: Dataset


@dataclass(frozen=True)
class Prompts:
    """Makes the world that asks the prompts of a data set, in any process.

    Attributes:
        rows: Prompts to train on, with their columns.
        others: Those held out.
    """

    rows: tuple[dict[str, Any], ...]
    others: tuple[dict[str, Any], ...]

    def __call__(self) -> Any:
        """The world of a run; where all prompts are held out, of them."""
        return self._world(self.rows or self.others)

    def held_out(self) -> Any:
        """The world of an evaluation: the held-out prompts, or all of them where none were held out."""
        return self._world(self.others or self.rows)

    def evaluated(self) -> Callable[[], Any]:
        """What makes the world of an evaluation; warns if its prompts were trained on.

        Raises:
            TurnwiseError: there are no prompts.
        """
        self.held_out()
        if not self.others:
            log.warning(NONE_HELD_OUT)
        return self.held_out

    def asked(self, *, held_out: bool) -> Sequence[dict[str, Any]]:
        """The rows of one of the two worlds; seed s asks row s modulo their number."""
        return (self.others or self.rows) if held_out else self.rows

    def _world(self, rows: tuple[dict[str, Any], ...]) -> Any:
        from turnwise.envs.prompts import PromptEnv

        if not rows:
            raise TurnwiseError("the file holds texts without prompts, so there is nothing to answer")

        return PromptEnv(rows)


def read(training: Training) -> Split:
    """The run's file, checked and split.

    Raises:
        TurnwiseError: there is no such file, it holds another kind of data than the method learns from, or rows of it are
            bad.
    """
    from turnwise.data import check_kind

    parts = _read(training.data, _written(training))
    check_kind(parts.training.name, parts.training.kind, sources.learns_from(training))
    return parts


def _written(training: Training) -> int:
    """When the file was written, so that one that has been mended is read again."""
    path = Path(training.data.data)
    return path.stat().st_mtime_ns if path.exists() else 0


@lru_cache(maxsize=4)
def _read(settings: Any, changed: int) -> Split:
    from turnwise.data import load, renames

    kind = None if settings.kind == "auto" else settings.kind
    dataset = load(
        settings.data,
        kind=kind,
        columns=renames([settings.columns]),
        split=settings.split,
        skip_bad=settings.skip_bad,
    )
    if dataset.skipped:
        log.warning("skipped %d bad rows of %s; %d are left", dataset.skipped, dataset.name, len(dataset))
    for note in dataset.notes:
        log.warning("%s: %s", dataset.name, note)
    return split(dataset, settings.held_out)


def split(dataset: Dataset, share: float) -> Split:
    """Hold out about this share of the prompts, with all their rows.

    Raises:
        TurnwiseError: a share that leaves nothing on one side.
    """
    if share in (0, 1):
        none = dataclasses.replace(dataset, rows=())
        return Split(none, dataset) if share else Split(dataset, none)
    prompts = sorted({_prompt(row) for row in dataset.rows}, key=lambda text: sha256(text.encode()).digest())
    n = round(share * len(prompts))
    if not 0 < n < len(prompts):
        raise TurnwiseError(
            f"held_out={share:g} of the {len(prompts)} different prompts of {dataset.name} leaves nothing on one side; "
            "choose another share, or bring more data"
        )
    kept = set(prompts[:n])
    rows = [[row for row in dataset.rows if (_prompt(row) in kept) is out] for out in (False, True)]
    return Split(*(dataclasses.replace(dataset, rows=tuple(part)) for part in rows))


def _prompt(row: Any) -> str:
    """What a row asks; of a text without a prompt, the text."""
    return str(row.prompt) or row.answers[0].actions[0]


def training_transcripts(training: Training) -> list[Transcript]:
    """What the method imitates or compares."""
    return answers_of(training, read(training).training)


def fitting(training: Training, model: Any) -> list[Transcript]:
    """Those rows that the model can read.

    Raises:
        TurnwiseError: rows are too long and `skip_bad` was not asked for; the first of them are named.
    """
    return answers_of(training, _that_fit(read(training).training, training, model, room=0))


def answers_of(training: Training, dataset: Dataset) -> list[Transcript]:
    """The answers of a data set with the labels that the method reads: of a preference, single labels know no margin."""
    from turnwise.data import transcripts

    return transcripts(dataset, margins=sources.learns_from(training) != "labels")


def fitting_world(training: Training, model: Any) -> EnvSpec:
    """The world over those prompts that leave room for a reply.

    Raises:
        TurnwiseError: prompts are too long and `skip_bad` was not asked for.
    """
    parts = read(training)
    room = training.world.max_tokens
    return _world(*(_that_fit(part, training, model, room) for part in (parts.training, parts.held_out)))


def prompt_world(training: Training) -> EnvSpec:
    """The one-turn world over the prompts of the run's file, whatever else it holds; the seed chooses the prompt."""
    parts = _read(training.data, _written(training))
    return _world(parts.training, parts.held_out)


def judge_held_out(training: Training, scorer: Any, rows: int) -> Any:
    """How a model that scores does on held-out rows; on all rows where none were held out.

    Raises:
        TurnwiseError: the file cannot be read any more.
    """
    from turnwise.algorithms import ProcessRewardModel
    from turnwise.runs.scoring import evaluate_preferences, evaluate_steps

    if sources.learns_from(training) == "rollouts":
        from turnwise.recipes import steps

        return evaluate_steps(scorer, steps.held_out_answers(training, sources.resolve_env(training, None), rows))
    parts = read(training)
    if not len(parts.held_out):
        log.warning(NONE_HELD_OUT)
    chosen = parts.held_out if len(parts.held_out) else parts.training
    chosen = dataclasses.replace(chosen, rows=chosen.rows[:rows])
    episodes = sources.stored_episodes(training, scorer, answers_of(training, chosen))
    evaluate = evaluate_steps if isinstance(training.algorithm, ProcessRewardModel) else evaluate_preferences
    return evaluate(scorer, episodes)


def _world(training: Dataset, held_out: Dataset) -> EnvSpec:
    from turnwise.data import Kind, prompts

    asked = training.kind is not Kind.TEXT
    make = Prompts(*(tuple(prompts(part)) if asked and len(part) else () for part in (training, held_out)))
    answers = tuple(
        dict.fromkeys(action for row in training.rows for answer in row.answers for action in answer.actions)
    )
    kept = f", {len(make.others):,} held out" if make.rows and make.others else ""
    return EnvSpec(
        sources.PROMPTS,
        make,
        f"{len(make.rows) or len(make.others):,} prompts of {training.name}{kept}",
        1,
        answers,
        "sparse",
        inline=True,
    )


def _that_fit(dataset: Dataset, training: Training, model: Any, room: int) -> Dataset:
    from turnwise.data import Problem, lengths
    from turnwise.data.problems import refusal

    limit = min(training.data.max_length or model.context_limit, model.context_limit)
    good, bad = [], []
    for row in dataset.rows:
        prompt, answers = lengths(row, model.renderer)
        needed = prompt + (room or max(answers, default=1))
        if needed <= limit:
            good.append(row)
        else:
            of = f"a reply of up to {room}" if room else f"{needed - prompt:,} of the answer"
            bad.append(
                Problem(
                    f"{dataset.unit} {row.number}",
                    "over length",
                    f"{prompt:,} tokens of the prompt and {of}, more than {limit:,}: shorten it, or take a model that reads more",
                )
            )
    if bad and (not training.data.skip_bad or not good):
        raise refusal(dataset.name, bad, len(good))
    if bad:
        log.warning(
            "skipped %d rows of %s that are longer than %d tokens; %d are left",
            len(bad),
            dataset.name,
            limit,
            len(good),
        )
    return dataclasses.replace(dataset, rows=tuple(good))
