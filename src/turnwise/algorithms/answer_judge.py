"""A judge of answers: a score that says how likely an answer is a good one, learnt from labels, at every length of the answer.

It is trained at each token of the answer and at the last one of the prompt, where nothing has been said yet. So what it says
at the end is a judgement, and what it says before is a forecast of it: a value function of the policy that wrote the data.

The figures of an iteration are taken before its update: on the first pass over the data they are those of unseen answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch

from turnwise.algorithms.experience import climb
from turnwise.algorithms.settings import check_settings
from turnwise.batch import Batch, pack
from turnwise.episode import Episode
from turnwise.errors import TurnwiseError
from turnwise.metrics import merge
from turnwise.objectives import sequence_mean
from turnwise.objectives.labels import answer_labels
from turnwise.runs import Improvement


@dataclass(frozen=True)
class AnswerJudge:
    """The probability of a good label, as logistic regression on what was read so far.

    Attributes:
        episodes: Labelled answers per iteration; the label is the episode's return, from 0 to 1.
        minibatch: Answers per optimizer step.
        learns_from: Labels; no hyperparameter.
        trains: What comes out loads as a reward model; no hyperparameter.
    """

    learns_from: ClassVar[str] = "labels"
    trains: ClassVar[str] = "reward-model"

    episodes: int = 64
    minibatch: int = 32

    def __post_init__(self) -> None:
        check_settings(self)

    def collect(self, source: Any, iteration: int) -> list[Episode]:
        """The next labelled answers."""
        return source.rollouts(iteration, self.episodes)

    def improve(self, learner: Any, episodes: list[Episode]) -> Improvement:
        """Raise the likelihood of the labels.

        Raises:
            TurnwiseError: a label that is not a share from 0 to 1.
        """
        usable = [episode for episode in episodes if episode.turns and not episode.failed]
        if not usable:
            return Improvement({})
        labels = np.array([episode.undiscounted_return for episode in usable])
        wrong = ~((labels >= 0) & (labels <= 1))
        if wrong.any():
            raise TurnwiseError(
                f"the label of group {usable[int(wrong.argmax())].group!r} is {labels[wrong][0]:g}; a judge learns from labels "
                "between 0 (bad) and 1 (good)"
            )
        batch = with_prompt_ends(pack(usable))
        owner = batch.seq["episode"][batch.sequence[batch.action]]
        batch = batch.with_stream("label", torch.from_numpy(labels).float()[owner])
        score = learner.evaluate(batch).score.numpy()
        places = np.split(score, np.flatnonzero(np.diff(owner.numpy())) + 1)
        good = labels > 0.5
        metrics = {
            "judge/accuracy": (
                float(sum((s[-1] > 0) == y for s, y in zip(places, good, strict=True))),
                float(len(good)),
            ),
            "judge/accuracy_before": (
                float(sum((s[0] > 0) == y for s, y in zip(places, good, strict=True))),
                float(len(good)),
            ),
        }
        steps = climb(
            learner, batch, answer_labels(), epochs=1, turns=self.minibatch, weights={"weight": sequence_mean}
        )
        return Improvement(merge([metrics, steps]))


def with_prompt_ends(batch: Batch) -> Batch:
    """The batch with the token before each action among the action tokens, for a model that scores: nothing was said yet.

    A policy cannot read such a batch, because nobody sampled those tokens.
    """
    starts = batch.turn_start
    before = torch.cat([starts[1:], starts.new_zeros(1)]) & ~batch.final
    return replace(batch, action=batch.action | before)


def prefix_scores(judge: Any, episodes: Sequence[Episode], max_tokens: int = 8192) -> list[np.ndarray[Any, Any]]:
    """Per episode (n + 1,) float64: the judge's score after 0, 1, …, n tokens of its one answer.

    Args:
        judge: A `turnwise.models.Scorer` of kind "reward".
        episodes: Of one turn each.
        max_tokens: Tokens that go through the judge at once.

    Raises:
        TurnwiseError: an episode of several turns, or of none.
    """
    from turnwise.learners.local import evaluate

    if any(len(episode.turns) != 1 for episode in episodes):
        raise TurnwiseError("how much of an answer was seen is counted in episodes of one answer each")
    if not episodes:
        return []
    with torch.no_grad():
        score = evaluate(judge, with_prompt_ends(pack(episodes)), max_tokens).score
    assert score is not None
    ends = np.cumsum([episode.n_action_tokens + 1 for episode in episodes])
    return np.split(score.double().numpy(), ends[:-1])
