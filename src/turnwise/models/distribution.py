"""From logits to the distribution that is really sampled; the one place for temperature, top-k, top-p and banned ids.

Engine and learner both call `log_probs`, so a recorded log-probability and a trained one mean the same thing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Sampling:
    """How actions are drawn.

    Attributes:
        temperature: Divides the logits; 0 means greedy (the log-probability of the arg-max is then 0).
        top_k: Keep the k most likely tokens, and those as likely as the k-th; 0 keeps all.
        top_p: Keep the smallest set of tokens whose probability reaches this mass; 1 keeps all.
        max_tokens: Budget of one action, stop token included.
        stop: Texts that end an action: with the token that completes one of them, which stays part of it.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    max_tokens: int = 32
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ValueError(f"temperature={self.temperature} is negative; use 0 for greedy or a positive number")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p} keeps no token; use a number in (0, 1]")
        if self.top_k < 0:
            raise ValueError(f"top_k={self.top_k} is negative; use 0 to keep every token")
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens={self.max_tokens} leaves no room for an action; use at least 1")
        if not isinstance(self.stop, tuple) or not all(self.stop):
            raise ValueError(f"stop={self.stop!r} is not a tuple of texts, none of them empty, such as ('</answer>',)")


def wide(values: Tensor) -> Tensor:
    """The values in float32, or as they are if they are in float64."""
    return values if values.dtype == torch.float64 else values.float()


def log_probs(logits: Tensor, sampling: Sampling, banned: Tensor | None = None, taken: Tensor | None = None) -> Tensor:
    """Log-probabilities of the distribution really sampled, renormalised over the kept tokens.

    Args:
        logits: (N, V), any float dtype.
        sampling: Temperature and truncation.
        banned: (B,) int64 ids that are never sampled.
        taken: (N,) int64 ids that somebody chose; each joins the support of its row if it lies outside. A token sampled
            at the very edge of top-k or top-p may fall out of it by the rounding of another forward pass, and a
            demonstrator knows no support; either would have log-probability -inf, and no gradient could learn from it.

    Returns:
        (N, V) float32 (float64 if the logits are), -inf outside the support.
    """
    logits = wide(logits)
    whole = logits
    if banned is not None and len(banned):
        logits = logits.index_fill(-1, banned, -torch.inf)
    if sampling.temperature == 0:
        best = logits.argmax(-1, keepdim=True)
        return torch.full_like(logits, -torch.inf).scatter(-1, best, 0.0)
    if sampling.temperature != 1:
        logits = logits / sampling.temperature
    if 0 < sampling.top_k < logits.shape[-1]:
        kth = logits.detach().topk(sampling.top_k, dim=-1).values[..., -1:]
        logits = logits.masked_fill(logits < kth, -torch.inf)
    if sampling.top_p < 1:
        ordered, order = logits.detach().softmax(-1).sort(dim=-1, descending=True)
        # A token goes when the mass before it already reaches top_p; the most likely one always stays.
        beyond = ordered.cumsum(-1) - ordered >= sampling.top_p
        logits = logits.masked_fill(torch.zeros_like(beyond).scatter(-1, order, beyond), -torch.inf)
    if taken is not None:
        index = taken[:, None]
        if bool((logits.gather(-1, index) == -torch.inf).any()):
            logits = logits.scatter(-1, index, whole.gather(-1, index) / sampling.temperature)
    return logits.log_softmax(-1)


def entropy(logp: Tensor) -> Tensor:
    """(N,) entropy in nats of (N, V) log-probabilities; tokens outside the support count as zero."""
    kept = logp.masked_fill(logp == -torch.inf, 0.0)
    return -(kept * logp.exp()).sum(-1)
