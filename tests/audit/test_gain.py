"""Closed-loop gain: (1) known answers, (2) the exact value by enumeration in a slippery world, (3) the interval holds it as
often as it says, (4) real worlds: one that never slips, one that does, one with an option for noise, (5) depth counts what
could still be acted on, (6) what cannot be replayed is declined."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from turnwise.audit import Evidence, Iteration, Measurement, NotMeasurable, Quantity, speaker, table_player
from turnwise.audit.gain import QUANTITIES, Blanked, closed_loop_gain, feedback_worth, interaction_depth
from turnwise.audit.players import state_index
from turnwise.envs import errand
from turnwise.envs.errand import Errand
from turnwise.envs.exact import Tabular, from_transitions, optimal_policy, policy_values
from turnwise.envs.table_env import TableEnv
from turnwise.envs.text_env import Outcome, TextEnv
from turnwise.envs.toytext import make_toytext
from turnwise.envs.vault import Vault
from turnwise.envs.vault import tabular as vault_table
from turnwise.testing import build_episode, check_measure


@pytest.mark.parametrize("quantity", QUANTITIES, ids=lambda q: q.name)
def test_known_answers(quantity: Quantity) -> None:
    check_measure(quantity.measure, quantity.controls())


def figure(answer: Measurement | NotMeasurable) -> Measurement:
    assert isinstance(answer, Measurement), answer
    return answer


def corridor(slip: float, turns: int = 5) -> Tabular:
    """Four rooms in a ring, the agent in room 0; being told to wait in room 2 pays 1 and ends it. A step slips the other way."""
    steps = {"east": 1, "west": -1}
    transitions = [
        [
            [(1 - slip, (s + steps[a]) % 4, 0.0, False), (slip, (s - steps[a]) % 4, 0.0, False)]
            if a in steps
            else [(1.0, s, float(s == 2), s == 2)]
            for a in ("east", "west", "wait")
        ]
        for s in range(4)
    ]
    return from_transitions(transitions, [1.0, 0.0, 0.0, 0.0], turns, ("east", "west", "wait"))


def exact_gain(world: Tabular, policy: NDArray[Any]) -> float:
    """J(live) by dynamic programming, minus J(yoked) by enumeration of all action sequences of the live policy."""
    horizon = world.horizon

    def live(t: int, s: int, taken: tuple[int, ...]) -> dict[tuple[int, ...], float]:
        """Action sequence -> probability."""
        if t == horizon:
            return {taken: 1.0}
        a = int(policy[t, s])
        found: dict[tuple[int, ...], float] = {}
        for k, p in enumerate(world.probability[s, a]):
            if p == 0:
                continue
            after = (
                {(*taken, a): 1.0} if world.ended[s, a, k] else live(t + 1, int(world.successor[s, a, k]), (*taken, a))
            )
            for sequence, q in after.items():
                found[sequence] = found.get(sequence, 0.0) + p * q
        return found

    def blind(sequence: tuple[int, ...]) -> float:
        whole = [*sequence, *[sequence[-1]] * (horizon - len(sequence))]
        scripted = np.array([[a] * world.n_states for a in whole])
        return float(policy_values(world, scripted)[0, 0])

    yoked = sum(p * blind(sequence) for sequence, p in live(0, 0, ()).items())
    return float(policy_values(world, policy)[0, 0]) - yoked


@pytest.mark.parametrize("slip", [0.0, 0.1, 0.3])
def test_the_gain_is_that_of_enumeration(slip: float) -> None:
    world = corridor(slip)
    plan = optimal_policy(world, discount=1 - 1e-6)
    truth = exact_gain(world, plan)
    evidence = Evidence(player=table_player(plan, world.actions), make_env=lambda: TableEnv(world), plays=800)
    found = figure(closed_loop_gain(evidence))
    assert truth == 0.0 if slip == 0 else truth > 0.1
    assert found.value == pytest.approx(truth, abs=0.06)
    assert found.n == 400


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    world = corridor(0.3)
    plan = optimal_policy(world, discount=1 - 1e-6)
    truth = exact_gain(world, plan)
    player = table_player(plan, world.actions)
    inside = 0
    for seed in range(60):
        answer = closed_loop_gain(Evidence(player=player, make_env=lambda: TableEnv(world), plays=60, seed=seed))
        low, high = figure(answer).interval
        inside += low <= truth <= high
    # 95 % of 60 give or take three standard errors.
    assert inside >= 60 * (0.95 - 3 * np.sqrt(0.95 * 0.05 / 60))


def inner_codec(env: Any) -> Tabular:
    return env.unwrapped.codec.tabular


def inner_state(env: Any) -> int:
    return int(env.unwrapped.inner.s)


def test_a_frozen_lake_that_slips_needs_eyes() -> None:
    gains: dict[tuple[bool, str], float] = {}
    for slippery in (False, True):
        make = partial(make_toytext, "FrozenLake-v1", is_slippery=slippery)
        tabular: Tabular = inner_codec(make())
        player = speaker(lambda observations, own, seed: "left")
        plan = optimal_policy(tabular, discount=1 - 1e-6)
        looks = table_player(plan, tabular.actions, state_of=inner_state)
        for name, who in (("script", player), ("looks", looks)):
            gains[slippery, name] = figure(closed_loop_gain(Evidence(player=who, make_env=make, plays=40))).value
    assert gains[False, "script"] == gains[True, "script"] == gains[False, "looks"] == 0.0
    assert gains[True, "looks"] > 0.4


def test_a_world_with_an_option_for_noise_is_paired_by_its_start() -> None:
    for slip in (0.0, 0.3):
        world = vault_table(slip=slip)
        player = table_player(optimal_policy(world), world.actions)
        found = figure(closed_loop_gain(Evidence(player=player, make_env=lambda slip=slip: Vault(slip=slip), plays=60)))
        if slip:
            assert found.interval[0] > 1.0
        else:
            assert found.value == 0.0


def test_hidden_numbers_are_found_out_by_asking() -> None:
    """Nothing slips, yet the first observation is the same for all tasks: what is hidden is learnt on the way."""

    class Hidden(TextEnv):
        def __init__(self) -> None:
            super().__init__("hidden", 2, ("ask", "0", "1"))

        def begin(self, seed: int) -> str:
            self.number = str(np.random.default_rng(seed).integers(2))
            return "which ?"

        def act(self, text: str) -> Outcome:
            return Outcome(self.number, 0.0) if self.turn == 1 else Outcome("", float(text == self.number), True)

    player = speaker(lambda observations, own, seed: observations[-1] if own else "ask")
    found = figure(closed_loop_gain(Evidence(player=player, make_env=Hidden, plays=400)))
    assert found.value == pytest.approx(0.5, abs=0.15)
    assert figure(interaction_depth(Evidence(player=player, make_env=Hidden, plays=4))).value == 1.0


def test_blank_observations_and_the_worth_of_feedback() -> None:
    env = Blanked(Errand(max_turns=4))
    first, _ = env.reset(seed=3)
    assert first == Errand(max_turns=4).reset(seed=3)[0]
    began = state_index(env.env)
    assert [env.step("go east")[0], env.step("go west")[0], env.step("go west")[0]] == ["", "", ""]
    assert env.state_index() == began
    world = errand.tabular()
    player = table_player(optimal_policy(world), world.actions)
    worth = figure(feedback_worth(Evidence(player=player, make_env=Errand, plays=20)))
    # Who goes on as at the start never delivers; it earns at least −0.1 a turn and at most the jokes'.
    assert worth.value > 4.0


def test_agreement_is_not_certainty() -> None:
    """A policy that acts differently each time and is never paid: nothing differs, and the line says what that is worth."""
    free = Evidence(player=_two_ways, make_env=partial(Vault, coin=0.0), plays=40)
    script = replace(free, player=speaker(lambda observations, own, seed: "take coin"))
    assert "the same in both" in figure(closed_loop_gain(script)).how
    assert "the same in both" in figure(feedback_worth(script)).how
    # Twenty pairs that agree: 1 − 0.025^(1/20) = 0.168.
    assert figure(closed_loop_gain(free)).how.endswith("up to 17% of them may differ unseen")


def _two_ways(make: Any, seeds: Any) -> Any:
    """A coin that is worth nothing, in the words of the task's half of a pair."""
    return speaker(lambda observations, own, seed: "take coin" if seed >> 40 else "Take coin!")(make, seeds)


