"""Constitutional AI: learn from one's own replies, mended by principles; then from which of two keeps to them better.

The first iterations collect dialogues of reply, critique and revision, and imitate the revisions as answers to the prompt
alone. The later ones collect groups of replies that the same principles judge, and learn by online DPO, measured
from the policy as the first phase left it. Both are points of the one loop; the source offers both worlds
(`turnwise.rollout.constitution.Constitution`).

PPO with a preference model in place of DPO is this method with `revisions` iterations, followed by `ppo` on the stored model.

Bai et al. 2022, arXiv 2212.08073.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, ClassVar

from turnwise.algorithms.dpo import DPO
from turnwise.algorithms.experience import climb
from turnwise.algorithms.settings import check_settings
from turnwise.batch import pack
from turnwise.episode import Episode
from turnwise.metrics import merge
from turnwise.objectives import nll, token_mean
from turnwise.rollout.constitution import complete, distil
from turnwise.runs import Improvement

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Constitutional:
    """Critique, revision and imitation, then preferences by the same principles.

    Attributes:
        revisions: Iterations that imitate revisions; all later ones learn from preferences. 0 begins with those.
        episodes: Dialogues per iteration of the first phase.
        epochs: Passes over the revisions of an iteration.
        groups: Prompts per iteration of the second phase.
        group_size: Replies to each, of which the best and the worst form a pair.
        beta: Price of leaving the policy that the first phase ended with, in reward per nat.
        minibatch: Revisions, or pairs, per optimizer step.
        needs_reference: The second phase compares with a frozen policy; no hyperparameter.
        needs_principles: The run has to name a file of principles; no hyperparameter.
    """

    revisions: int = 4
    episodes: int = 64
    epochs: int = 1
    groups: int = 64
    group_size: int = 4
    beta: float = 0.1
    minibatch: int = 8
    needs_reference: ClassVar[bool] = True
    needs_principles: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_settings(self)

    @property
    def preferences(self) -> DPO:
        """The method of the second phase."""
        return DPO(
            beta=self.beta, groups=self.groups, group_size=self.group_size, minibatch=self.minibatch, online=True
        )

    def collect(self, source: Any, iteration: int) -> list[Episode]:
        """Dialogues, or groups of judged replies."""
        if iteration < self.revisions:
            return source.revisions(iteration, self.episodes)
        return self.preferences.collect(source, iteration)

    def improve(self, learner: Any, episodes: list[Episode]) -> Improvement:
        """Imitate the revisions, or learn from the preferences."""
        if learner.iteration < self.revisions:
            return self._imitate(learner, episodes)
        if learner.iteration == self.revisions > 0:
            learner.refresh_reference()
        return self.preferences.improve(learner, episodes)

    def _imitate(self, learner: Any, episodes: list[Episode]) -> Improvement:
        whole = [episode for episode in episodes if episode.turns and not episode.failed]
        revised = distil(whole)
        metrics: dict[str, tuple[float, float]] = {"revisions/complete": (float(len(revised)), float(len(whole)))}
        if not revised:
            log.warning(
                "no update: none of the %d dialogues got to its revision; look at their `cut` and at what the critic writes",
                len(episodes),
            )
            return Improvement(metrics)
        changed = sum(not _same(episode) for episode in whole if complete(episode))
        metrics["revisions/changed"] = (float(changed), float(len(revised)))
        steps = climb(
            learner, pack(revised), nll(), epochs=self.epochs, turns=self.minibatch, weights={"weight": token_mean}
        )
        return Improvement(merge([metrics, steps]))


def _same(dialogue: Episode) -> bool:
    """The revision is the reply, token by token."""
    return dialogue.turns[0].act.tolist() == dialogue.turns[-1].act.tolist()
