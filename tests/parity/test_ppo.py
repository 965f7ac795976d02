"""PPO against the last release of TRL that had it, called in a process of its own: (1) with answers of full length, advantages
and returns of `TokenPPO`, from the same tokens, scores and values; (2) whitened rewards; (3) what an answer without a stop
token costs; (4) after a stop token TRL takes one step more, in which `gae_tokens` agrees as well.

The release runs its own `train`, up to the point where the advantages are there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.parity.old_releases import run_with, trl_release
from tests.parity.trl import TOKENIZER, episode, needs_trl, policy_like, tiny_model
from turnwise.algorithms import TokenPPO
from turnwise.algorithms.experience import recall
from turnwise.algorithms.reference import kl_penalty
from turnwise.credit import gae_tokens, whiten
from turnwise.episode import Episode, Stop
from turnwise.learners import LocalLearner
from turnwise.rewards import judged, missing_eos

pytestmark = needs_trl

N, PROMPT, ANSWER = 8, 3, 6
BETA, LAM = 0.2, 0.95

SCRIPT = """
import sys, torch
from safetensors.torch import load_file, save_file
from datasets import Dataset
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM, Qwen2ForSequenceClassification
from trl.experimental.ppo import PPOConfig, PPOTrainer
import trl.experimental.ppo.ppo_trainer as module

tokenizer = AutoTokenizer.from_pretrained(given["tokenizer"])
config = Qwen2Config(**given["config"])
stored = load_file(given["weights"])
models = []
for name in ("policy", "reference"):
    model = Qwen2ForCausalLM(config)
    model.load_state_dict({k.partition("/")[2]: v for k, v in stored.items() if k.startswith(name + "/")})
    models.append(model)
judges = []
for seed in (3, 4):
    torch.manual_seed(seed)
    config.num_labels = 1
    judges.append(Qwen2ForSequenceClassification(config))
queries = stored["queries"]
answers = {}
for name, options in given["runs"].items():
    responses = stored["responses " + name.partition(",")[0]]
    both = torch.cat([queries, responses], 1)

    def generated(model, queries, *_):
        with torch.no_grad():
            logits = model(both).logits[:, queries.shape[1] - 1 : -1]
        return both, logits

    module.batch_generation = generated

    class Enough(Exception):
        pass

    whiten = module.masked_whiten

    def caught(values, mask, shift_mean=True):
        result = whiten(values, mask, shift_mean)
        seen = sys._getframe(1).f_locals
        if "returns" in seen:
            kept = ("scores", "values", "returns", "rewards", "sequence_lengths", "logprobs", "ref_logprobs")
            for key in kept:
                answers[name + "/" + key] = seen[key].detach().float().contiguous()
            answers[name + "/advantages"] = torch.masked_fill(result, seen["padding_mask"], 0).contiguous()
            raise Enough
        return result

    module.masked_whiten = caught
    args = PPOConfig(
        output_dir=given["folder"], report_to="none", use_cpu=True, bf16=False, gradient_checkpointing=False,
        per_device_train_batch_size=len(queries), num_mini_batches=1, total_episodes=len(queries), temperature=1.0,
        response_length=responses.shape[1], num_sample_generations=0, disable_tqdm=True, **options,
    )
    trainer = PPOTrainer(
        args=args, processing_class=tokenizer, model=models[0], ref_model=models[1], reward_model=judges[0],
        value_model=judges[1], train_dataset=Dataset.from_dict({"input_ids": queries.tolist()}),
    )
    trainer.dataloader = [{"input_ids": queries}]
    try:
        trainer.train()
    except Enough:
        pass
    module.masked_whiten = whiten
