"""Observations that are blanked or buried in words: what is hidden, for how long, and what is left alone."""

from __future__ import annotations

import pytest

from tests.envs.test_lookahead import line
from turnwise.audit.players import state_index
from turnwise.envs.errand import Errand
from turnwise.envs.errors import EnvError
from turnwise.envs.interrupted import WORDS, Blackout, Distracted
from turnwise.envs.table_env import TableEnv
from turnwise.testing import check_env


def test_a_blackout_hides_the_world_for_a_while_and_changes_nothing_else() -> None:
    plain, dark = Errand(), Blackout(Errand(), turn=2, turns=3)
    assert plain.reset(seed=1) == dark.reset(seed=1)
    for number in range(1, 9):
        one, other = plain.step("tell a joke"), dark.step("tell a joke")
        assert one[1:] == other[1:]
        assert other[0] == ("" if 2 <= number < 5 else one[0])


def test_who_looks_up_the_state_sees_the_last_one_that_was_seen() -> None:
    env = Blackout(TableEnv(line([0.0] * 8)), turn=2, turns=2)
    env.reset(seed=0)
    seen = [state_index(env)]
    for _ in range(5):
        env.step("on")
        seen.append(state_index(env))
    assert seen == [0, 1, 1, 1, 4, 5]


def test_words_stand_before_what_there_is_to_see() -> None:
    plain, loud, again = Errand(), Distracted(Errand(), turn=1, turns=2), Distracted(Errand(), turn=1, turns=2)
    for env in (plain, loud, again):
        env.reset(seed=4)
    for number in range(1, 5):
        one, other = plain.step("go east"), loud.step("go east")
        assert other == again.step("go east")
        assert one[1:] == other[1:]
        words, rest = other[0][: len(other[0]) - len(one[0])], other[0][len(other[0]) - len(one[0]) :]
        assert rest == one[0]
        assert sum(word in words for word in WORDS) == (3 if number <= 2 else 0)


@pytest.mark.parametrize("wrapper", [Blackout, Distracted])
def test_it_says_whether_it_took_place(wrapper: type[Blackout] | type[Distracted]) -> None:
    for turn, took_place in ((1, 1.0), (2, 1.0), (3, 0.0)):
        env = wrapper(TableEnv(line([0.0, 0.0], horizon=3)), turn=turn)
        env.reset(seed=0)
        info = [env.step("on") for _ in range(3)][-1][-1]
        assert info["interrupted"] == took_place
    check_env(lambda: wrapper(Errand(), turn=2))
    with pytest.raises(EnvError, match="turn >= 1"):
        wrapper(Errand(), turn=0)
