"""Critique and revision as a world: (1) it keeps every promise of an environment, (2) what is asked when, with and without a critic,
(3) principles are a function of the seed, (4) nonsense is refused."""

from __future__ import annotations

from functools import partial

import pytest

from turnwise.envs.constitution import ConstitutionEnv
from turnwise.envs.errors import EnvError
from turnwise.testing import check_env
from turnwise.text.principles import parse_principles
from turnwise.text.procedure import Procedure, by_rule

PRINCIPLES = parse_principles("No weather. [forbids: rain|sun]\nNo food. [forbids: soup]")
PROCEDURE = Procedure("criticise {reply} by {principle}", "mend {reply} after {critique} by {principle}")
make = partial(ConstitutionEnv, ["a?", {"prompt": "b?"}], PRINCIPLES, PROCEDURE)


@pytest.mark.parametrize("rounds", [1, 3])
@pytest.mark.parametrize("critic", [None, by_rule])
def test_it_is_an_environment(rounds: int, critic: object) -> None:
    check_env(partial(make, rounds=rounds, critic=critic))


def test_the_policy_criticises_itself() -> None:
    env = make()
    first, _ = env.reset(seed=1)
    assert first == "b?"
    asked = env.step("sun and soup")[0]
    principle = asked.removeprefix("criticise sun and soup by ")
    assert principle in ("No weather.", "No food.")
    again = env.step("bad")[0]
    assert again == f"mend sun and soup after bad by {principle}"
    text, reward, terminated, truncated, info = env.step("soup")
    assert (text, reward, terminated, truncated) == ("", 0.0, True, False)
    assert info == {"violations_before": 2.0, "violations_after": 1.0}


def test_somebody_else_criticises() -> None:
    env = make(rounds=2, critic=by_rule)
    env.reset(seed=0)
    seen = []
    asked = env.step("sun and soup")[0]
    for reply in ("soup", "fine"):
        critique, request = asked.split("\n\n")
        assert critique.startswith("The reply")
        assert request.startswith("mend ")
        seen.append(request.rsplit(" by ")[-1])
        asked, _, terminated, _, info = env.step(reply)
    assert terminated
    assert sorted(seen) == ["No food.", "No weather."]  # two rounds, both principles
    assert info["violations_after"] == 0.0


def test_the_seed_draws_the_principle() -> None:
    def asked(seed: int) -> str:
        env = make()
        env.reset(seed=seed)
        return env.step("x")[0]

    assert [asked(seed) for seed in range(20)] == [asked(seed) for seed in range(20)]
    assert len({asked(seed) for seed in range(20)}) == 2


def test_nonsense_is_refused() -> None:
    with pytest.raises(EnvError, match="at least one prompt"):
        ConstitutionEnv([], PRINCIPLES)
    with pytest.raises(EnvError, match="row 1 has no text"):
        ConstitutionEnv(["a", {"question": "b"}], PRINCIPLES)
    with pytest.raises(EnvError, match="at least one principle"):
        ConstitutionEnv(["a"], [])
    with pytest.raises(EnvError, match="rounds=0"):
        ConstitutionEnv(["a"], PRINCIPLES, rounds=0)