save_file(answers, given["answers"])
answer = {"runs": sorted(given["runs"])}
"""

RUNS: dict[str, dict[str, Any]] = {
    "full": {"kl_coef": BETA},
    "full, discounted": {"kl_coef": BETA, "gamma": 0.9, "lam": 0.8},
    "full, whitened": {"kl_coef": BETA, "whiten_rewards": True},
    "full, fined": {"kl_coef": BETA, "missing_eos_penalty": 1.5},
    "stopped": {"kl_coef": BETA, "stop_token": "eos"},
}
"""Name -> options; what is before the comma says which answers."""


@dataclass
class Theirs:
    """What the release computed, by run and name, and the ids it was given."""

    tensors: dict[str, torch.Tensor]
    queries: torch.Tensor
    responses: dict[str, torch.Tensor]

    def run(self, name: str) -> dict[str, torch.Tensor]:
        return {key.partition("/")[2]: t for key, t in self.tensors.items() if key.partition("/")[0] == name}


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Theirs:
    release = trl_release("1.12.0")
    folder: Path = tmp_path_factory.mktemp("ppo")
    TOKENIZER.save_pretrained(folder / "tokenizer")
    words = torch.tensor(TOKENIZER.encode("go north south east west take key open door see a b c"))
    generator = torch.Generator().manual_seed(0)

    def random(columns: int) -> torch.Tensor:
        return words[torch.randint(len(words), (N, columns), generator=generator)]

    queries, full, stopped = random(PROMPT), random(ANSWER), random(ANSWER)
    for i in range(N - 2):  # the last two have no stop token
        stopped[i, i % (ANSWER - 1)] = TOKENIZER.eos_token_id
    policy, reference = tiny_model(), tiny_model(seed=1)
    weights = {f"policy/{name}": t for name, t in policy.state_dict().items()}
    weights |= {f"reference/{name}": t for name, t in reference.state_dict().items()}
    save_file(
        {k: t.contiguous() for k, t in weights.items()}
        | {"queries": queries, "responses full": full, "responses stopped": stopped},
        folder / "given.safetensors",
    )
    given = {
        "tokenizer": str(folder / "tokenizer"), "config": policy.config.to_dict(), "runs": RUNS, "folder": str(folder),
        "weights": str(folder / "given.safetensors"), "answers": str(folder / "answers.safetensors"),
    }  # fmt: skip
    run_with(release, SCRIPT, given)
    return Theirs(load_file(folder / "answers.safetensors"), queries, {"full": full, "stopped": stopped})


def credit_of(theirs: Theirs, run: dict[str, torch.Tensor], ppo: TokenPPO, episodes: list[Episode]) -> Any:
    """Our advantages and returns per token: our log-probabilities and divergence, their scores and values."""
    learner = LocalLearner(policy_like(tiny_model()), reference=policy_like(tiny_model(seed=1)))
    experience = recall(learner, episodes)
    assert experience is not None
    experience = replace(experience, values=[row.double().numpy() for row in run["values"]], bootstrap=np.zeros(N))
    penalty, _ = kl_penalty(learner, experience, ppo.kl_coef)
    advantages, returns, _ = ppo.credit(experience, penalty)
    return np.stack(advantages), np.stack(returns)


def full(theirs: Theirs, scores: torch.Tensor) -> list[Episode]:
    rows = zip(theirs.queries.tolist(), theirs.responses["full"].tolist(), scores.tolist(), strict=True)
    return [episode(*row) for row in rows]


AS_TRL = TokenPPO(gamma=1.0, lam=LAM, discount="tokens", reward_scale=1.0, kl_coef=BETA)


@pytest.mark.parametrize(
    ("name", "ppo"),
    [
        ("full", AS_TRL),
        ("full, discounted", replace(AS_TRL, gamma=0.9, lam=0.8)),
        ("full, whitened", replace(AS_TRL, whiten_rewards=True)),
    ],
)
def test_advantages_and_returns(theirs: Theirs, name: str, ppo: TokenPPO) -> None:
    run = theirs.run(name)
    advantages, returns = credit_of(theirs, run, ppo, full(theirs, run["scores"]))
    assert run["advantages"].std() > 0.5
    np.testing.assert_allclose(advantages, run["advantages"].numpy(), atol=3e-6)
    np.testing.assert_allclose(returns, run["returns"].numpy(), atol=3e-6)


def test_an_answer_without_a_stop_token_is_fined(theirs: Theirs) -> None:
    before, run = theirs.run("full")["scores"], theirs.run("full, fined")
    episodes = full(theirs, before)
    cut = [replace(one, turns=(replace(one.turns[0], stop=Stop.LENGTH),)) for one in episodes]
    paid = judged(
        cut,
        {"label": (1.0, lambda given: [one.rewards for one in given]), "cut": (1.0, missing_eos(1.5))},
    )
    np.testing.assert_allclose([one.undiscounted_return for one in paid], run["scores"].numpy(), atol=1e-6)
    _, returns = credit_of(theirs, run, AS_TRL, paid)
    np.testing.assert_allclose(returns, run["returns"].numpy(), atol=3e-6)


def test_after_a_stop_token_theirs_takes_one_step_more(theirs: Theirs) -> None:
    """The score is paid at the position after the stop token, and the critic is read there once more.

    A stopped answer of n tokens then has n + 1 steps; one that fills its budget has its own, as ours.
    """
    run = theirs.run("stopped")
    lengths = run["sequence_lengths"].long() + 1
    learner = LocalLearner(policy_like(tiny_model()), reference=policy_like(tiny_model(seed=1)))
    rows = zip(theirs.queries.tolist(), theirs.responses["stopped"].tolist(), lengths.tolist(), strict=True)
    experience = recall(learner, [episode(query, answer[:n]) for query, answer, n in rows])
    assert experience is not None
    penalty, _ = kl_penalty(learner, experience, BETA)
    steps = [min(int(n) + 1, ANSWER) for n in lengths]
    rewards = [np.pad(taken, (0, n - len(taken))) for taken, n in zip(penalty, steps, strict=True)]
    for reward, score in zip(rewards, run["scores"], strict=True):
        reward[-1] += float(score)
    values = [row[:n].double().numpy() for row, n in zip(run["values"], steps, strict=True)]
    advantages, returns = gae_tokens(rewards, values, None, [[n] for n in steps], 1.0, LAM)
    whitened = whiten([advantage[: int(n)] for advantage, n in zip(advantages, lengths, strict=True)])
    assert {int(n) for n in lengths} >= {1, 2, 3, 4, 5, ANSWER}
    for i in range(N):
        np.testing.assert_allclose(whitened[i], run["advantages"][i, : int(lengths[i])].numpy(), atol=3e-6)
        np.testing.assert_allclose(returns[i], run["returns"][i, : steps[i]].numpy(), atol=3e-6)
