"""Stories as environments: the promises of the coroutine form, one by one."""

from __future__ import annotations

import asyncio
import pickle

import gymnasium
import pytest

from turnwise.envs import demonstrate, env, make
from turnwise.envs.coroutine import MultiAgentEnv
from turnwise.envs.errors import EnvError, NotOffered
from turnwise.testing import check_env


@env(max_turns=3)
async def counting(agent, rng, *, start: int = 0):
    """Count on."""
    agent.goal = "count"
    agent.log(success=0.0)
    number = start
    while True:
        reply = await agent.act(f"{number} {rng.random():.6f}")
        number += 1
        agent.reward(0.5)
        agent.reward(0.25)
        if reply == "stop":
            agent.log(success=1.0)
            return


def test_is_a_gymnasium_environment_on_text() -> None:
    world = counting()
    assert isinstance(world, gymnasium.Env)
    observation, info = world.reset(seed=1)
    assert observation.startswith("0 ")
    assert info == {"goal": "count"}
    check_env(counting)
    assert counting.__doc__ == "Count on."


def test_returning_terminates_and_reaching_the_limit_truncates_with_the_next_observation() -> None:
    world = counting()
    world.reset(seed=1)
    world.step("go")
    assert world.step("stop") == ("", 0.75, True, False, {"success": 1.0})
    world.reset(seed=1)
    outcomes = [world.step("go") for _ in range(3)]
    assert [step[2:4] for step in outcomes] == [(False, False), (False, False), (False, True)]
    assert outcomes[-1][0].startswith("3 ")
    assert outcomes[-1][4] == {"success": 0.0}
    world.reset(seed=1)
    world.step("go"), world.step("go")
    assert world.step("stop")[2:4] == (True, False)


def test_the_seed_is_the_task() -> None:
    a, b = counting(), counting()
    assert a.reset(seed=7) == b.reset(seed=7)
    assert a.step("go") == b.step("go")
    assert a.reset(seed=8)[0] != a.reset(seed=7)[0]
    assert a.reset(seed=3)
    assert a.reset()[0] != a.reset()[0]


def test_options_and_turn_limit_are_arguments() -> None:
    world = counting(start=5, max_turns=1)
    assert world.reset(seed=0)[0].startswith("5 ")
    assert world.step("go")[3] is True
    with pytest.raises(EnvError, match=r"no option 'strat'; did you mean 'start'\?"):
        counting(strat=1)


def test_snapshot_is_a_replay() -> None:
    world = counting()
    world.reset(seed=4)
    world.step("go")
    state = world.save()
    ahead = world.step("go")
    world.restore(state)
    assert world.step("go") == ahead


def test_stepping_without_an_episode_is_refused() -> None:
    world = counting()
    with pytest.raises(EnvError, match="call reset"):
        world.step("go")
    world.reset(seed=0)
    world.step("stop")
    with pytest.raises(EnvError, match="call reset"):
        world.step("go")
    world.reset(seed=0)
    with pytest.raises(EnvError, match="takes text, got int"):
        world.step(3)  # type: ignore[arg-type]


def story(body, **options):
    return env(max_turns=3, name="broken", **options)(body)()


def test_only_acts_can_be_awaited() -> None:
    async def sleeps(agent, rng):
        await agent.act("hello")
        await asyncio.sleep(0)

    world = story(sleeps)
    world.reset(seed=0)
    with pytest.raises(EnvError, match=r"awaited something other than agent\.act"):
        world.step("x")
    with pytest.raises(EnvError, match="call reset"):
        world.step("x")


def test_a_forgotten_await_is_reported() -> None:
    async def forgets(agent, rng):
        agent.act("hello")
        await agent.act("again")

    async def forgets_last(agent, rng):
        await agent.act("hello")
        agent.act("again")

    with pytest.raises(EnvError, match="never awaited"):
        story(forgets).reset(seed=0)
    world = story(forgets_last)
    world.reset(seed=0)
    with pytest.raises(EnvError, match="never awaited"):
        world.step("x")


def test_a_reward_pays_for_an_action() -> None:
    async def early(agent, rng):
        agent.reward(1.0)
        await agent.act("hello")

    with pytest.raises(EnvError, match=r"before the first act\(\)"):
        story(early).reset(seed=0)


def test_rewards_are_finite() -> None:
    async def pays(agent, rng):
        agent.reward(float("nan") if await agent.act("hello") else 0.0)

    world = story(pays)
    world.reset(seed=0)
    with pytest.raises(EnvError, match="finite number"):
        world.step("x")


