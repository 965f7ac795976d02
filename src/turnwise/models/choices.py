"""How likely a model is to begin its answer with each of a few words: a cheaper and steadier opinion than a sampled one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from turnwise.batch import pack
from turnwise.episode import Episode, Ids, Turn
from turnwise.errors import TurnwiseError
from turnwise.models.policy import Policy
from turnwise.text import Conversation


def choice_log_probs(
    policy: Policy,
    conversations: Sequence[Sequence[Mapping[str, str]]],
    words: Sequence[str],
    *,
    max_tokens: int = 16_384,
) -> NDArray[np.float64]:
    """log P(the answer begins with the word), at temperature 1 and without truncation.

    Args:
        policy: The model; nothing of it changes.
        conversations: Messages, the policy speaks next.
        words: At least two words.
        max_tokens: Tokens per forward pass; a longer context comes alone.

    Returns:
        (n, k) float64, one row per conversation and one column per word; a row of NaN where the conversation and a word
        are longer than the model's context.

    Raises:
        TurnwiseError: words that are equal in the model's tokens, so that no probability could tell them apart.
    """
    ids = [policy.renderer.action_ids(word)[:-1] for word in words]
    spelt = [tuple(one.tolist()) for one in ids]
    if len(set(spelt)) < len(words) or not all(spelt):
        raise TurnwiseError(
            f"the model's tokenizer cannot tell {', '.join(map(repr, words))} apart; choose words that it knows"
        )
    result = np.full((len(conversations), len(words)), math.nan)
    longest = max(map(len, ids))
    asked: list[tuple[int, int]] = []
    episodes: list[Episode] = []
    for row, messages in enumerate(conversations):
        context = policy.renderer.first(Conversation(messages))
        if len(context) + longest <= policy.context_limit:
            asked += [(row, column) for column in range(len(words))]
            episodes += [_answered(context, word) for word in ids]
    plain = policy.with_sampling(temperature=1.0, top_k=0, top_p=1.0)
    batch = pack(episodes)
    for part in batch.micro_batches(max_tokens):
        chosen = batch.select(part)
        with torch.no_grad():
            logp = plain.outputs(chosen).logp.double().cpu()
        owner = chosen.sequence[chosen.action].cpu()
        sums = torch.zeros(len(part), dtype=torch.float64).index_add(0, owner, logp)
        for sequence, total in zip(part, sums.tolist(), strict=True):
            result[asked[sequence]] = total
    return result


def _answered(context: Ids, word: Ids) -> Episode:
    turn = Turn(context, word, np.zeros(len(word), np.float32), 0.0, fresh=True)
    return Episode("", (turn,), True, False, np.zeros(0, np.int32))
