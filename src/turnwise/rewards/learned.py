"""Rewards that were learned: a reward model or a process reward model pays for what a policy did.

The scores are those of frozen weights: nothing here takes a gradient or draws a number. Where the scorer has the policy's
vocabulary it reads the very ids that were sampled; otherwise it must be told to read the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from turnwise.batch import Outputs, pack, unpack
from turnwise.episode import Episode, Ids, Turn
from turnwise.models import Scorer
from turnwise.rewards.reward import RewardError, where
from turnwise.text import Reader, Renderer

MAX_TOKENS = 8192
"""Tokens that go through a scorer at once."""


class RewardModelReward:
    """The score of a reward model at the end of each episode, paid at its last turn; the turns before get 0.

    The score is read at the last action token of the last turn, where the reward model was trained to say it.

    Args:
        scorer: A `Scorer` of kind "reward".
        renderer: The renderer that the episodes are made with (`policy.renderer`).
        text: Read the transcript in words and tokenise it with the scorer's own tokenizer and template. It is what a
            scorer of another vocabulary needs.
        max_tokens: Tokens that go through the scorer at once.

    Raises:
        RewardError: the scorer is of the other kind, or has another vocabulary and `text` is off.
    """

    def __init__(self, scorer: Scorer, renderer: Renderer, *, text: bool = False, max_tokens: int = MAX_TOKENS) -> None:
        self.scorer = _of_kind(scorer, "reward")
        self._translator = _translator(scorer, renderer, text)
        self.max_tokens = max_tokens

    def __call__(self, episodes: list[Episode]) -> list[NDArray[np.float64]]:
        """Per episode (n_turns,): zeros, and the score at the last turn.

        Raises:
            RewardError: an episode is longer than the scorer can read.
        """
        paid = [np.zeros(len(episode.turns)) for episode in episodes]
        for array, scores in zip(paid, _scores(self.scorer, self._translator, episodes, self.max_tokens), strict=True):
            if len(scores):
                array[-1] = scores[-1]
        return paid


class ProcessReward:
    """The probability that each step is right, paid at every turn.

    A process reward model says at the last token of a step how likely the step is right given those before it, so a turn
    is paid p(right) in [0, 1]. The logarithm would add up to the probability that all steps are right, and pays long
    solutions less; a minimum or the last step alone (arXiv 2305.20050, section 2.6) are for the caller to take.

    Args:
        scorer: A `Scorer` of kind "process".
        renderer: The renderer that the episodes are made with (`policy.renderer`).
        log: Pay log p(right) instead.
        text: See `RewardModelReward`.
        max_tokens: Tokens that go through the scorer at once.

    Raises:
        RewardError: the scorer is of the other kind, or has another vocabulary and `text` is off.
    """

    def __init__(
        self,
        scorer: Scorer,
        renderer: Renderer,
        *,
        log: bool = False,
        text: bool = False,
        max_tokens: int = MAX_TOKENS,
    ) -> None:
        self.scorer = _of_kind(scorer, "process")
        self._translator = _translator(scorer, renderer, text)
        self.log = log
        self.max_tokens = max_tokens

    def __call__(self, episodes: list[Episode]) -> list[NDArray[np.float64]]:
        """Per episode (n_turns,).

        Raises:
            RewardError: an episode is longer than the scorer can read.
        """
        scores = _scores(self.scorer, self._translator, episodes, self.max_tokens)
        return scores if self.log else [np.exp(array) for array in scores]


def turn_scores(scorer: Scorer, episodes: Sequence[Episode], max_tokens: int = MAX_TOKENS) -> list[NDArray[np.float64]]:
    """Per episode (n_turns,): what a scorer says at the last action token of each turn.

    A reward model's score as it is; a process reward model's log p(right).

    Args:
        scorer: Reads the ids of the episodes as they are.
        episodes: Made with the scorer's own vocabulary.
        max_tokens: Tokens that go through the scorer at once.
    """
    usable = [episode for episode in episodes if episode.turns]
    if not usable:
        return [np.zeros(0) for _ in episodes]
    score = _evaluate(scorer, usable, max_tokens).score
    assert score is not None
    if scorer.kind == "process":
        score = score.log_softmax(-1)[:, 1]
    found = iter(unpack(score.double(), usable))
    ends = [np.cumsum(episode.act_lengths) - 1 for episode in episodes]
    return [next(found)[end] if len(end) else np.zeros(0) for end in ends]


@torch.no_grad()
def _evaluate(scorer: Scorer, episodes: Sequence[Episode], max_tokens: int) -> Outputs:
    """The scorer's outputs on all action tokens, in packing order, on the CPU."""
    from turnwise.learners.local import evaluate

    return evaluate(scorer, pack(episodes), max_tokens)


