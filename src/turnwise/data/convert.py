"""Checked rows as what training takes: transcripts with labels for rewards, or prompts for an environment."""

from __future__ import annotations

from typing import Any

from turnwise.data.dataset import SEPARATOR, Dataset
from turnwise.data.problems import DataError
from turnwise.data.rows import Answer, Kind, Row
from turnwise.episode import Source, Transcript

_LABELLED = (Kind.PREFERENCE, Kind.UNPAIRED, Kind.STEPWISE)


def transcripts(dataset: Dataset, *, margins: bool = True) -> list[Transcript]:
    """The answers of a data set, to be tokenised by `turnwise.rollout.episodes_of`.

    Labels are rewards, paid by "label". Of a preference the chosen answer comes first, and its last turn is paid 1 (or
    the margin); the last turn of the rejected one is paid 0; they share a `group`. A label pays 1 or 0 at the last turn.
    The steps of an answer are turns with nothing between them, each paid 1 or 0. What carries no label is paid 0 by the
    environment. The seed is the place of the row among `Dataset.rows`.

    Args:
        dataset: Checked rows.
        margins: A preference's margin is what its chosen answer is paid. Without it 1 is: for methods that read a reward as
            the label of one answer, to which a small margin would say that the chosen answer is a bad one.

    Raises:
        DataError: the rows are prompts without answers.
    """
    if dataset.kind is Kind.PROMPT:
        raise DataError(f"{dataset.name} holds prompts without answers, so there is nothing to imitate or compare")
    return [
        _transcript(dataset, place, row, answer, margins)
        for place, row in enumerate(dataset.rows)
        for answer in row.answers
    ]


def _transcript(dataset: Dataset, place: int, row: Row, answer: Answer, margins: bool) -> Transcript:
    paid = answer.rewards
    if dataset.kind is Kind.PREFERENCE and not margins:
        paid = tuple(float(reward > 0) for reward in paid)
    return Transcript(
        observations=(row.prompt, *answer.observations),
        actions=answer.actions,
        rewards=paid,
        terminated=True,
        truncated=False,
        env="data",
        seed=place,
        source=Source.DATASET,
        group=f"{dataset.name}:{row.number}",
        pays="label" if dataset.kind in _LABELLED else "environment",
        separator=SEPARATOR if dataset.kind is Kind.STEPWISE else None,
    )


def prompts(dataset: Dataset) -> list[dict[str, Any]]:
    """The prompts of a data set with their other columns, as rows of `turnwise.envs.prompts.PromptEnv`.

    Every row has the same columns, None where it lacks one. A completion in one message stays as the column "completion".

    Raises:
        DataError: the rows have no prompts.
    """
    if dataset.kind is Kind.TEXT:
        raise DataError(f"{dataset.name} holds texts without prompts, so there is nothing to answer")
    names = dict.fromkeys(name for row in dataset.rows for name in row.columns)
    completed = dataset.kind is Kind.COMPLETION
    found = []
    for row in dataset.rows:
        columns = {name: row.columns.get(name) for name in names}
        if completed:
            columns["completion"] = "\n".join(row.answers[0].actions)
        found.append({**columns, "prompt": row.prompt})
    return found
