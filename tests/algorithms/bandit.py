"""A world small enough to know every answer: one prompt, and all completions of a few words, each with a known reward.

What a method with a KL penalty converges to is then known in closed form: π*(y) ∝ π_ref(y) exp(r(y)/β).

    bandit = Bandit([0.0, 0.5, 1.0])              three completions of one token
    bandit = Bandit(rewards_of_9, length=2)       nine completions of two tokens out of three words
    bandit = Bandit(rewards_of_9, length=2, turns=True)   the same, each token an action of its own

It is a source (`rollouts`, `refresh`) of episodes sampled from the present policy, with the reward at the last turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from turnwise.batch import pack
from turnwise.episode import Episode, Turn
from turnwise.models import Policy, build_tokenizer

WORDS = "red green blue white black gold pink gray"
TOKENIZER = build_tokenizer(["choose then " + WORDS])


class Bandit:
    """All completions of `length` tokens, their rewards, and a policy that can say nothing else.

    Args:
        rewards: (K,) reward of each completion, the last token varying fastest; K is the number of words to the power
            of `length`.
        length: Tokens of a completion.
        turns: Each token is an action of its own, with an observation before it.
        seed: Of the policy's weights and of what is sampled.
        spread: Scale of the weights: how far the starting policy is from uniform.
        value_head: Give the policy a critic.
    """

    def __init__(
        self,
        rewards: Sequence[float],
        *,
        length: int = 1,
        turns: bool = False,
        seed: int = 0,
        spread: float = 0.4,
        value_head: bool = False,
    ) -> None:
        self.rewards = np.asarray(rewards, np.float64)
        words = round(len(rewards) ** (1 / length))
        assert words**length == len(rewards), "the number of rewards is the number of words to the power of `length`"
        said = [TOKENIZER.encode(word)[0] for word in WORDS.split()[:words]]
        self.completions = list(product(said, repeat=length))
        self.turns = turns
        self.seed = seed
        self.prompt = np.array(TOKENIZER.encode("choose"), np.int32)
        self.between = np.array(TOKENIZER.encode("then"), np.int32)
        self.policy = _policy(said, seed, spread, value_head)
        self._logp = self._log_probabilities(self.policy)

    def __len__(self) -> int:
        """Number of completions K."""
        return len(self.completions)

    def episode(
        self, index: int, reward: float | None = None, group: str = "0", *, logp: ArrayLike | None = None, **fields: Any
    ) -> Episode:
        """The episode in which completion `index` is said; paid what it is worth unless told otherwise.

        Its recorded log-probabilities are `logp`, (length,), or 0: nobody knows them.
        """
        completion = np.array(self.completions[index], np.int32)
        recorded = np.zeros(len(completion), np.float32) if logp is None else np.asarray(logp, np.float32)
        paid = float(self.rewards[index] if reward is None else reward)
        parts = len(completion) if self.turns else 1
        turns = []
        for t, (act, said) in enumerate(zip(np.split(completion, parts), np.split(recorded, parts), strict=True)):
            worth = paid if t == parts - 1 else 0.0
            obs = self.between if t else self.prompt
            turns.append(Turn(obs, act, said, worth, fresh=t == 0, rewards={"environment": worth}))
        return Episode(group, tuple(turns), terminated=True, truncated=False, last_obs=np.zeros(0, np.int32), **fields)

    def probabilities(self, policy: Policy) -> NDArray[np.float64]:
        """(K,) the exact probability of each completion."""
        return np.exp(self._log_probabilities(policy).sum(1))

    def _log_probabilities(self, policy: Policy) -> NDArray[np.float64]:
        """(K, length)."""
        with torch.no_grad():
            logp = policy.outputs(pack([self.episode(k) for k in range(len(self))])).logp
        return logp.double().numpy().reshape(len(self), -1)

    def optimum(self, reference: ArrayLike, beta: float) -> NDArray[np.float64]:
        """(K,) π_ref exp(r/β) / Z: what maximises E[r] − β KL(π‖π_ref)."""
        exponent = np.log(np.asarray(reference)) + self.rewards / beta
        weight = np.exp(exponent - exponent.max())
        return weight / weight.sum()

    # ---- a source of sampled episodes --------------------------------------------------------------------------------

    def rollouts(self, iteration: int, groups: int, group_size: int = 1, first: int = 0) -> list[Episode]:
        """`groups` · `group_size` completions drawn from the policy as it was at the last `refresh`."""
        rng = np.random.default_rng([self.seed, iteration, first])
        p = np.exp(self._logp.sum(1))
        drawn = rng.choice(len(self), size=groups * group_size, p=p / p.sum())
        return [
            self.episode(int(k), group=f"{iteration}/{first + i // group_size}", logp=self._logp[k])
            for i, k in enumerate(drawn)
        ]

    def refresh(self, learner: Any) -> None:
        """Sample from the learner's present weights from now on."""
        self._logp = self._log_probabilities(learner.policy)


def total_variation(p: ArrayLike, q: ArrayLike) -> float:
    """½ Σ |p − q|."""
    return float(0.5 * np.abs(np.asarray(p) - np.asarray(q)).sum())


def _policy(said: list[int], seed: int, spread: float, value_head: bool) -> Policy:
    config = LlamaConfig(
        vocab_size=len(TOKENIZER),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=32,
        tie_word_embeddings=False,
        initializer_range=spread,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    never = [token for token in range(len(TOKENIZER)) if token not in said]
    model.generation_config = GenerationConfig(suppress_tokens=never)
    return Policy(model, TOKENIZER, value_head=value_head)
