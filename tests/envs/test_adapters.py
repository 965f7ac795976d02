"""Toy text, MiniGrid and TextWorld in words; prompts; demonstrations; names."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from turnwise.envs import PromptEnv, demonstrate, ids, make, optimal_return, register, spec
from turnwise.envs.errors import EnvError, NotOffered
from turnwise.envs.interrupted import Interrupted
from turnwise.envs.registry import EnvSpec, parse_options
from turnwise.episode import Source
from turnwise.testing import check_env

TOY = ("FrozenLake-v1", "FrozenLake8x8-v1", "CliffWalking-v1", "Taxi-v4", "Blackjack-v1")


@pytest.mark.parametrize("env_id", TOY)
def test_toy_text_conforms(env_id: str) -> None:
    check_env(lambda: make(env_id))


@pytest.mark.parametrize("env_id", TOY)
def test_invalid_text_costs_the_penalty_and_moves_nothing(env_id: str) -> None:
    env, twin = make(env_id), make(env_id)
    first, _ = env.reset(seed=3)
    twin.reset(seed=3)
    observation, reward, *_ = env.step("sing")
    assert reward == env.codec.penalty < 0
    assert "not understood" in observation
    assert all(action in observation for action in env.legal_actions())
    action = env.optimal_action()
    assert env.step(action)[0] == twin.step(action)[0]
    assert all(action in first for action in env.legal_actions())


def test_nonsense_is_never_cheaper_than_moving() -> None:
    for env_id, step in (("CliffWalking-v1", -1.0), ("Taxi-v4", -1.0), ("FrozenLake-v1", 0.0)):
        assert make(env_id).codec.penalty < step


@pytest.mark.parametrize(
    ("env_id", "seeds"),
    [("FrozenLake8x8-v1?is_slippery=false", 1), ("CliffWalking-v1", 1), ("Taxi-v4", 400)],
)
def test_experts_earn_the_exact_optimum(env_id: str, seeds: int) -> None:
    shown = demonstrate(env_id, range(seeds))
    exact = spec(env_id).exact
    assert exact is not None
    mean = sum(sum(t.rewards) for t in shown) / seeds
    assert mean == pytest.approx(optimal_return(exact()), abs=0.0 if seeds == 1 else 0.4)
    assert all(t.metrics["success"] == 1.0 and t.terminated for t in shown)


def test_frozen_lake_expert_takes_the_shortest_way() -> None:
    assert len(demonstrate("FrozenLake8x8-v1?is_slippery=false", [0])[0].actions) == 14


def test_frozen_lake_observations_match_the_lake() -> None:
    env = make("FrozenLake-v1", is_slippery=False, view="map")
    env.reset(seed=0)
    observation = env.step("down")[0]
    assert observation.startswith("row 1 column 0 ; goal 2 down 3 right ; left edge ; down ice ; right hole ; up ice")
    assert observation.endswith("map : ice ice ice ice / me hole ice hole / ice ice ice hole / hole ice ice goal")
    env.step("right")
    with pytest.raises(EnvError, match="call reset"):
        env.step("right")


def test_taxi_observation_tells_the_decoded_state() -> None:
    env = make("Taxi-v4")
    env.reset(seed=0)
    env.inner.s = env.inner.encode(2, 3, 4, 1)
    assert env.codec.describe(env.inner.s) == (
        "row 2 column 3 ; passenger in taxi ; destination green 2 north 1 east ; open south north east west"
    )


def test_blackjack_expert_is_near_the_known_optimum() -> None:
    # The optimal return of this variant is about -0.046 (Sutton & Barto 2018, example 5.1 with the rules of `sab`).
    shown = demonstrate("Blackjack-v1", range(6000))
    assert sum(sum(t.rewards) for t in shown) / 6000 == pytest.approx(-0.046, abs=0.04)


@pytest.mark.parametrize(("env_id", "floor"), [("errand", 20_000), ("FrozenLake-v1", 20_000), ("Taxi-v4", 20_000)])
def test_steps_are_fast(env_id: str, floor: int) -> None:
    env = make(env_id)
    action = spec(env_id).actions[0]
    best = 0.0
    for attempt in range(5):
        started, steps = time.process_time(), 0
        while steps < 3000:
            env.reset(seed=attempt)
            over = False
            while not over:
                _, _, terminated, truncated, _ = env.step(action)
                over, steps = terminated or truncated, steps + 1
        best = max(best, steps / (time.process_time() - started))
    assert best > floor


minigrid = pytest.mark.skipif(importlib.util.find_spec("minigrid") is None, reason="needs minigrid")


@minigrid
def test_minigrid_conforms_and_its_experts_succeed(capsys: pytest.CaptureFixture[str]) -> None:
    for env_id in ("MiniGrid-DoorKey-5x5-v0", "BabyAI-GoToLocal-v0", "BabyAI-PickupLoc-v0"):
        check_env(lambda env_id=env_id: make(env_id), seeds=(0,))
        shown = demonstrate(env_id, range(20))
        assert all(t.metrics["success"] == 1.0 for t in shown)
        assert all(0.1 <= t.rewards[-1] <= 1.0 for t in shown)
    demonstrate("BabyAI-PickupLoc-v0", range(60), skill=0.5)
    assert capsys.readouterr().out == ""


@minigrid
def test_minigrid_tells_what_lies_where() -> None:
    env = make("MiniGrid-DoorKey-5x5-v0")
    first, info = env.reset(seed=0)
    mission = "use the key to open the door and then get to the goal"
    assert info == {"goal": mission}
    assert first == (
        "say one of : turn left , turn right , move forward , pick up , drop , toggle , done ; "
        f"{mission} ; carrying nothing ; wall 1 ahead ; wall 1 left ; wall 3 right ; yellow key 1 right"
    )
    observation = env.step("turn right")[0]
    assert "yellow key 1 ahead" in observation
    observation = env.step("pick up key")[0]
    assert "carrying yellow key" in observation
    assert "key 1 ahead" not in observation


@minigrid
def test_minigrid_reward_follows_the_turn_limit() -> None:
    shown = demonstrate("MiniGrid-Empty-5x5-v0?max_turns=20", [0])[0]
    assert shown.rewards[-1] == pytest.approx(1 - 0.9 * len(shown.rewards) / 20)


@minigrid
def test_mediocre_play_in_minigrid_still_knows_the_way() -> None:
    shown = demonstrate("BabyAI-GoToLocal-v0", range(30), skill=0.5)
    assert sum(t.metrics["success"] for t in shown) / 30 > 0.7
    env = Interrupted(make("MiniGrid-DoorKey-5x5-v0"), turn=3, moves=4)
    env.reset(seed=1)
    terminated = truncated = False
    while not (terminated or truncated):
        _, _, terminated, truncated, info = env.step(env.unwrapped.optimal_action())
    assert info == {"success": 1.0, "invalid": 0.0, "interrupted": 1.0}


def test_textworld_plays_generated_games_and_files(tmp_path: Path) -> None:
    pytest.importorskip("textworld")
    check_env(lambda: make("textworld"), seeds=(0,))
    shown = demonstrate("textworld", [0, 1])
    assert all(t.metrics["success"] == 1.0 and sum(t.rewards) == 1.0 for t in shown)
    assert shown[0].observations[0] != shown[1].observations[0]
    env = make("textworld", commands=False)
    observation, _ = env.reset(seed=0)
    assert "commands :" not in observation
    assert "carrying" in observation
    assert env.step("fly away")[1] == -0.1
    with pytest.raises(EnvError, match="there is no game"):
        make("textworld", game=str(tmp_path / "none.z8"))


def test_a_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "textworld", None)
    with pytest.raises(EnvError, match=r'pip install "turnwise\[textworld\]"'):
        make("textworld")
    monkeypatch.setitem(sys.modules, "minigrid", None)
    with pytest.raises(EnvError, match=r'pip install "turnwise\[minigrid\]"'):
        make("MiniGrid-Empty-5x5-v0")


def test_prompts_are_one_turn_and_the_seed_chooses_the_row() -> None:
    rows = [{"prompt": "2+2=", "answer": "4"}, {"prompt": "1+2=", "answer": "3"}]
    env = PromptEnv(rows, lambda prompt, completion, row: float(completion.strip() == row["answer"]))
    assert [env.reset(seed=seed)[0] for seed in (0, 1, 2)] == ["2+2=", "1+2=", "2+2="]
    assert env.step(" 4 ") == ("", 1.0, True, False, {"score": 1.0})
    check_env(lambda: PromptEnv(["a"], lambda *_: 0.5))
    for wrong in ([], [{"question": "?"}]):
        with pytest.raises(EnvError, match="prompt"):
            PromptEnv(wrong, lambda *_: 0.0)


def test_demonstrations_are_reproducible_one_by_one() -> None:
    many = demonstrate("errand", range(5), skill=0.2, seed=1)
    assert demonstrate("errand", [3], skill=0.2, seed=1) == [many[3]]
    assert demonstrate("errand", [3], skill=0.2, seed=2) != [many[3]]
    assert many[0].source is Source.EXPERT
    assert many[0].env == "errand"
    assert many[0].goal
    assert demonstrate("errand", [0], skill=0.0)[0].source is Source.DATASET
    cut = demonstrate("errand", [0], skill=0.0, max_turns=2)[0]
    assert (cut.terminated, cut.truncated, len(cut.actions)) == (False, True, 2)
    assert cut.last_obs


def test_demonstrations_need_abilities_and_say_which() -> None:
    import gymnasium

    bare = lambda: gymnasium.make("FrozenLake-v1").unwrapped  # noqa: E731
    with pytest.raises(NotOffered, match=r"give it a method optimal_action\(\) -> str"):
        demonstrate(bare, [0])
    with pytest.raises(NotOffered, match=r"give it a method legal_actions\(\)"):
        demonstrate(bare, [0], skill=0.0)
    with pytest.raises(EnvError, match="between 0 and 1"):
        demonstrate("errand", [0], skill=2.0)


def test_demonstrations_reach_through_wrappers() -> None:
    wrapped = lambda: Interrupted(make("errand"), turn=2)  # noqa: E731
    assert all(t.metrics["success"] == 1.0 for t in demonstrate(wrapped, range(5)))


@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        ("Frozenlake-v1", "did you mean 'FrozenLake-v1'"),
        ("FrozenLake-v1?is_slipery=false", "did you mean 'is_slippery'"),
        ("Pendulum-v1", "without a text codec"),
        ("errand?guards", "key=value"),
        ("errand?guards=1&guards=2", "given twice"),
        ("guess?m=3", "its options are max_turns, n"),
        ("guess?max_turns=x", "max_turns must be an integer"),
        ("nowhere.py:world", "there is no file"),
        ("no.such.module:world", "there is no module"),
        ("json:lods", "did you mean 'loads'"),
        ("json:__name__", "needs to be something that makes an environment"),
    ],
)
def test_wrong_names_and_options_are_explained(env_id: str, message: str) -> None:
    with pytest.raises(EnvError, match=message):
        make(env_id)


def test_options_in_a_name() -> None:
    assert parse_options("a=1&b=-.5&c=true&d=None&e=8x8") == {"a": 1, "b": -0.5, "c": True, "d": None, "e": "8x8"}
    found = spec("guess?n=4&max_turns=2")
    assert (found.max_turns, found.actions) == (2, ("1", "2", "3", "4"))
    assert make("guess?n=4").reset(seed=0)[0] == "guess my number between 1 and 4"
    assert make("FrozenLake-v1?map_name=8x8").inner.desc.shape == (8, 8)
    assert make("errand?max_turns=5", max_turns=9).max_turns == 9


def test_every_name_is_described() -> None:
    for env_id in ids():
        found = spec(env_id)
        assert found.id == env_id
        assert found.summary
        assert found.max_turns


def test_own_environments_by_path_and_by_registration(tmp_path: Path) -> None:
    file = tmp_path / "games.py"
    file.write_text(
        "from turnwise.envs import env\n"
        "from turnwise.testing import EchoEnv\n"
        "@env(max_turns=2, actions=['hi'])\n"
        "async def greet(agent, rng, *, word='hello'):\n"
        '    """Greet."""\n'
        "    while True:\n"
        "        await agent.act(word)\n"
    )
    found = spec(f"{file}:greet?word=good+day")
    assert (found.summary, found.max_turns, found.actions) == ("Greet", 2, ("hi",))
    assert found.make().reset(seed=0)[0] == "good+day"
    assert make(f"{file}:EchoEnv", max_turns=1).max_turns == 1
    with pytest.raises(EnvError, match="did you mean 'greet'"):
        make(f"{file}:great")
    register(EnvSpec("echo-for-this-test", lambda: make(f"{file}:EchoEnv")))
    assert make("echo-for-this-test").reset(seed=0)[0]
    for taken in ("errand", "a?b"):
        with pytest.raises(EnvError, match="name"):
            register(EnvSpec(taken, lambda: None))


def test_environments_are_independent_across_threads() -> None:
    expected = demonstrate("guess?n=16", range(3), skill=0.5)
    got: list[list] = [[], []]

    def work(slot: int) -> None:
        got[slot] = demonstrate(expected[0].env, range(3), skill=0.5)

    threads = [threading.Thread(target=work, args=(slot,)) for slot in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [expected, expected]


def test_importing_the_package_is_light() -> None:
    code = (
        "import sys, turnwise.envs, turnwise.testing, turnwise.envs.registry as r; r.ids();"
        "print([m for m in ('torch','gymnasium','numpy','minigrid','textworld') if m in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )
