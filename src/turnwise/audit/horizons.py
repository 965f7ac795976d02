"""The three horizons of a run, in one unit: how far the reward, the update and the policy look ahead.

The unit is the turn, the present one included, so that one-step is 1 for each of them: a reward that is best served greedily,
an update whose rewards reach the paid action alone, a policy that does what pays most at once. The three come apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from turnwise.audit.evidence import Level
from turnwise.audit.measure import Measurement, NotMeasurable

REWARD = "reward/foresight"
"""Whose value is the horizon of the reward: the planner that acts as greed on the reward does."""

UPDATE = "credit/reach"
"""Whose value is one less than the horizon of the update: the turns *before* the paid one."""

POLICY = "horizon/policy"
"""Whose value is the horizon of the policy: the planner that explains its choices."""

Other = TypeVar("Other")
"""What a card may hold in place of a figure."""


@dataclass(frozen=True, slots=True)
class Horizons(Generic[Other]):
    """How far each of the three looks, in turns with the present one included; or why that is not known.

    Attributes:
        reward: Of the reward.
        update: Of the credit that the update assigns.
        policy: Of the policy's choices.
    """

    reward: Measurement | NotMeasurable | Other
    update: Measurement | NotMeasurable | Other
    policy: Measurement | NotMeasurable | Other

    @property
    def rows(self) -> tuple[tuple[str, Measurement | NotMeasurable | Other], ...]:
        """Whose horizon and the answer, in the order of the strip."""
        return ("reward", self.reward), ("update", self.update), ("policy", self.policy)

    @property
    def measured(self) -> bool:
        """There is at least one figure."""
        return any(isinstance(answer, Measurement) for _, answer in self.rows)


def horizons(answers: Mapping[str, Measurement | NotMeasurable | Other]) -> Horizons[Other]:
    """The strip, from what measures answered.

    Args:
        answers: Name of a quantity -> its figure, or what stands in its place.
    """

    def of(name: str, level: Level) -> Measurement | NotMeasurable | Other:
        return answers.get(name, NotMeasurable(name, level, "nobody measured it"))

    update = of(UPDATE, Level.L1)
    return Horizons(of(REWARD, Level.L4), _with_present(update), of(POLICY, Level.L4))


def _with_present(answer: Measurement | NotMeasurable | Other) -> Measurement | NotMeasurable | Other:
    if not isinstance(answer, Measurement):
        return answer
    low, high = answer.interval
    how = f"{answer.how}; the paid turn counted too"
    return replace(answer, value=answer.value + 1.0, interval=(low + 1.0, high + 1.0), how=how)
