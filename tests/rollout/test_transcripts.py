"""Text that somebody else wrote: (1) it becomes the ids that a rollout of the same dialogue has, (2) stored episodes are
handed out pass by pass, each once."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from tests.rollout import worlds
from turnwise.credit import best_and_worst
from turnwise.engines import ScriptedEngine
from turnwise.episode import Cut, Source, Transcript
from turnwise.errors import TurnwiseError
from turnwise.rollout import Collector, Logged, Memory, episodes_of

TALK = Transcript(
    ("say something", "you won", "word"), ("yes", "turn left", "no"), (0.5, 1.0, 0.0), terminated=True, truncated=False,
    last_obs="it is over", env="talk", seed=3, goal="win", metrics={"success": 1.0},
)  # fmt: skip


class Replay:
    """Plays one transcript, whatever is said."""

    name = "talk"

    def __init__(self, transcript: Transcript) -> None:
        self.transcript = transcript

    @property
    def unwrapped(self) -> Replay:
        return self

    def reset(self, *, seed: int) -> tuple[str, dict[str, str]]:
        self.turn = 0
        return self.transcript.observations[0], {"goal": "win"}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, float]]:
        t, self.turn = self.turn, self.turn + 1
        last = self.turn == len(self.transcript.actions)
        obs = self.transcript.last_obs if last else self.transcript.observations[self.turn]
        return (
            obs,
            self.transcript.rewards[t],
            last and self.transcript.terminated,
            last and self.transcript.truncated,
            {},
        )

    def close(self) -> None: ...


def answer(context: str) -> str:
    """What the transcript says after the latest of its observations."""
    latest = max(range(3), key=lambda t: context.rfind(TALK.observations[t]))
    return TALK.actions[latest]


@pytest.mark.parametrize("memory", [Memory(), Memory(turns=0), Memory(turns=1), Memory(limit=14, compact=True)])
@pytest.mark.parametrize("cut", [False, True])
def test_it_is_what_a_rollout_of_the_same_words_is(memory: Memory, cut: bool) -> None:
    policy = worlds.policy()
    shown = replace(TALK, terminated=not cut, truncated=cut)
    engine = ScriptedEngine(answer, policy.renderer)
    collector = Collector(lambda: Replay(shown), policy, engine=engine, where="inline", memory=memory)
    rolled = collector.collect(worlds.tasks(1))[0]
    collector.close()
    told = episodes_of([shown], policy, memory)[0]
    parts = [
        [(t.obs.tolist(), t.act.tolist(), t.reward, t.fresh, t.stop) for t in episode.turns]
        for episode in (told, rolled)
    ]
    assert parts[0] == parts[1]
    assert len(parts[0]) == 3
    assert sum(fresh for *_, fresh, _ in parts[0]) == (1 if memory == Memory() else 3 if memory.turns == 0 else 2)
    assert told.last_obs.tolist() == rolled.last_obs.tolist()
    assert told.last_fresh == rolled.last_fresh
    assert (told.terminated, told.truncated, told.cut) == (rolled.terminated, rolled.truncated, rolled.cut)


def test_nobody_knows_its_probabilities() -> None:
    episode = episodes_of([TALK], worlds.policy())[0]
    assert (episode.behaviour_logp == 0).all()
    assert episode.source is Source.EXPERT
    assert episode.goal == "win"
    assert episode.metrics == {"success": 1.0}
    assert episode.undiscounted_return == 1.5


def test_what_outgrows_the_context_is_cut_there() -> None:
    episode = episodes_of([TALK], worlds.policy(), Memory(limit=11))[0]
    assert episode.cut is Cut.CONTEXT
    assert 0 < len(episode.turns) < 3
    assert "do not fit" in episode.detail


def test_one_without_an_end_may_have_gone_on() -> None:
    open_end = Transcript(("a",), ("b",), (0.0,), terminated=False, truncated=False, last_obs="it is")
    episode = episodes_of([open_end], worlds.policy())[0]
    assert episode.truncated
    assert len(episode.last_obs)


def test_every_pass_hands_out_each_once() -> None:
    shown = [Transcript((f"{i}",), ("yes",), (0.0,), True, False, seed=i) for i in range(7)]
    source = Logged(episodes_of(shown, worlds.policy()), seed=4)
    drawn = [episode.seed for iteration in range(7) for episode in source.rollouts(iteration, 3)]
    for begin in (0, 7, 14):
        assert sorted(drawn[begin : begin + 7]) == list(range(7))
    assert drawn[:7] != drawn[7:14]
    again = Logged(source.episodes, seed=4)
    assert [e.seed for e in again.rollouts(2, 3)] == drawn[6:9]
    assert Counter(e.seed for e in source.rollouts(0, 5, 4)).most_common()[-1][1] >= 2


def test_groups_are_handed_out_whole() -> None:
    shown = [Transcript((f"{i // 2}",), (f"{i}",), (0.0,), True, False, seed=i // 2) for i in range(10)]
    source = Logged(episodes_of(shown, worlds.policy()), seed=4, grouped=True)
    drawn = [source.rollouts(iteration, 2) for iteration in range(5)]
    assert [len(part) for part in drawn] == [4] * 5
    seeds = [episode.seed for part in drawn for episode in part]
    assert seeds[::2] == seeds[1::2]
    assert sorted(seeds[:10:2]) == sorted(seeds[10::2]) == list(range(5))
    with pytest.raises(TurnwiseError, match="no further start states"):
        source.rollouts(0, 2, first=4)


@pytest.mark.parametrize("groups", [16, 32])
def test_a_group_that_is_drawn_again_is_a_group_of_its_own(groups: int) -> None:
    """Of 20 pairs an iteration takes some twice, once from each pass, and each time it is a pair."""
    shown = [Transcript((f"{i // 2}",), (f"{i}",), (float(i % 2),), True, False, seed=i // 2) for i in range(40)]
    source = Logged(episodes_of(shown, worlds.policy()), seed=4, grouped=True)
    for iteration in range(5):
        drawn = source.rollouts(iteration, groups)
        pairs = best_and_worst([e.undiscounted_return for e in drawn], [e.group for e in drawn])
        assert len(pairs) == groups
        assert all(drawn[a].seed == drawn[b].seed for a, b in pairs)
    assert {e.group for e in source.rollouts(0, 20)} == {e.group for e in source.episodes}


def test_nothing_to_hand_out_is_said() -> None:
    with pytest.raises(TurnwiseError, match="no stored episode has a turn"):
        Logged([]).rollouts(0, 4)
