"""Runs of Python objects: (1) a stored run comes back in the world it was trained in, (2) or says that the object has to
be passed again, (3) a script is named only where importing it does not run it again."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest

import turnwise
from turnwise.algorithms import Reinforce
from turnwise.cli.main import main
from turnwise.envs.address import address
from turnwise.envs.registry import spec
from turnwise.errors import TurnwiseError
from turnwise.recipes.api import train
from turnwise.recipes.training import load
from turnwise.runs import Improvement

ONE = Reinforce(groups=1, group_size=2)
QUICK: dict[str, Any] = {"memory": 0, "max_tokens": 3, "threads": 1, "progress": False, "steps": 1}


async def story(agent: Any, rng: Any) -> None:
    """Say anything."""
    await agent.act("my own guess begins")


guess = turnwise.env(max_turns=2, name="guess", actions=("left", "right"))(story)
"""It shares its name with an environment of the library."""


def recorded(run: Path) -> str:
    return json.loads((run / "config.json").read_text())["config"]["training"]["world"]["env"]


def first_words(trained: Any) -> str:
    return trained.env.make().reset(seed=0)[0]


def test_a_run_of_an_object_is_loaded_in_its_own_world(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(guess, ONE, out=tmp_path, **QUICK)
    assert recorded(tmp_path) == f"{Path(__file__).resolve()}:guess"
    assert first_words(load(tmp_path)) == "my own guess begins"
    assert main(["eval", str(tmp_path), "--episodes", "2", "--quiet"]) == 0
    assert "test_objects.py:guess" in capsys.readouterr().out.replace("\n", "")
    assert main(["train", "--resume", str(tmp_path), "--steps", "2", "--quiet"]) == 0
    train(guess, ONE, out=tmp_path, resume=True, **{**QUICK, "steps": 3})
    assert load(tmp_path).training.steps == 3


def test_a_run_of_an_object_without_a_home_asks_for_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hidden = turnwise.env(max_turns=2, name="guess", actions=("left", "right"))(story)
    train(hidden, ONE, out=tmp_path, **QUICK)
    assert recorded(tmp_path) == "<python> guess"
    with pytest.raises(TurnwiseError, match="Python object, guess: pass env="):
        load(tmp_path)
    assert main(["eval", str(tmp_path), "--episodes", "2"]) == 2
    assert main(["train", "--resume", str(tmp_path), "--steps", "2", "--quiet"]) == 2
    assert capsys.readouterr().err.count("pass env=") == 2
    assert first_words(load(tmp_path, env=hidden)) == "my own guess begins"
    assert first_words(load(tmp_path, env="guess")).startswith("guess my number")
    train(hidden, ONE, out=tmp_path, resume=True, **{**QUICK, "steps": 2})
    assert load(tmp_path, env=hidden).training.steps == 2


def test_the_address_of_an_object_leads_to_this_very_object() -> None:
    assert address(guess) == f"{Path(__file__).resolve()}:guess"
    assert address(Reinforce).endswith("reinforce.py:Reinforce")
    assert address(lambda: None) == "<python> <lambda>"

    class Local:
        pass

    assert address(Local) == "<python> Local"
    # Of the same name as what the module holds, and not the same.
    assert address(type("Reinforce", (Reinforce,), {"__module__": Reinforce.__module__})) == "<python> Reinforce"


SCRIPT = """
from turnwise.envs.address import address

class World:
    pass

