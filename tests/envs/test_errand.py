"""The rules of the errand world, and the figures that follow from them without running any of its code."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

from turnwise.envs import make, optimal_return, policy_return
from turnwise.envs.errand import ACTIONS, HELD, JOKE, Errand, tabular
from turnwise.envs.errors import EnvError
from turnwise.envs.exact import optimal_values
from turnwise.envs.interrupted import Interrupted
from turnwise.testing import check_env


def play(env, choose) -> tuple[float, int, dict]:
    total, turns = 0.0, 0
    while True:
        _, reward, terminated, truncated, info = env.step(choose(env))
        total, turns = total + reward, turns + 1
        if terminated or truncated:
            return total, turns, info


def test_optimum_is_the_mean_over_all_starts_of_the_shortest_errand() -> None:
    starts = list(itertools.permutations(range(8), 3))  # agent, requested gem, guard, all in different rooms
    turns = [abs(me - gem) + 1 + abs(gem - guard) + 1 for me, gem, guard in starts]
    expected = np.mean([10 * (1 - 0.9 * (n - 1) / 30) for n in turns])
    assert np.mean(turns) == pytest.approx(8.0)
    assert expected == pytest.approx(7.9)
    assert optimal_return(tabular()) == pytest.approx(expected, abs=1e-12)


def test_joking_for_ever_earns_three() -> None:
    env = Errand()
    env.reset(seed=0)
    total, turns, info = play(env, lambda _: "tell a joke")
    assert (total, turns) == (pytest.approx(3.0), 30)
    assert info == {"success": 0.0, "impossible": 0.0, "jokes": 30.0}
    world = tabular()
    jokes = np.full(world.n_states, ACTIONS.index("tell a joke"))
    assert policy_return(world, jokes) == pytest.approx(3.0)


def test_the_deadline_ends_the_task() -> None:
    env = Errand(max_turns=2)
    env.reset(seed=0)
    env.step("tell a joke")
    assert env.step("tell a joke")[2:4] == (True, False)


@pytest.mark.parametrize("guards", [1, 2])
def test_expert_and_value_agree_with_dynamic_programming_in_every_state_reached(guards: int) -> None:
    world = tabular()
    values = optimal_values(world)
    env = Errand(guards=guards)
    rng = random.Random(0)
    for seed in range(40):
        env.reset(seed=seed)
        over = False
        while not over:
            state, turn = env.state_index(), env.turn
            assert env.optimal_value() == pytest.approx(values[turn, state], abs=1e-9)
            q = world.action_values(turn, values[turn + 1])[state]
            assert q[ACTIONS.index(env.optimal_action())] == pytest.approx(q.max(), abs=1e-9)
            choice = env.optimal_action() if rng.random() < 0.3 else rng.choice(ACTIONS)
            _, reward, terminated, truncated, _ = env.step(choice)
            expected = world.reward[turn, state, ACTIONS.index(choice), 0]
            assert reward == pytest.approx(expected)
            over = terminated or truncated
            if not over:
                assert world.successor[state, ACTIONS.index(choice), 0] == env.state_index()


def test_expert_earns_the_optimum() -> None:
    env = Errand()
    total = 0.0
    for seed in range(300):
        env.reset(seed=seed)
        value = env.optimal_value()
        earned, _, info = play(env, Errand.optimal_action)
        assert earned == pytest.approx(value)
        assert info["success"] == 1.0
        total += earned
    assert total / 300 == pytest.approx(7.9, abs=0.2)


def test_mediocre_play_succeeds_in_two_of_five_episodes() -> None:
    env, rng, won = Errand(), random.Random(1), 0.0
    for seed in range(1500):
        env.reset(seed=seed)
        won += play(env, lambda e: e.optimal_action() if rng.random() < 0.2 else rng.choice(e.legal_actions()))[2][
            "success"
        ]
    assert won / 1500 == pytest.approx(0.39, abs=0.04)


def test_observation_tells_where_things_are() -> None:
    env = Errand()
    env.reset(seed=0)
    env.me, env.gems, env.guards, env.wanted = 2, [5, HELD], [2], 0
    env._prefix = f"{env.goal()} ;"
    observation, reward, _, _, _ = env.step("give blue gem")
    assert reward == -0.1
    assert observation == "impossible ; bring red gem to guard ; red 3 east ; blue held ; guard here"
    assert env.step("go west")[0] == "bring red gem to guard ; red 4 east ; blue held ; guard 1 east"


def test_two_guards_and_a_request_for_one_of_them() -> None:
    env = Errand(guards=2)
    observation, info = env.reset(seed=0)
    named = {env.reset(seed=seed)[1]["goal"] for seed in range(40)}
    assert named == {f"bring {gem} gem to {size} guard" for gem in ("red", "blue") for size in ("tall", "short")}
    assert all(text in observation for text in ("tall guard", "short guard", info["goal"]))
    env.me, env.gems = env.guards[1 - env.target], [HELD, HELD]
    assert env.step(f"give {('red', 'blue')[env.wanted]} gem")[1] == -0.1


@pytest.mark.parametrize("text", ["", "dance", "go north", "GO  EAST!", '"go east"', "I will think.\ngo east"])
def test_any_text_is_answered(text: str) -> None:
    env = Errand()
    env.reset(seed=1)
    before = env.me
    observation, reward, *_ = env.step(text)
    understood = "go east" in text.lower().replace("  ", " ")
    assert (env.me - before, reward) == ((1, 0.0) if understood and before < 7 else (0, -0.1))
    assert observation.startswith("impossible") != (reward == 0.0)


def test_rating_a_reply_is_its_immediate_reward_and_changes_nothing() -> None:
    env, twin = Errand(), Errand()
    for seed in range(30):
        env.reset(seed=seed)
        for _ in range(seed % 7):
            if env.step(env.optimal_action())[2]:
                env.reset(seed=seed)
        for text in (*ACTIONS, "nonsense"):
            rated = env.rate_reply(text)
            twin.restore(env.save())
            assert twin.step(text)[1] == pytest.approx(rated)
    env.reset(seed=3)
    assert env.rate_reply("tell a joke") == JOKE > env.rate_reply(env.optimal_action())


def test_interrupted_expert_recovers() -> None:
    for options in ({"moves": 5}, {"moves": 0, "scatter": True}):
        env = Interrupted(Errand(), turn=4, **options)
        lost = 0.0
        for seed in range(60):
            env.reset(seed=seed)
            _, _, info = play(env, lambda e: e.unwrapped.optimal_action())
            assert info["success"] == 1.0
            lost += info["interrupted"]
        assert lost > 40


def test_interruption_changes_the_state_and_is_reproducible() -> None:
    def trace(turn: int) -> list[str]:
        env = Interrupted(Errand(), turn=turn, moves=6)
        env.reset(seed=5)
        return [env.step("tell a joke")[0] for _ in range(4)]

    assert trace(2) == trace(2)
    assert trace(2)[0] == trace(9)[0]
    assert trace(2)[1:] != trace(9)[1:]


@pytest.mark.parametrize("options", [{"guards": 3}, {"max_turns": 0}, {"gards": 1}])
def test_nonsense_options_are_refused(options: dict) -> None:
    with pytest.raises(EnvError, match=r"guards|max_turns"):
        make("errand", **options)


def test_conformance() -> None:
    check_env(lambda: make("errand"), seeds=range(5))
    check_env(lambda: make("errand?guards=2"))
    check_env(lambda: Interrupted(Errand(), turn=2))