def test_an_episode_has_an_action() -> None:
    async def silent(agent, rng):
        pass

    with pytest.raises(EnvError, match="returned before its first act"):
        story(silent).reset(seed=0)


def test_errors_of_the_story_keep_their_type_and_say_where() -> None:
    async def breaks(agent, rng):
        await agent.act("hello")
        raise KeyError("door")

    world = story(breaks)
    world.reset(seed=9)
    with pytest.raises(KeyError) as caught:
        world.step("x")
    assert "environment 'broken', seed 9, after 1 actions" in caught.value.__notes__[0]
    with pytest.raises(EnvError, match="call reset"):
        world.step("x")
    assert world.reset(seed=9)[0] == "hello"


def test_observations_are_text() -> None:
    async def numbers(agent, rng):
        await agent.act(5)

    with pytest.raises(EnvError, match="got int: 5"):
        story(numbers).reset(seed=0)


def test_stories_are_checked_when_they_are_decorated() -> None:
    def plain(agent, rng): ...

    async def nobody(rng): ...

    async def bare(agent, rng, *, n): ...

    async def star(agent, *args): ...

    for body, message in ((plain, "async def"), (nobody, "no agent"), (bare, "default"), (star, "no meaning")):
        with pytest.raises(EnvError, match=message):
            env(max_turns=1)(body)
    with pytest.raises(EnvError, match="max_turns"):
        env(max_turns=0)(counting._story)
    with pytest.raises(EnvError, match="list of strings"):
        env(max_turns=1, actions="left")(counting._story)


def test_missing_abilities_name_what_to_provide() -> None:
    with pytest.raises(NotOffered, match=r"pass actions=\[...\] to @env"):
        demonstrate(counting, [0], skill=0.0)
    with pytest.raises(NotOffered, match=r"pass expert='...' to agent.act"):
        demonstrate(counting, [0])


@env(max_turns=6, actions=["cooperate", "defect"])
async def dilemma(anna, ben, *, rounds: int = 2):
    for _ in range(rounds):
        a = await anna.act("anna, choose")
        b = await ben.act("ben, choose")
        anna.reward(3.0 if a == b == "cooperate" else 1.0)
        ben.reward(3.0 if a == b == "cooperate" else 0.0)
    ben.log(success=1.0)


def test_several_agents_take_turns() -> None:
    world = dilemma()
    assert isinstance(world, MultiAgentEnv)
    assert world.agents == ("anna", "ben")
    assert world.reset(seed=0) == ("anna", "anna, choose")
    move = world.step("cooperate")
    assert (move.agent, move.observation, move.rewards) == ("ben", "ben, choose", {"anna": 0.0, "ben": 0.0})
    move = world.step("cooperate")
    assert (move.agent, move.rewards) == ("anna", {"anna": 3.0, "ben": 3.0})
    world.step("defect")
    move = world.step("cooperate")
    assert move.terminated
    assert not move.truncated
    assert move.agent is None
    assert move.rewards == {"anna": 1.0, "ben": 0.0}
    assert move.info == {"anna": {}, "ben": {"success": 1.0}}
    with pytest.raises(EnvError, match="call reset"):
        world.step("cooperate")


def test_the_limit_counts_the_actions_of_all_agents() -> None:
    world = dilemma(rounds=5, max_turns=3)
    world.reset(seed=0)
    moves = [world.step("defect") for _ in range(3)]
    assert [move.truncated for move in moves] == [False, False, True]
    assert moves[-1].agent == "ben"


def test_binary_search_finds_the_number() -> None:
    for n, turns in ((8, 4), (64, 7)):
        shown = demonstrate(f"guess?n={n}", range(40))
        assert all(t.metrics == {"success": 1.0} and len(t.actions) <= turns for t in shown)
        assert all(t.rewards[-1] == 1.0 and set(t.rewards[:-1]) <= {-0.02} for t in shown)
    check_env(lambda: make("guess"))


@env(max_turns=3)
async def travels(agent, rng):
    """Can be found by its name."""
    await agent.act("hello")


def test_a_story_travels_by_name() -> None:
    assert pickle.loads(pickle.dumps(travels)) is travels

    @env(max_turns=3)
    async def hidden(agent, rng):
        await agent.act("hello")

    with pytest.raises((AttributeError, pickle.PicklingError)):
        pickle.dumps(hidden)
