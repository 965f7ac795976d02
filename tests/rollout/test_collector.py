"""The loop: (1) the same tasks give the same episodes however many slots, wherever environments run, however small the
cache; (2) log-probabilities are the policy's own over many turns, for every memory; (3) how an episode ends decides what
is left to bootstrap from; (4) several agents have an episode each; (5) it runs where a loop runs already."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from tests.rollout import worlds
from turnwise.batch import pack
from turnwise.engines import LocalEngine
from turnwise.envs.prompts import PromptEnv
from turnwise.episode import Cut, Episode, Stop
from turnwise.models import Policy, Sampling, build_model
from turnwise.rollout import Collector, Memory, Task, held_out_tasks, training_tasks
from turnwise.testing import CountEnv, EchoEnv

WALK = partial(worlds.WalkEnv, longest=6)


def collect(tasks: list[Task], *, make: Any = WALK, policy: Policy | None = None, **options: Any) -> list[Episode]:
    collector = Collector(make, policy or worlds.policy(), **{"where": "inline", "slots": 4, **options})
    try:
        return collector.collect(tasks)
    finally:
        collector.close()


@pytest.fixture(scope="module")
def expected() -> list[Episode]:
    return collect(worlds.tasks(10, group_size=2), slots=1, on_length="act")


@pytest.mark.parametrize(
    "options",
    [
        {"slots": 4},
        {"slots": 64},
        {"slots": 4, "where": "thread"},
        {"slots": 64, "where": "thread"},
        {"slots": 3, "where": "process"},
        {"slots": 8, "cache": 2},
        {"slots": 8, "cache": 1, "where": "thread"},
    ],
)
def test_equal_tasks_give_equal_episodes(options: dict[str, Any], expected: list[Episode]) -> None:
    cache = options.pop("cache", None)
    engine = LocalEngine(worlds.policy(), slots=cache) if cache else None
    got = collect(worlds.tasks(10, group_size=2), on_length="act", engine=engine, **options)
    assert worlds.summaries(got) == worlds.summaries(expected)
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a.behaviour_logp, b.behaviour_logp, atol=1e-4)


def test_episodes_differ_between_keys_and_between_seeds(expected: list[Episode]) -> None:
    acts = [episode.turns[0].act.tolist() for episode in expected]
    assert any(acts[i] != acts[i + 1] for i in range(0, 20, 2))
    obs = [episode.turns[0].obs.tolist() for episode in expected]
    assert all(obs[i] == obs[i + 1] for i in range(0, 20, 2))
    assert len({str(o) for o in obs}) == 10


SAMPLINGS = [
    {},
    {"temperature": 0.6},
    {"temperature": 2.0, "top_k": 6},
    {"top_p": 0.7},
    {"temperature": 1.3, "top_k": 9, "top_p": 0.9},
    {"temperature": 0.0},
]
MEMORIES = [Memory(), Memory(turns=0), Memory(turns=2), Memory(limit=40, compact=True), Memory(limit=40)]


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_the_engine_records_what_the_learner_computes(sampling: dict[str, Any]) -> None:
    policy = worlds.policy(**sampling)
    for memory in MEMORIES:
        episodes = collect(worlds.tasks(6), policy=policy, on_length="act", memory=memory)
        assert max(len(episode.turns) for episode in episodes) >= (4 if memory.limit > 40 or memory.compact else 2)
        with torch.no_grad():
            said = policy.outputs(pack(episodes)).logp.numpy()
        recorded = np.concatenate([episode.behaviour_logp for episode in episodes])
        np.testing.assert_allclose(recorded, said, atol=1e-4)


def test_a_padded_policy_records_what_it_computes() -> None:
    import transformers as hf

    config = hf.MistralConfig(
        vocab_size=len(worlds.TOKENIZER), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256, sliding_window=8,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        policy = Policy(hf.MistralForCausalLM(config), worlds.TOKENIZER, sampling=Sampling(max_tokens=3))
    assert not policy.packed
    episodes = collect(worlds.tasks(4), policy=policy, on_length="act")
    with torch.no_grad():
        said = policy.outputs(pack(episodes)).logp.numpy()
    np.testing.assert_allclose(np.concatenate([e.behaviour_logp for e in episodes]), said, atol=1e-4)


def contexts(episode: Episode) -> list[list[int]]:
    """What stood before each action, put together from the deltas."""
    found: list[list[int]] = []
    context: list[int] = []
    for turn in episode.turns:
        context = ([] if turn.fresh else context) + turn.obs.tolist()
        found.append(context)
        context = context + turn.act.tolist()
    return found


@pytest.mark.parametrize("keep", [0, 1, 3, None])
def test_memory_keeps_the_latest_turns(keep: int | None) -> None:
    """The context of turn t is the rendered dialogue of its last `keep` turns and its observation."""
    policy = worlds.policy()
    renderer = policy.renderer
    episodes = collect(worlds.tasks(8), on_length="act", memory=Memory(turns=keep))
    assert max(len(episode.turns) for episode in episodes) == 6
    for episode in episodes:
        texts = observations(episode)
        for t, context in enumerate(contexts(episode)):
            start = 0 if keep is None else max(0, t - keep)
            said = renderer.first(texts[start]).tolist()
            for past in range(start, t):
                said += episode.turns[past].act.tolist()
                said += renderer.following(texts[past + 1], episode.turns[past].stop).tolist()
            assert context == said


def observations(episode: Episode) -> list[str]:
    """What the walk said, played again."""
    env = worlds.WalkEnv(6)
    said = [env.reset(seed=episode.seed)[0]]
    for turn in episode.turns:
        said.append(env.step(worlds.policy().renderer.action_text(turn.act))[0])
    return said


def test_compaction_keeps_going_where_the_context_would_end_the_episode() -> None:
    ended = collect(worlds.tasks(12), on_length="act", memory=Memory(limit=40))
    compacted = collect(worlds.tasks(12), on_length="act", memory=Memory(limit=40, compact=True))
    whole = collect(worlds.tasks(12), on_length="act")
    cut = [i for i, episode in enumerate(ended) if episode.cut is Cut.CONTEXT]
    assert cut
    for i, episode in enumerate(ended):
        if i in cut:
            assert episode.truncated
            assert not episode.failed
            assert "do not fit into a context" in episode.detail
            assert f"seed {episode.seed}, turn {len(episode.turns)}" in episode.detail
            assert not len(episode.last_obs)
            assert len(compacted[i].turns) > len(episode.turns)
        else:
            assert worlds.summary(episode) == worlds.summary(compacted[i]) == worlds.summary(whole[i])
    for episode in compacted:
        assert episode.cut is not Cut.CONTEXT
        spent = [len(c) + len(t.act) for c, t in zip(contexts(episode), episode.turns, strict=True)]
        assert max(spent) <= 40
        # A new beginning leaves room: half the context at most, unless the observation alone needs more.
        assert all(len(t.obs) <= 18 for t in episode.turns[1:] if t.fresh)


def test_the_models_own_limit_holds_whatever_the_memory() -> None:
    model = build_model(worlds.TOKENIZER, seed=7, context=48)
    policy = Policy(model, worlds.TOKENIZER, sampling=Sampling(max_tokens=4))
    episodes = collect(worlds.tasks(12), policy=policy, on_length="act")
    assert any(episode.cut is Cut.CONTEXT for episode in episodes)
    with torch.no_grad():
        policy.outputs(pack(episodes, bootstrap=True))
    assert pack(episodes, bootstrap=True).lengths.max() <= 48


# ---- ends ------------------------------------------------------------------------------------------------------------


def test_the_end_of_the_task_leaves_nothing_to_bootstrap_from() -> None:
    episodes = collect(worlds.tasks(12), on_length="act")
    assert {episode.cut for episode in episodes} == {None, Cut.TURN_LIMIT}
    for episode in episodes:
        assert episode.terminated != episode.truncated
        if episode.terminated:
            assert not len(episode.last_obs)
            assert episode.detail == ""
        else:
            last = observations(episode)[-1]
            expected = worlds.policy().renderer.following(last, episode.turns[-1].stop)
            assert episode.last_obs.tolist() == expected.tolist()
            assert "turn limit" in episode.detail
        assert [turn.fresh for turn in episode.turns] == [t == 0 for t in range(len(episode.turns))]
        assert all(turn.rewards == {"environment": turn.reward} for turn in episode.turns)


def test_the_last_observation_of_a_memoryless_policy_is_a_context_of_its_own() -> None:
    policy = worlds.policy()
    episodes = collect(worlds.tasks(12), on_length="act", memory=Memory(turns=0))
    cut = [episode for episode in episodes if episode.truncated]
    assert cut
    for episode in cut:
        assert episode.last_fresh
        assert episode.last_obs.tolist() == policy.renderer.first(observations(episode)[-1]).tolist()


@pytest.mark.parametrize("memory", [Memory(), Memory(turns=0)])
def test_our_own_turn_limit_truncates(memory: Memory) -> None:
    whole = collect(worlds.tasks(12), on_length="act", memory=memory)
    short = collect(worlds.tasks(12), on_length="act", memory=memory, max_turns=2)
    assert any(len(episode.turns) > 2 for episode in whole)
    for a, b in zip(whole, short, strict=True):
        assert len(b.turns) == min(2, len(a.turns))
        assert worlds.summary(a)[1][:2] == worlds.summary(b)[1]
        if len(a.turns) > 2:
            assert b.cut is Cut.TURN_LIMIT
            assert "collector's limit of 2 turns" in b.detail
            assert b.last_obs.tolist() == a.turns[2].obs.tolist()
            assert b.last_fresh == a.turns[2].fresh


def test_an_action_that_uses_up_its_budget_ends_the_episode_or_is_taken() -> None:
    policy = worlds.policy(max_tokens=2)
    taken = collect(worlds.tasks(12), policy=policy, on_length="act")
    ended = collect(worlds.tasks(12), policy=policy, on_length="truncate")
    assert any(turn.stop is Stop.LENGTH for episode in taken for turn in episode.turns[:-1])
    for a, b in zip(taken, ended, strict=True):
        long = [t for t, turn in enumerate(a.turns) if turn.stop is Stop.LENGTH]
        if not long:
            assert worlds.summary(a) == worlds.summary(b)
            continue
        assert len(b.turns) == long[0] + 1
        assert b.cut is Cut.LENGTH
        assert "budget of 2 tokens" in b.detail
        assert b.turns[-1].reward == 0.0
        assert not len(b.last_obs)
        assert not b.failed


def test_a_reply_is_an_episode_of_one_turn() -> None:
    def make() -> PromptEnv:
        return PromptEnv(["say yes", "say no"], lambda prompt, reply, row: float(len(reply)))

    episodes = collect(worlds.tasks(4), make=make, on_length="act")
    for episode in episodes:
        assert episode.terminated
        assert len(episode.turns) == 1
        assert episode.turns[0].reward == len(worlds.policy().renderer.action_text(episode.turns[0].act))


def test_figures_and_goals_reach_the_episode() -> None:
    episode = collect(worlds.tasks(1), make=CountEnv, on_length="act")[0]
    assert dict(episode.metrics) == {"success": 0.0}
    assert episode.env == "count"
    assert episode.world == f"g0/{0:016x}"


# ---- several agents --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["inline", "thread"])
def test_each_agent_has_an_episode_and_its_own_rewards(where: str) -> None:
    episodes = collect(worlds.tasks(3, group_size=2), make=worlds.duel, where=where, on_length="act")
    assert [episode.agent for episode in episodes] == ["alice", "bob"] * 6
    for alice, bob in zip(episodes[::2], episodes[1::2], strict=True):
        assert alice.world == bob.world
        assert alice.group == bob.group
        assert alice.terminated
        assert bob.terminated
        assert [turn.reward for turn in alice.turns] == [101.0, 101.0]
        assert [turn.reward for turn in bob.turns] == [10.0, 10.0]
        renderer = worlds.policy().renderer
        said = [renderer.action_text(turn.act) for turn in alice.turns]
        assert bob.turns[0].obs.tolist() == renderer.first(f"alice say {len(said[0])}").tolist()
        assert bob.goal == "alice: talk | bob: listen"
        assert alice.metrics["last"] == len(renderer.action_text(bob.turns[1].act))
    assert len({episode.world for episode in episodes}) == 6
    with torch.no_grad():
        said_logp = worlds.policy().outputs(pack(episodes)).logp.numpy()
    np.testing.assert_allclose(np.concatenate([e.behaviour_logp for e in episodes]), said_logp, atol=1e-4)


def test_a_cut_world_truncates_all_its_agents() -> None:
    episodes = collect(worlds.tasks(2), make=partial(worlds.duel, max_turns=3), on_length="act")
    for alice, bob in zip(episodes[::2], episodes[1::2], strict=True):
        assert [len(alice.turns), len(bob.turns)] == [2, 1]
        assert alice.cut is bob.cut is Cut.TURN_LIMIT
        # The one who would have acted next saw something; the other one's view ends with its action.
        assert len(bob.last_obs)
        assert not len(alice.last_obs)


def test_our_turn_limit_counts_each_agents_turns() -> None:
    episodes = collect(worlds.tasks(2), make=partial(worlds.duel, rounds=5), max_turns=2, on_length="act")
    assert [len(episode.turns) for episode in episodes] == [2, 2, 2, 2]
    assert all(episode.cut is Cut.TURN_LIMIT for episode in episodes)


# ---- around the loop -------------------------------------------------------------------------------------------------


def test_it_runs_where_a_loop_runs_already(expected: list[Episode]) -> None:
    async def notebook() -> list[Episode]:
        return collect(worlds.tasks(10, group_size=2), on_length="act")

    assert worlds.summaries(asyncio.run(notebook())) == worlds.summaries(expected)


def test_refresh_names_the_weights() -> None:
    class Learner:
        version = 5

    collector = Collector(EchoEnv, worlds.policy(), slots=2, where="inline", on_length="act")
    before = collector.collect(worlds.tasks(2))
    collector.refresh(Learner())
    after = collector.collect(worlds.tasks(2))
    collector.close()
    assert {turn.version for episode in before for turn in episode.turns} == {0}
    assert {turn.version for episode in after for turn in episode.turns} == {5}


def test_greedy_evaluation_is_greedy() -> None:
    collector = Collector(EchoEnv, worlds.policy(), where="inline", on_length="act")
    greedy = Sampling(temperature=0.0, max_tokens=4)
    a, b = (collector.collect(worlds.tasks(3, key=key), sampling=greedy) for key in (1, 2))
    collector.close()
    acts = [[[turn.act.tolist() for turn in episode.turns] for episode in part] for part in (a, b)]
    assert acts[0] == acts[1]
    assert all((episode.behaviour_logp == 0).all() for episode in a)


def test_progress_is_told() -> None:
    told: list[int] = []
    collector = Collector(EchoEnv, worlds.policy(), slots=3, where="thread")
    collector.collect(worlds.tasks(7), on_episode=told.append)
    collector.close()
    assert told == list(range(1, 8))
    assert collector.collect([]) == []


def test_tasks() -> None:
    tasks = training_tasks(3, 5, 4, 2)
    assert tasks == training_tasks(3, 5, 4, 2)
    assert [task.seed for task in tasks[::2]] == [task.seed for task in tasks[1::2]]
    assert len({task.key for task in tasks}) == 8
    assert [task.group for task in tasks] == ["5/0", "5/0", "5/1", "5/1", "5/2", "5/2", "5/3", "5/3"]
    others = {task.seed for i in range(50) for task in training_tasks(3, i, 40)}
    assert len(others) == 2000
    held = {task.seed for task in held_out_tasks(2000)}
    assert not held & others
    assert min(held) > max(others)
