"""What an engine records is what the learner says: (1) for every family, with adapters, shared prompts, copies, chunks and
every way to sample; (2) a copy of the weights in bfloat16 differs, says by how much, is corrected for, and learns."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from tests.engines.strict import ids
from tests.models import zoo
from turnwise.algorithms import Reinforce
from turnwise.algorithms.experience import recall
from turnwise.batch import pack
from turnwise.engines import Completion, LocalEngine, Request
from turnwise.engines.noise import mix
from turnwise.envs.prompts import PromptEnv
from turnwise.episode import Episode, Turn
from turnwise.learners import LocalLearner
from turnwise.models import LoraSettings, Policy, Sampling, build_model, build_tokenizer, with_lora
from turnwise.rollout import Collector, Task, held_out_tasks

_EMPTY = np.zeros(0, np.int32)


def rollouts(engine: LocalEngine, policy: Policy, *, n: int = 8, turns: int = 3) -> list[Episode]:
    """Groups of four with a common prompt; half of a group begins when the other half is under way."""

    async def episode(session: int) -> Episode:
        made: list[Turn] = []
        context = _EMPTY
        for turn in range(turns):
            obs = np.concatenate([ids(session // 4, 21), ids(session, 2)]) if not turn else ids(31 * session + turn, 5)
            context = np.concatenate([context, obs])
            request = Request(context, session, mix(session, turn), policy.sampling, policy.renderer.stop)
            done: Completion = await engine.generate(request)
            made.append(Turn(obs, done.ids, done.logp, 0.0, done.version, fresh=not turn, stop=done.stop))
            uncertain[session, turn] = done.entropy
            context = np.concatenate([context, done.ids])
        engine.release(session)
        return Episode(f"g{session // 4}", tuple(made), True, False, _EMPTY)

    async def everybody() -> list[Episode]:
        early = [asyncio.ensure_future(episode(s)) for s in range(0, n, 2)]
        for _ in range(4):
            await asyncio.sleep(0)
        late = [asyncio.ensure_future(episode(s)) for s in range(1, n, 2)]
        found = dict(zip([*range(0, n, 2), *range(1, n, 2)], await asyncio.gather(*early, *late), strict=True))
        return [found[s] for s in range(n)]

    uncertain: dict[tuple[int, int], Any] = {}
    episodes = asyncio.run(everybody())
    with torch.no_grad():
        said = policy.outputs(pack(episodes))
    recorded = np.concatenate([one.behaviour_logp for one in episodes])
    entropies = np.concatenate([uncertain[s, t] for s in range(n) for t in range(turns)])
    np.testing.assert_allclose(recorded, said.logp, atol=2e-5)
    np.testing.assert_allclose(entropies, said.entropy, atol=1e-4)
    return episodes


def adapted(sampling: Sampling) -> Policy:
    pytest.importorskip("peft")
    model = with_lora(zoo.model(zoo.PACKED["qwen2"]), LoraSettings(4))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.2, generator=torch.Generator().manual_seed(3))
    return Policy(model, zoo.TOKENIZER, sampling=sampling)


MODELS: dict[str, Any] = {
    "llama": lambda sampling: zoo.policy(sampling=sampling),
    "qwen3": lambda sampling: zoo.policy(zoo.PACKED["qwen3"], sampling=sampling),
    "adapter": adapted,
    "gpt2, no lean decoder": lambda sampling: zoo.policy(zoo.PACKED["gpt2"], sampling=sampling),
    "bloom, unknown attention": lambda sampling: zoo.policy(zoo.OWN["bloom, alibi"], sampling=sampling),
    "sinks, unknown attention": lambda sampling: zoo.policy(zoo.OWN["gpt-oss, sinks"], sampling=sampling),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("pass_tokens", [9, 4096])
def test_the_engine_records_what_the_learner_says(name: str, pass_tokens: int) -> None:
    policy = MODELS[name](Sampling(temperature=0.9, max_tokens=4))
    engine = LocalEngine(policy, slots=6, pass_tokens=pass_tokens)
    rollouts(engine, policy)
    assert engine.tokens_copied
    engine.load(1)
    assert all(turn.version == 1 for episode in rollouts(engine, policy) for turn in episode.turns)


@pytest.mark.parametrize(
    "sampling",
    [
        {"top_k": 4},
        {"top_p": 0.7},
        {"top_k": 9, "top_p": 0.9, "temperature": 1.7},
        {"temperature": 3.0},
        {"stop": ("o",)},
    ],
)
def test_so_it_does_for_every_way_to_sample(sampling: dict[str, Any]) -> None:
    policy = zoo.policy(sampling=Sampling(max_tokens=5, **sampling))
    rollouts(LocalEngine(policy, slots=5), policy)


TOKENIZER = build_tokenizer(["choose red green blue now then"])


def speaker(seed: int, max_tokens: int = 1) -> Policy:
    """A policy that says words out of three."""
    model = build_model(TOKENIZER, seed=seed, context=64)
    said = {TOKENIZER.encode(word)[0] for word in ("red", "green", "blue")}
    model.generation_config.suppress_tokens = [token for token in range(len(TOKENIZER)) if token not in said]
    return Policy(model, TOKENIZER, sampling=Sampling(max_tokens=max_tokens))


def judge(prompt: str, reply: str, row: Any) -> float:
    return {"red": 0.1, "green": 0.4, "blue": 1.0}.get(reply, 0.0)


def collector(policy: Policy, dtype: str) -> Collector:
    engine = LocalEngine(policy, slots=64, dtype=dtype)
    make = partial(PromptEnv, ["choose now", "choose then"], judge)
    return Collector(make, policy, engine=engine, slots=64, where="inline", on_length="act")


def test_a_rollout_in_bfloat16_says_how_far_it_is_and_is_corrected_for() -> None:
    policy = speaker(0, max_tokens=6)
    learner = LocalLearner(policy)
    tasks = [Task(i, str(i), i) for i in range(64)]
    found = {dtype: recall(learner, collector(policy, dtype).collect(tasks)) for dtype in ("", "bfloat16")}
    exact, rounded = found[""], found["bfloat16"]
    assert exact is not None
    assert rounded is not None
    assert exact.metrics["drift/max_abs"][0] < 1e-5
    total, count = rounded.metrics["drift/mean_abs"]
    assert 1e-4 < total / count < 0.05
    # The streams that training reads: what the learner says, and the ratio to what was sampled from.
    said = learner.evaluate(pack(rounded.episodes)).logp
    torch.testing.assert_close(rounded.batch.stream("old_logp"), said)
    behaviour = torch.from_numpy(np.concatenate([one.behaviour_logp for one in rounded.episodes]))
    ratio = (said.double() - behaviour.double()).exp().float()
    torch.testing.assert_close(rounded.batch.stream("importance"), ratio.clamp(max=2.0))
    assert (rounded.batch.stream("importance") != 1).any()


def test_a_policy_learns_from_rollouts_in_bfloat16() -> None:
    learner = LocalLearner(speaker(0), lr=3e-3)
    source = collector(learner.policy, "bfloat16")
    algorithm = Reinforce(groups=4, group_size=8, minibatch=16)
    for iteration in range(25):
        algorithm.improve(learner, algorithm.collect(source, iteration))
        source.refresh(learner)
    episodes = source.collect(held_out_tasks(100))
    source.close()
    assert np.mean([episode.undiscounted_return for episode in episodes]) > 0.85