def _scores(scorer: Scorer, translator: _Translator, episodes: list[Episode], max_tokens: int) -> list[NDArray[Any]]:
    read = [translator(episode) for episode in episodes]
    for episode, seen in zip(episodes, read, strict=True):
        length = _longest(seen)
        if length > scorer.context_limit:
            raise RewardError(
                f"{where(episode)} has {length} tokens and the scorer reads at most {scorer.context_limit}; "
                "shorten the context of the policy, or use a scorer that reads more"
            )
    return turn_scores(scorer, read, max_tokens)


def _longest(episode: Episode) -> int:
    """Tokens of the episode's longest stretch of context."""
    longest = length = 0
    for turn in episode.turns:
        length = (0 if turn.fresh else length) + len(turn.obs) + len(turn.act)
        longest = max(longest, length)
    return longest


def _of_kind(scorer: Scorer, kind: str) -> Scorer:
    if scorer.kind != kind:
        raise RewardError(f"this reward needs a scorer of kind {kind!r} and was given one of kind {scorer.kind!r}")
    return scorer


class _Translator:
    """Episodes as the scorer reads them: their ids as they are, or their words in its own ids."""

    def __init__(self, reader: Reader | None, renderer: Renderer) -> None:
        self.reader = reader
        self.renderer = renderer

    def __call__(self, episode: Episode) -> Episode:
        if self.reader is None:
            return episode
        turns: list[Turn] = []
        for steps in episode.answers:
            first = steps[0]
            said = self.reader.observation(episode, first)
            fresh = not first or episode.turns[first].fresh
            obs = self.renderer.first(said) if fresh else self.renderer.following(said)
            for step, act in zip(steps, self._actions(self.reader, episode, steps), strict=True):
                known = np.zeros(len(act), np.float32)
                turns.append(
                    Turn(
                        obs if step == first else obs[:0],
                        act,
                        known,
                        episode.turns[step].reward,
                        fresh=fresh and step == first,
                    )
                )
        return Episode(
            episode.group, tuple(turns), True, False, np.zeros(0, np.int32), env=episode.env, seed=episode.seed
        )

    def _actions(self, reader: Reader, episode: Episode, steps: list[int]) -> list[Ids]:
        """Ids of each step of one answer: only the last one ends with a stop token."""
        whole = np.concatenate([episode.turns[step].act for step in steps])
        ends = np.cumsum([len(episode.turns[step].act) for step in steps])
        # A beginning may end within a letter that several tokens spell, which the next step then completes.
        texts = [
            "",
            *(_common(reader.renderer.action_text(whole[:end]), reader.renderer.action_text(whole)) for end in ends),
        ]
        pieces = [after[len(before) :] for before, after in pairwise(texts)]
        acts = [self.renderer.action_ids(piece) for piece in pieces]
        return [act[:-1] if len(act) > 1 else act for act in acts[:-1]] + acts[-1:]


def _common(beginning: str, whole: str) -> str:
    """The longest beginning that both texts share."""
    n = next((i for i, (a, b) in enumerate(zip(beginning, whole, strict=False)) if a != b), len(beginning))
    return whole[:n]


def _translator(scorer: Scorer, renderer: Renderer, text: bool) -> _Translator:
    own = scorer.renderer
    if text:
        return _Translator(Reader(renderer), own)
    if renderer is not own and renderer.tokenizer is not own.tokenizer:
        ours, theirs = renderer.tokenizer.get_vocab(), own.tokenizer.get_vocab()
        if ours != theirs:
            shared = sum(theirs.get(token) == index for token, index in ours.items())
            raise RewardError(
                f"the scorer has another vocabulary than the policy: {len(theirs)} tokens against {len(ours)}, of which "
                f"{shared} mean the same. Pass text=True (on the command line text:FOLDER) to have it read the text with "
                "its own tokenizer"
            )
    return _Translator(None, own)
