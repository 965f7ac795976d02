"""Tiny random models of many families, and what transformers' own forward says about packed sequences."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import transformers as hf
from torch import Tensor
from torch.nn import functional as F

from turnwise.batch import Batch, pack
from turnwise.episode import Cut, Episode, Turn
from turnwise.models import Policy, Sampling, build_tokenizer

WORDS = "go north south east west take key open door see a b c d e"
TOKENIZER = build_tokenizer([WORDS])
V = len(TOKENIZER)

_BASE: dict[str, Any] = {
    "vocab_size": V,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
}
_GROUPED = _BASE | {"num_key_value_heads": 2}
_OLD: dict[str, Any] = {"vocab_size": V, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}

PACKED: dict[str, Callable[[], Any]] = {
    "llama, one key head per query head": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**_BASE)),
    "llama, grouped queries": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**_GROUPED)),
    "llama, tied embeddings": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**_GROUPED, tie_word_embeddings=True)),
    "qwen2": lambda: hf.Qwen2ForCausalLM(hf.Qwen2Config(**_GROUPED)),
    "qwen3": lambda: hf.Qwen3ForCausalLM(hf.Qwen3Config(**_GROUPED, head_dim=16)),
    "mistral": lambda: hf.MistralForCausalLM(hf.MistralConfig(**_GROUPED, sliding_window=None)),
    "mixtral": lambda: hf.MixtralForCausalLM(hf.MixtralConfig(**_GROUPED, num_local_experts=4, sliding_window=None)),
    "phi3": lambda: hf.Phi3ForCausalLM(hf.Phi3Config(**_GROUPED, pad_token_id=0)),
    "smollm3": lambda: hf.SmolLM3ForCausalLM(hf.SmolLM3Config(**_GROUPED, pad_token_id=0)),
    "gpt neox": lambda: hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(**_BASE)),
    "gpt2": lambda: hf.GPT2LMHeadModel(
        hf.GPT2Config(vocab_size=V, n_embd=32, n_layer=2, n_head=4, n_positions=256, initializer_range=0.2)
    ),
}
"""Families whose sequences run packed through our attention."""

OWN: dict[str, Callable[[], Any]] = {
    "mistral, sliding window": lambda: hf.MistralForCausalLM(hf.MistralConfig(**_GROUPED, sliding_window=8)),
    "gemma2, soft caps": lambda: hf.Gemma2ForCausalLM(hf.Gemma2Config(**_GROUPED, head_dim=8)),
    "gemma3, sliding window": lambda: hf.Gemma3ForCausalLM(hf.Gemma3TextConfig(**_GROUPED, head_dim=8)),
    "gpt-oss, sinks": lambda: hf.GptOssForCausalLM(
        hf.GptOssConfig(**_GROUPED, head_dim=8, num_local_experts=4, num_experts_per_tok=2)
    ),
    "falcon": lambda: hf.FalconForCausalLM(hf.FalconConfig(**_OLD)),
    "falcon, alibi": lambda: hf.FalconForCausalLM(hf.FalconConfig(**_OLD, alibi=True)),
    "bloom, alibi": lambda: hf.BloomForCausalLM(hf.BloomConfig(vocab_size=V, hidden_size=32, n_layer=2, n_head=4)),
    "mamba": lambda: hf.MambaForCausalLM(
        hf.MambaConfig(vocab_size=V, hidden_size=32, num_hidden_layers=2, state_size=8)
    ),
}
"""Families that keep their own forward."""


def model(make: Callable[[], Any], seed: int = 0) -> Any:
    """A model with weights drawn from `seed`."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make().eval()


def policy(make: Callable[[], Any] = PACKED["llama, grouped queries"], **options: Any) -> Policy:
    """A policy around a new model."""
    return Policy(model(make), TOKENIZER, **options)


def episodes(n: int = 5, *, seed: int = 0, words: int = V, fresh: bool = False) -> list[Episode]:
    """Random dialogues of 1–4 turns; every third is truncated, some start afresh now and then."""
    rng = np.random.default_rng(seed)

    def ids(low: int, high: int) -> np.ndarray[Any, Any]:
        return rng.integers(5, words, size=rng.integers(low, high)).astype(np.int32)

    made: list[Episode] = []
    for i in range(n):
        turns: list[Turn] = []
        for t in range(int(rng.integers(1, 5))):
            act = ids(1, 5)
            turns.append(
                Turn(
                    ids(1, 9), act, np.log(rng.uniform(0.1, 1, len(act))).astype(np.float32), float(rng.normal()),
                    fresh=t == 0 or (fresh and i % 2 == 0),
                )
            )  # fmt: skip
        cut = i % 3 == 0
        made.append(
            Episode(
                f"g{i // 2}", tuple(turns), terminated=not cut, truncated=cut,
                last_obs=ids(1, 6) if cut else np.zeros(0, np.int32), cut=Cut.TURN_LIMIT if cut else None,
                last_fresh=cut and i == 3,
            )
        )  # fmt: skip
    return made


def rows(batch: Batch) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Token ids, action mask and sentinel mask of each sequence."""
    bounds = batch.cu_seqlens.tolist()
    return [(batch.tokens[a:b], batch.action[a:b], batch.final[a:b]) for a, b in pairwise(bounds)]


def own_log_probs(model: Any, batch: Batch, sampling: Sampling | None = None) -> Tensor:
    """(A,) log-probabilities from the model's own forward, one unpadded sequence at a time, shifted by hand."""
    sampling = sampling or Sampling()
    banned = getattr(model.generation_config, "suppress_tokens", None) or []
    parts: list[Tensor] = []
    for ids, action, _ in rows(batch):
        logits = model(input_ids=ids[None], use_cache=False).logits[0].float() / sampling.temperature
        logits[:, banned] = -torch.inf
        following = F.log_softmax(logits[:-1], dim=-1)
        said = following.gather(-1, ids[1:, None]).squeeze(-1)
        parts.append(said[action[1:]])
    return torch.cat(parts)


def batch(n: int = 5, *, seed: int = 0, fresh: bool = False, bootstrap: bool = False) -> Batch:
    """Packed random dialogues."""
    return pack(episodes(n, seed=seed, fresh=fresh), bootstrap=bootstrap)
