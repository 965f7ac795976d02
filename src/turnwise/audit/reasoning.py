"""Reasoning: how far it has drifted from the base's language, and whether the answer depends on it.

The two are different things. A policy may come to reason in a language of its own and still need what it writes; and
it may write as before while its answer no longer looks at it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import log
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np

from turnwise.audit.controls import Control, Trial
from turnwise.audit.evidence import Evidence, Iteration, Level
from turnwise.audit.measure import Measure, Measurement, NotMeasurable, paired_share_interval, ratio_interval
from turnwise.audit.player import Player, TextGame, speaker
from turnwise.audit.players import LanguagePlayer, held_out_seeds, policy_player
from turnwise.audit.quantity import Quantity, Section
from turnwise.envs.text_env import Outcome, TextEnv
from turnwise.episode import Episode, Source, Transcript
from turnwise.text.reasoning import THINK, after_reasoning

if TYPE_CHECKING:
    from turnwise.models import Policy, Sampling

_DRIFT = "reasoning/drift"
_LOAD = "reasoning/load_"

Change = Literal["blanked", "shuffled"]
"""What is done to the reasoning before the answer: nothing is left of it, or its words come in another order."""

_CHANGES: tuple[Change, ...] = ("blanked", "shuffled")

Split = Callable[[str], tuple[str, str] | None]
"""A reply -> its reasoning and its answer; None where it has no reasoning."""


@runtime_checkable
class GoesOn(Protocol):
    """A player that ends replies which somebody else has begun."""

    def __call__(self, make: Callable[[], TextGame], seeds: Sequence[int]) -> list[Transcript]:
        """See `turnwise.audit.Player`."""
        ...

    def goes_on(self, prompts: Sequence[str], begun: Sequence[str], seeds: Sequence[int]) -> list[str]:
        """See `turnwise.audit.LanguagePlayer`."""
        ...


def drift(evidence: Evidence) -> Measurement | NotMeasurable:
    """How far the policy's words are from those of the base, in nats per token.

    Σ (log π(a) − log base(a)) / Σ 1 over the tokens that the policy sampled, the sampled estimate of KL(π ‖ base) per token
    (k1 of Schulman 2020, "Approximating KL divergence"). log π is what was recorded as the token was drawn, log base is
    read with the same temperature and truncation in the same context. A token that the base's truncation would leave out
    counts as kept. The ratio is linearised over episodes. Needs L4: the base, and episodes of the policy with their
    log-probabilities, those of the last update or new ones.
    """
    base = evidence.other
    if base is None:
        return NotMeasurable(_DRIFT, Level.L4, "there is no base policy to compare with")
    player = evidence.player
    if isinstance(player, LanguagePlayer) and evidence.make_env is not None:
        if player.policy.tokenizer.get_vocab() != base.tokenizer.get_vocab():
            return NotMeasurable(_DRIFT, Level.L4, "the base reads other tokens than the policy writes")
        if not player.sampling.temperature:
            return NotMeasurable(_DRIFT, Level.L4, "a greedy player does not draw its tokens; let it sample")
        base = base.with_sampling(**_drawing(player.sampling))
        episodes = player.episodes(evidence.make_env, held_out_seeds(evidence.plays, evidence.seed))
        where = "new episodes"
    else:
        last = evidence.iterations[-1].trained if evidence.iterations else []
        episodes = [episode for episode in last if episode.source is Source.POLICY]
        if episodes and not any(episode.behaviour_logp.any() for episode in episodes):
            return NotMeasurable(_DRIFT, Level.L4, "nobody recorded log-probabilities, or the policy was greedy")
        where = "episodes of the last update"
    episodes = [episode for episode in episodes if episode.turns]
    if not episodes:
        return NotMeasurable(_DRIFT, Level.L4, "there are no episodes of the policy, and it cannot be sampled")
    sums, counts = _apart(episodes, base)
    value = float(np.sum(sums) / np.sum(counts))
    how = f"log π − log base over {int(np.sum(counts)):,} tokens of {len(episodes)} {where}; linearised ratio"
    return Measurement(_DRIFT, value, ratio_interval(sums, counts), len(episodes), how, "nats per token")


def _drawing(sampling: Sampling) -> dict[str, Any]:
    return {"temperature": sampling.temperature, "top_k": sampling.top_k, "top_p": sampling.top_p}


def _apart(episodes: Sequence[Episode], base: Policy) -> tuple[list[float], list[float]]:
    """For each episode, Σ (log π − log base) over its tokens, and their number."""
    import torch

    from turnwise.batch import pack, unpack
    from turnwise.learners.local import evaluate

    with torch.no_grad():
        logp = unpack(evaluate(base, pack(episodes)).logp, episodes)
    sums = [
        float((np.asarray(episode.behaviour_logp, np.float64) - np.asarray(told, np.float64)).sum())
        for episode, told in zip(episodes, logp, strict=True)
    ]
    return sums, [float(episode.n_action_tokens) for episode in episodes]


def split_tagged(reply: str) -> tuple[str, str] | None:
    """The reasoning between ``<think>`` and ``</think>`` and what stands after it; None where there is none or no end to it."""
    opening, closing = THINK
    answer = after_reasoning(reply)
    if answer is None or closing not in reply:
        return None
    before = reply[: reply.rfind(closing)]
    return before.removeprefix(opening).strip(), answer.strip()


def reasoning_load(change: Change, *, split: Split = split_tagged, figure: str = "success") -> Measure:
    """The measure of how much accuracy is lost when the reasoning is changed before the answer is given.

    The policy reasons and answers; then it answers twice more, once after its own reasoning as it was and once after
    the changed one, with the same noise. Share of tasks that succeed after the reasoning as it was, minus the share after
    the changed one; Newcombe's interval for paired shares. 0 means the answer does not need the words, or not their
    order. Needs L3, one-turn tasks that count success, and a player that can go on with a reply.

    Args:
        change: What is done to the reasoning.
        split: Where a reply's reasoning ends and its answer begins. The reply is put together again with think tags.
        figure: What counts as success where it is above 0, among the figures of an episode.
    """
    name = f"{_LOAD}{change}"

    def measure(evidence: Evidence) -> Measurement | NotMeasurable:
        player, make = evidence.player, evidence.make_env
        if player is None or make is None:
            return NotMeasurable(name, Level.L3, "nobody plays; it needs the policy and its environment")
        if not isinstance(player, GoesOn):
            return NotMeasurable(name, Level.L3, "the player cannot go on with a reply that somebody else has begun")
        played = player(make, held_out_seeds(evidence.plays, evidence.seed))
        if any(len(episode.actions) != 1 for episode in played):
            return NotMeasurable(name, Level.L3, "there are episodes of another number of turns than one")
        if not any(figure in episode.metrics for episode in played):
            return NotMeasurable(name, Level.L3, f"the environment counts no {figure!r} in the figures of an episode")
        parts = [(episode, found) for episode in played if (found := split(episode.actions[0])) and found[0]]
        if not parts:
            return NotMeasurable(
                name, Level.L3, f"none of {len(played)} replies holds a reasoning and an answer after it"
            )
        episodes = [episode for episode, _ in parts]
        thoughts = [reasoning for _, (reasoning, _) in parts]
        changed = [_changed(text, change, episode.seed) for text, episode in zip(thoughts, episodes, strict=True)]
        kept, lost = (_successes(player, make, episodes, texts, figure) for texts in (thoughts, changed))
        value = float(np.mean(kept) - np.mean(lost))
        how = (
            f"accuracy after the reasoning as it was ({np.mean(kept):.2f}) − {change} ({np.mean(lost):.2f}), the {len(kept)} of "
            f"{len(played)} tasks that were reasoned about"
        )
        return Measurement(name, value, paired_share_interval(kept, lost), len(kept), how, "share")

    measure.__name__ = f"reasoning_load_{change}"
    return measure


def _changed(reasoning: str, change: Change, seed: int) -> str:
    if change == "blanked":
        return ""
    words = reasoning.split()
    random.Random(f"shuffle {seed}").shuffle(words)
    return " ".join(words)


def _successes(
    player: GoesOn, make: Callable[[], TextGame], episodes: Sequence[Transcript], thoughts: Sequence[str], figure: str
) -> list[float]:
    """Whether each task succeeds with the answer that follows a reasoning."""
    begun = [f"{THINK[0]} {thought} {THINK[1]}" if thought else f"{THINK[0]} {THINK[1]}" for thought in thoughts]
    prompts, seeds = [e.observations[0] for e in episodes], [e.seed for e in episodes]
    ends = player.goes_on(prompts, begun, seeds)
    replies = {seed: f"{start} {end}" for seed, start, end in zip(seeds, begun, ends, strict=True)}
    judged = speaker(lambda observations, own, seed: replies[seed])(make, seeds)
    return [float(episode.metrics.get(figure, 0.0) > 0) for episode in judged]


# ---- known answers ---------------------------------------------------------------------------------------------------


class _Sum(TextEnv):
    """One turn: say the sum of two digits, after whatever was thought."""

    def __init__(self) -> None:
        super().__init__("sum", 1)
        self._sum = ""
        self._right = False

    def begin(self, seed: int) -> str:
        a, b = 1 + seed % 4, 1 + seed // 4 % 4
        self._sum, self._right = str(a + b), False
        return f"add {a} {b}"

    def act(self, text: str) -> Outcome:
        answer = after_reasoning(text)
        self._right = answer is not None and answer.strip() == self._sum
        return Outcome("", float(self._right), True)

    def metrics(self) -> Mapping[str, float]:
        return {"success": float(self._right)}


class _Reasoner:
    """A planted reasoner: what it writes, and how it answers after (prompt, reasoning)."""

    def __init__(self, thinks: Callable[[str], str], answers: Callable[[str, str], str]) -> None:
        self._thinks, self._answers = thinks, answers

    def __call__(self, make: Callable[[], TextGame], seeds: Sequence[int]) -> list[Transcript]:
        def say(observations: Sequence[str], own: Sequence[str], seed: int) -> str:
            thought = self._thinks(observations[0])
            return f"{THINK[0]} {thought} {THINK[1]} {self._answers(observations[0], thought)}"

        return speaker(say)(make, seeds)

    def goes_on(self, prompts: Sequence[str], begun: Sequence[str], seeds: Sequence[int]) -> list[str]:
        thoughts = [text.removeprefix(THINK[0]).removesuffix(THINK[1]).strip() for text in begun]
        return [self._answers(prompt, thought) for prompt, thought in zip(prompts, thoughts, strict=True)]


def _total(text: str) -> str:
    return str(sum(int(word) for word in text.split() if word.isdigit()))


def _copies(prompt: str) -> str:
    return prompt.removeprefix("add ")


def _in_own_words(prompt: str) -> str:
    """The digits in a permuted vocabulary."""
    own = dict(zip("1234", ("blick", "dax", "fep", "gorp"), strict=True))
    return " ".join(own[digit] for digit in _copies(prompt).split())


def _places(prompt: str) -> str:
    """What a reader of places needs: the sum first, then four words that say nothing."""
    return f"{_total(prompt)} um um um um"


def _first(text: str) -> str:
    return text.split()[0] if text else ""


def load_controls(change: Change) -> Callable[[], list[Control | Trial]]:
    """Known answers of `reasoning_load`."""

    def made(player: Player) -> Evidence:
        return Evidence(player=player, make_env=_Sum, plays=32)

    def controls() -> list[Control | Trial]:
        reads = _Reasoner(_copies, lambda prompt, thought: _total(thought))
        ignores = _Reasoner(_copies, lambda prompt, thought: _total(prompt))
        permuted = _Reasoner(_in_own_words, lambda prompt, thought: _total(prompt))
        places = _Reasoner(_places, lambda prompt, thought: _first(thought))
        # Of five words in any order, the one that is needed comes first once in five times.
        ordered = (1.0, 1e-9) if change == "blanked" else (0.8, 0.25)
        return [
            Control("the answer adds up what was reasoned", made(reads), 1.0 if change == "blanked" else 0.0),
            Control("the answer reads the question", made(ignores), 0.0),
            Control("a permuted vocabulary that nobody reads", made(permuted), 0.0),
            Control("the answer is the first word reasoned", made(places), *ordered),
            Control("nobody can go on with a reply", made(speaker(lambda seen, own, seed: "7")), None),
            Control("nobody reasons", made(_Mute()), None),
            Control("nobody plays", Evidence(config={}), None),
        ]

    return controls


class _Mute(_Reasoner):
    """It answers without reasoning."""

    def __init__(self) -> None:
        super().__init__(lambda prompt: "", lambda prompt, thought: _total(prompt))

    def __call__(self, make: Callable[[], TextGame], seeds: Sequence[int]) -> list[Transcript]:
        return speaker(lambda observations, own, seed: _total(observations[0]))(make, seeds)


def _level(size: int | None = None) -> Policy:
    """A model whose tokens are all equally likely: all that can be sampled, or `size` of them."""
    import torch

    from turnwise.models import Policy, Sampling, build_model, build_tokenizer

    tokenizer = build_tokenizer(["add 1 2 3 4 5 6 7 8 think so the sum is"])
    model = build_model(tokenizer, context=64)
    with torch.no_grad():
        model.lm_head.weight.zero_()
    never = list(model.generation_config.suppress_tokens or [])
    if size is not None:
        left = [i for i in range(len(tokenizer)) if i not in never]
        never += left[size:]
    model.generation_config.suppress_tokens = never
    return Policy(model, tokenizer, sampling=Sampling(max_tokens=6))


def _drifted(size: int) -> Evidence:
    return Evidence(player=policy_player(_level(size)), make_env=_Sum, other=_level(), plays=8)


def _width() -> int:
    """How many tokens the base samples from."""
    policy = _level()
    return len(policy.tokenizer) - len(policy.banned)


def drift_controls() -> list[Control | Trial]:
    """Known answers of `drift`."""

    def same() -> Evidence:
        policy = _level()
        return Evidence(player=policy_player(policy), make_env=_Sum, other=policy, plays=8)

    def recorded(logp: bool) -> Evidence:
        found = _drifted(4)
        assert isinstance(found.player, LanguagePlayer)
        episodes = found.player.episodes(_Sum, held_out_seeds(8))
        if not logp:
            episodes = [replace(e, turns=tuple(replace(t, logp=0 * t.logp) for t in e.turns)) for e in episodes]
        return Evidence(iterations=(Iteration(tuple(episodes)),), other=found.other)

    width = _width()
    return [
        Control("the policy is the base", same, 0.0, 1e-5),
        # Uniform over 4 of the tokens that the base is uniform over.
        Control("4 words are left of the base's", lambda: _drifted(4), log(width / 4), 1e-5),
        Control("one of them is left", lambda: _drifted(1), log(width), 1e-5),
        Control("4 words are left, from the record", lambda: recorded(True), log(width / 4), 1e-5),
        Control("nobody recorded log-probabilities", lambda: recorded(False), None),
        Control("there is no base", Evidence(config={}), None),
    ]


QUANTITIES = (
    Quantity(
        _DRIFT,
        "drift from the base",
        "How many nats per token are the policy's words from those of the base?",
        Section.REASONING,
        drift,
        drift_controls,
        Level.L4,
    ),
    *(
        Quantity(
            f"{_LOAD}{change}",
            f"load, reasoning {change}",
            f"How much accuracy is lost when the reasoning is {change} before the answer?",
            Section.REASONING,
            reasoning_load(change),
            load_controls(change),
            Level.L3,
        )
        for change in _CHANGES
    ),
)
"""What this module measures."""