{call}
"""


@pytest.mark.parametrize(
    ("call", "named"),
    [
        ("print(address(World))", False),
        ("if __name__ == '__main__':\n    print(address(World))", True),
        ("def main():\n    print(address(World))\nmain()", False),
        ("def main():\n    print(address(World))\nif __name__ == '__main__':\n    main()", True),
        ("if __name__ != '__main__':\n    pass\nelse:\n    print(address(World))", False),
    ],
)
def test_a_script_is_named_where_importing_it_would_not_run_it_again(tmp_path: Path, call: str, named: bool) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(call=call))
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == (f"{script.resolve()}:World" if named else "<python> World")


@dataclasses.dataclass(frozen=True)
class PPO(turnwise.algorithms.PPO):
    """An algorithm of your own, under a name that the library has too."""

    scales: tuple[float, ...] = (1.0,)


@dataclasses.dataclass(frozen=True)
class Idle:
    """Nothing is inherited, and nothing is learnt."""

    turns: int = 2
    needs_critic: ClassVar[bool] = True

    def collect(self, source: Any, iteration: int) -> list[Any]:
        return source.rollouts(iteration, self.turns)

    def improve(self, learner: Any, episodes: list[Any]) -> Improvement:
        assert learner.policy.value_head is not None
        return Improvement({}, {})


@pytest.mark.parametrize("algorithm", [PPO(episodes=2, epochs=1), Idle(3)])
def test_an_algorithm_of_your_own_is_found_again(tmp_path: Path, algorithm: Any) -> None:
    train("errand?max_turns=2", algorithm, out=tmp_path, **QUICK)
    kept = load(tmp_path).training.algorithm
    assert type(kept).__name__ == type(algorithm).__name__
    assert {**dataclasses.asdict(kept), "scales": None} == {**dataclasses.asdict(algorithm), "scales": None}
    train("errand?max_turns=2", algorithm, out=tmp_path, resume=True, **{**QUICK, "steps": 2})
    assert main(["train", "--resume", str(tmp_path), "--steps", "3", "--quiet"]) == 0
    assert main(["train", "--resume", str(tmp_path), "--steps", "4"]) == 0
    assert main(["eval", str(tmp_path), "--episodes", "2", "--quiet"]) == 0


def test_an_algorithm_without_a_home_does_not_stop_its_run_from_acting(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    @dataclasses.dataclass(frozen=True)
    class Local(Idle):
        pass

    train("errand?max_turns=2", Local(), out=tmp_path, **QUICK)
    assert load(tmp_path).training.algorithm is None
    assert main(["train", "--resume", str(tmp_path), "--steps", "2"]) == 2
    assert "turnwise.train(..., resume=True)" in capsys.readouterr().err
    train("errand?max_turns=2", Local(), out=tmp_path, resume=True, **{**QUICK, "steps": 2})
    with pytest.raises(TurnwiseError, match="instance of a frozen dataclass"):
        train("errand?max_turns=2", object(), out=tmp_path / "other", **QUICK)


def test_an_environment_that_cannot_be_used_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(TurnwiseError, match=r"CoroutineEnv and cannot be called.*pass the class or a function"):
        train(guess(), ONE, out=tmp_path / "instance", **QUICK)
    with pytest.raises(
        TurnwiseError, match=r"turnwise\.envs\.codec\.Codec and wrap it in turnwise\.envs\.codec\.CodecEnv"
    ):
        train(lambda: gymnasium.make("CartPole-v1"), ONE, out=tmp_path / "numbers", **QUICK)
    assert not list(tmp_path.iterdir())


def test_nobody_knows_when_an_environment_of_your_own_pays(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["envs", f"{Path(__file__).resolve()}:guess"]) == 0
    assert "unknown: its author has not said when" in capsys.readouterr().out
    built_in = ("errand", "guess", "textworld", "FrozenLake-v1", "MiniGrid-Empty-5x5-v0")
    assert [spec(name).reward_density for name in built_in] == ["dense", "dense", "sparse", "sparse", "sparse"]
    small = {"memory": 0, "max-tokens": 3, "steps": 1, "episodes": 2, "out": tmp_path / "run"}
    flags = [f"--{name}={value}" for name, value in small.items()]
    assert main(["train", "ppo", "--env", f"{Path(__file__).resolve()}:guess", *flags]) == 0
    assert "rewards at unknown times" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"reward": len}, r"reward is an object; .* reward='file\.py:len'"),
        ({"reward": ["exact", "numeric"]}, "reward is .*'exact', 'numeric'.*; it needs one text with commas"),
        ({"data": [{"prompt": "go"}]}, "data is .*; it needs the name of a file"),
        ({"steps": "5"}, "steps is '5'; it needs a whole number"),
        ({"compact": 1}, "compact is 1; it needs true or false"),
    ],
)
def test_a_setting_of_another_type_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(TurnwiseError, match=said):
        train("guess", ONE, **given)


def test_paths_and_numbers_of_numpy_will_do(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "begins"}\n')
    settings = {**QUICK, "steps": np.int64(1), "temperature": np.float32(1)}
    trained = train(algorithm=ONE, data=file, reward="rule:contains:my", out=tmp_path / "run", **settings)
    assert trained.training.steps == 1
