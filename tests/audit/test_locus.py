"""Goal locus: (1) known answers, (2) Shapley's axioms and a textbook game, (3) what is struck out and what is said instead,
(4) intervals, (5) what cannot be split is declined."""

from __future__ import annotations

from functools import partial
from itertools import permutations

import gymnasium
import numpy as np
import pytest
from numpy.typing import NDArray

from turnwise.audit import Evidence, Measurement, NotMeasurable, Quantity, speaker
from turnwise.audit.locus import QUANTITIES, Restated, blanked, follows_the_prompt, goal_locus, shapley
from turnwise.audit.measure import bounded_interval
from turnwise.envs.errand import Errand
from turnwise.envs.text_env import Outcome, TextEnv
from turnwise.envs.toytext import make_toytext
from turnwise.envs.vault import Vault
from turnwise.testing import check_measure
from turnwise.text import Conversation


@pytest.mark.parametrize("quantity", QUANTITIES, ids=lambda q: q.name)
def test_known_answers(quantity: Quantity) -> None:
    check_measure(quantity.measure, quantity.controls())


def by_orders(values: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """Shapley values by their other definition: mean of what each adds over all orders of arrival."""
    found = np.zeros(n)
    orders = list(permutations(range(n)))
    for order in orders:
        here = [0] * n
        for i in order:
            before = values[tuple(here)]
            here[i] = 1
            found[i] += values[tuple(here)] - before
    return found / len(orders)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_shapley_is_the_mean_over_orders(n: int) -> None:
    values = np.random.default_rng(n).normal(size=(2,) * n)
    found = shapley(values, n)
    assert found == pytest.approx(by_orders(values, n))
    assert found.sum() == pytest.approx(values.flat[-1] - values.flat[0])


def test_shapley_of_the_glove_game() -> None:
    """One left glove, two right ones; a pair is worth 1: (2/3, 1/6, 1/6)."""
    values = np.zeros((2, 2, 2))
    values[1, 1, :] = values[1, :, 1] = 1.0
    assert shapley(values, 3) == pytest.approx([2 / 3, 1 / 6, 1 / 6])
    # Along further axes one by one.
    assert shapley(np.stack([values, 2 * values], -1), 3)[0] == pytest.approx([2 / 3, 4 / 3])


def test_the_goal_is_struck_out_of_every_observation() -> None:
    env, told = blanked(Errand()), Errand()
    seen, (full, info) = env.reset(seed=5)[0], told.reset(seed=5)
    assert full == f"{info['goal']} ; {seen}"
    for action in ("go east", "take red gem", "nonsense"):
        seen, full = env.step(action)[0], told.step(action)[0]
        assert full.replace(f"{info['goal']} ; ", "") == seen
        assert "bring" not in seen


def test_other_words_stand_in_the_goals_place() -> None:
    class Talks(gymnasium.Wrapper[str, str, str, str]):
        def reset(self, **arguments):  # type: ignore[override]
            seen, info = self.env.reset(**arguments)
            return Conversation([{"role": "system", "content": "be kind"}, {"role": "user", "content": seen}]), info

    env = Restated(Talks(Errand()), lambda seed, goal: goal.upper())
    seen, info = env.reset(seed=1)
    assert isinstance(seen, Conversation)
    assert seen.system == "be kind"
    assert seen.messages[1]["content"].startswith(info["goal"].upper())


class Coin(TextEnv):
    """Success by the seed, whatever is done."""

    def __init__(self, half: bool) -> None:
        super().__init__("coin", 1)
        self._half = half

    def begin(self, seed: int) -> str:
        return f"{self.goal()} ; ?"

    def goal(self) -> str:
        return "win"

    def act(self, text: str) -> Outcome:
        self._won = text == "try" and (not self._half or np.random.default_rng(self.seed).random() < 0.5)
        return Outcome("", 0.0, True)

    def metrics(self) -> dict[str, float]:
        return {"success": float(self._won)}


def test_a_part_that_is_sometimes_enough() -> None:
    tries, rests = speaker(lambda seen, own, seed: "try"), speaker(lambda seen, own, seed: "rest")
    found = goal_locus(Evidence(player=tries, base=rests, make_env=partial(Coin, True), plays=400))
    assert isinstance(found, Measurement)
    assert found.value == pytest.approx(0.5, abs=3 * 0.5 / 20)
    low, high = found.interval
    # A bootstrap of a mean of 400: 1.96 standard errors on either side.
    assert high - low == pytest.approx(2 * 1.96 * 0.5 / 20, rel=0.15)
    (curve,) = found.series
    assert curve.y[1:] == (0.0, 0.0)
    assert (curve.low[0], curve.high[0]) == found.interval
    assert sum(curve.y) == pytest.approx(found.value)


def test_what_cannot_be_split_is_declined() -> None:
    player = speaker(lambda seen, own, seed: "go east")
    for make, why in ((Vault, "goal"), (partial(make_toytext, "FrozenLake-v1"), None)):
        answer = goal_locus(Evidence(player=player, base=player, make_env=make, plays=2))
        if why is None:
            assert isinstance(answer, Measurement)
            assert answer.value == 0.0
        else:
            assert isinstance(answer, NotMeasurable)
            assert why in answer.why
    answer = goal_locus(Evidence(player=player, base=player, make_env=Errand, plays=2), figure="joy")
    assert isinstance(answer, NotMeasurable)
    assert "joy" in answer.why
    for quantity in QUANTITIES:
        assert isinstance(
            quantity.measure(Evidence(player=player, base=player, make_env=Errand, plays=0)), NotMeasurable
        )


def test_a_contradiction_of_ones_own() -> None:
    """Whoever pursues both goals, or neither, pursues neither more than the other."""
    measure = follows_the_prompt(lambda evidence: (lambda env: env, lambda episode: (True, episode.seed % 2 == 0)))
    found = measure(Evidence(player=speaker(lambda seen, own, seed: "x"), make_env=partial(Coin, False), plays=10))
    assert isinstance(found, Measurement)
    assert found.value == 0.5
    assert found.series[0].y == (0.5, 0.0)


def test_agreement_is_not_certainty() -> None:
    n = 20
    low, high = bounded_interval(np.ones(n), -1.0, 1.0, seed=0)
    assert high == 1.0
    # Were a share p of tasks −1, all twenty would be 1 with probability (1 − p)^20 = 0.025.
    p = (1.0 - low) / 2
    assert (1 - p) ** n == pytest.approx(0.025)
    mixed = np.array([0.0, 1.0] * 10)
    low, high = bounded_interval(mixed, -1.0, 1.0, seed=0)
    assert (low + high) / 2 == pytest.approx(0.5, abs=0.03)
    assert high - low == pytest.approx(2 * 1.96 * 0.5 / np.sqrt(n), rel=0.2)