def test_depth_counts_answers_and_not_steps() -> None:
    episode = build_episode([0.0, 0.0, 1.0])
    evidence = Evidence(iterations=(Iteration((episode,)),))
    assert figure(interaction_depth(evidence)).value == float(len(episode.answers) - 1) == 2.0


class Unlike(TextEnv):
    """No two tasks begin alike."""

    def __init__(self) -> None:
        super().__init__("unlike", 1)

    def begin(self, seed: int) -> str:
        return str(seed)

    def act(self, text: str) -> Outcome:
        return Outcome("", 0.0, True)


def test_what_cannot_be_replayed_is_declined() -> None:
    player = speaker(lambda observations, own, seed: "x")
    answer = closed_loop_gain(Evidence(player=player, make_env=Unlike, plays=8))
    assert isinstance(answer, NotMeasurable)
    assert "alike" in answer.why
    assert isinstance(closed_loop_gain(Evidence(player=player, make_env=Unlike, plays=0)), NotMeasurable)
    assert isinstance(feedback_worth(Evidence(player=player, make_env=Unlike, plays=0)), NotMeasurable)
    assert isinstance(interaction_depth(Evidence(player=player, make_env=Unlike, plays=0)), NotMeasurable)


def test_every_sequence_is_counted_by_the_oracle() -> None:
    """The oracle's own check: with a policy that ignores its state, live is yoked."""
    world = corridor(0.3, turns=3)
    for actions in product(range(3), repeat=3):
        policy = np.array([[a] * 4 for a in actions])
        assert exact_gain(world, policy) == pytest.approx(0.0)
