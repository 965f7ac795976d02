"""The context of an agent: (1) it is what was observed and done since it was last begun anew, in order; (2) contexts handed
out earlier stay as they were; (3) what is paid goes to the latest turn, summed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.rollout import worlds
from turnwise.engines import Completion
from turnwise.episode import Stop
from turnwise.rollout import Memory
from turnwise.rollout.view import View
from turnwise.rollout.workers import Payment

WORDS = ("a", "b a", "c c c", "")
TURNS = st.lists(
    st.tuples(st.sampled_from(WORDS), st.lists(st.integers(3, 9), min_size=1, max_size=4), st.sampled_from(Stop)),
    min_size=1,
    max_size=12,
)


def completion(ids: list[int], stop: Stop) -> Completion:
    return Completion(np.array(ids, np.int32), np.zeros(len(ids), np.float32), stop, 0)


@pytest.mark.parametrize("memory", [Memory(), Memory(turns=0), Memory(turns=2), Memory(limit=60, compact=True)])
@given(turns=TURNS)
@settings(max_examples=40, deadline=None)
def test_the_context_is_what_the_turns_say(memory: Memory, turns: list[tuple[str, list[int], Stop]]) -> None:
    view = View("agent", 0, worlds.policy().renderer, memory, budget=4)
    handed_out: list[tuple[np.ndarray, list[int]]] = []
    by_hand: list[int] = []
    for text, ids, stop in turns:
        view.observe(text)
        context = view.context
        view.act(completion(ids, stop))
        turn = view.turns()[-1]
        by_hand = [*([] if turn.fresh else by_hand), *turn.obs.tolist()]
        handed_out.append((context, list(by_hand)))
        by_hand += ids
    assert view.n_turns == len(turns)
    for context, said in handed_out:
        assert context.tolist() == said


def test_steps_of_one_answer_follow_each_other() -> None:
    view = View("agent", 0, worlds.policy().renderer, Memory(), budget=2)
    view.observe("a")
    start = view.context.tolist()
    for ids in ([3], [4, 5], [6]):
        view.act(completion(ids, Stop.STOP))
        view.go_on()
    assert view.context.tolist() == [*start, 3, 4, 5, 6]


def test_payments_go_to_the_latest_turn() -> None:
    view = View("agent", 0, worlds.policy().renderer, Memory(), budget=2, pays="judge")
    view.pay(Payment(5.0, terminated=False, truncated=False))
    for rewards in ([1.0, 0.5], [], [-2.0]):
        view.observe("a")
        view.act(completion([3], Stop.STOP))
        for reward in rewards:
            view.pay(Payment(reward, terminated=False, truncated=False, metrics={"steps": 1.0}))
    assert [turn.reward for turn in view.turns()] == [1.5, 0.0, -2.0]
    assert [dict(turn.rewards) for turn in view.turns()] == [{"judge": 1.5}, {}, {"judge": -2.0}]
    assert view.metrics == {"steps": 1.0}
