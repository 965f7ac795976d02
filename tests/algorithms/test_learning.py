"""Every method learns what it should, on a world small enough to know the answer: three words, one of which pays."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

from turnwise.algorithms import GRPO, PPO, RLOO, SFT, Reinforce, TokenPPO
from turnwise.envs import env
from turnwise.envs.prompts import PromptEnv
from turnwise.episode import Transcript
from turnwise.learners import LocalLearner
from turnwise.models import Policy, Sampling, build_model, build_tokenizer
from turnwise.rollout import Collector, Logged, episodes_of, held_out_tasks

PAYS = {"red": 0.1, "green": 0.4, "blue": 1.0}
TOKENIZER = build_tokenizer(["choose red green blue now then"])


def judge(prompt: str, reply: str, row: Any) -> float:
    return PAYS.get(reply, 0.0)


def policy(seed: int, *, value_head: bool) -> Policy:
    """A policy that says one word of three."""
    model = build_model(TOKENIZER, seed=seed, context=64)
    said = {TOKENIZER.encode(word)[0] for word in PAYS}
    model.generation_config.suppress_tokens = [token for token in range(len(TOKENIZER)) if token not in said]
    return Policy(model, TOKENIZER, value_head=value_head, sampling=Sampling(max_tokens=1))


def trained(algorithm: Any, make: Any, seed: int, steps: int, lr: float = 3e-3) -> Collector:
    """The collector after training, ready to evaluate."""
    learner = LocalLearner(policy(seed, value_head=isinstance(algorithm, PPO)), lr=lr)
    collector = Collector(make, learner.policy, slots=64, where="inline", on_length="act", seed=seed)
    for iteration in range(steps):
        learner.anneal(iteration / steps)
        algorithm.improve(learner, algorithm.collect(collector, iteration))
        collector.refresh(learner)
    return collector


def mean_return(collector: Collector) -> float:
    episodes = collector.collect(held_out_tasks(100))
    collector.close()
    return float(np.mean([episode.undiscounted_return for episode in episodes]))


METHODS: dict[str, Any] = {
    "ppo": PPO(episodes=32, minibatch=16, epochs=2, reward_scale=1.0),
    "ppo-token": TokenPPO(episodes=32, minibatch=16, epochs=2, reward_scale=1.0),
    "reinforce": Reinforce(groups=4, group_size=8, minibatch=16),
    "grpo": GRPO(groups=4, group_size=8, minibatch=16),
    "rloo": RLOO(groups=4, group_size=8, minibatch=16),
}


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", METHODS)
def test_three_words(name: str, seed: int) -> None:
    """The best word is said nearly always; a random policy gets half of it."""
    make = partial(PromptEnv, ["choose now", "choose then"], judge)
    assert mean_return(trained(METHODS[name], make, seed, 25)) > 0.85


@env(max_turns=2)
async def delayed(agent: Any, rng: Any) -> None:
    """The first word decides what the second answer pays; saying the tempting one pays a little at once."""
    first = await agent.act("choose now")
    agent.reward(0.3 if first == "red" else 0.0)
    await agent.act("choose then")
    agent.reward(1.0 if first == "blue" else 0.0)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", ["ppo", "reinforce"])
def test_a_reward_that_comes_later_wins_over_one_that_tempts(name: str, seed: int) -> None:
    assert mean_return(trained(METHODS[name], delayed, seed, 35)) > 0.85


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_imitation(seed: int) -> None:
    shown = [
        Transcript(("choose now",), ("green",), (0.4,), terminated=True, truncated=False, seed=i) for i in range(8)
    ]
    learner = LocalLearner(policy(seed, value_head=False), lr=3e-3)
    source = Logged(episodes_of(shown, learner.policy), seed=seed)
    algorithm = SFT(episodes=8, minibatch=4)
    for iteration in range(15):
        algorithm.improve(learner, algorithm.collect(source, iteration))
    make = partial(PromptEnv, ["choose now"], judge)
    collector = Collector(make, learner.policy, where="inline", on_length="act")
    assert mean_return(collector) == pytest.approx(0.4, abs=0.03)
