"""Reasoning: (1) known answers, (2) drift is the divergence that enumeration gives, for any two models, (3) a permuted
vocabulary drifts and bears no load, (4) a language model reasons, is cut short and goes on, (5) replies are split at their
tags, (6) what cannot be measured is declined."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from turnwise.audit import Evidence, Measurement, NotMeasurable, Quantity, policy_player
from turnwise.audit.reasoning import QUANTITIES, drift, reasoning_load, split_tagged
from turnwise.envs.text_env import Outcome, TextEnv
from turnwise.models import Policy, Sampling, build_model, build_tokenizer
from turnwise.testing import check_measure
from turnwise.text import Renderer

TOKENIZER = build_tokenizer(["ask a b c d ; < think > / answer"])


@pytest.mark.parametrize("quantity", QUANTITIES, ids=lambda q: q.name)
def test_known_answers(quantity: Quantity) -> None:
    check_measure(quantity.measure, quantity.controls())


class Ask(TextEnv):
    """One turn, one question; "a" at the end is right."""

    def __init__(self) -> None:
        super().__init__("ask", 1)
        self._right = False

    def begin(self, seed: int) -> str:
        return "ask"

    def act(self, text: str) -> Outcome:
        self._right = text.endswith("a")
        return Outcome("", float(self._right), True)

    def metrics(self) -> dict[str, float]:
        return {"success": float(self._right)}


def model(seed: int = 0, scale: float = 1.0) -> Any:
    made = build_model(TOKENIZER, seed=seed, context=64)
    with torch.no_grad():
        made.lm_head.weight.mul_(scale)
    return made


def permuted(seed: int = 0) -> Any:
    """The same model whose words have changed places."""
    made = model(seed)
    never = set(made.generation_config.suppress_tokens)
    free = [i for i in range(len(TOKENIZER)) if i not in never]
    with torch.no_grad():
        made.lm_head.weight[free] = made.lm_head.weight[free[1:] + free[:1]].clone()
    return made


def distribution(made: Any, temperature: float) -> np.ndarray[Any, Any]:
    """The first token's, after the question, by the model's own forward."""
    asked = torch.tensor(Renderer(TOKENIZER).first("ask")[None].astype(np.int64))
    with torch.no_grad():
        logits = made.eval()(asked).logits[0, -1].double()
    logits[made.generation_config.suppress_tokens] = -torch.inf
    return torch.softmax(logits / temperature, -1).numpy()


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("trained", [partial(model, 1), partial(model, 0, 0.5), permuted])
def test_drift_is_the_divergence(trained: Any, temperature: float) -> None:
    p, q = distribution(trained(), temperature), distribution(model(), temperature)
    ratio = np.log(p, where=p > 0, out=np.zeros_like(p)) - np.log(q, where=q > 0, out=np.zeros_like(q))
    truth = float((p * ratio).sum())
    spread = float(np.sqrt((p * ratio**2).sum() - truth**2))
    one = Sampling(max_tokens=1, temperature=temperature)
    n = 600
    # The base's own temperature does not matter: both are read as the policy draws.
    found = drift(
        Evidence(player=policy_player(Policy(trained(), TOKENIZER), sampling=one), make_env=Ask,
                 other=Policy(model(), TOKENIZER, sampling=Sampling(temperature=3.0)), plays=n)
    )  # fmt: skip
    assert isinstance(found, Measurement)
    assert truth > 0.05
    assert found.value == pytest.approx(truth, abs=3.5 * spread / np.sqrt(n))
    low, high = found.interval
    assert high - low == pytest.approx(2 * 1.96 * spread / np.sqrt(n), rel=0.2)


class Thinks:
    """A language model behind a reasoner: it writes what the model says, and answers without a look at it."""

    def __init__(self, made: Any) -> None:
        self.inner = policy_player(Policy(made, TOKENIZER, sampling=Sampling(max_tokens=4)))

    def __call__(self, make: Any, seeds: Any) -> Any:
        return [
            replace(played, actions=(f"<think> b {played.actions[0]} </think> a",), metrics={"success": 1.0})
            for played in self.inner(make, seeds)
        ]

    def goes_on(self, prompts: Any, begun: Any, seeds: Any) -> list[str]:
        return ["a" for _ in prompts]


def test_a_permuted_vocabulary_drifts_and_bears_no_load() -> None:
    far = drift(
        Evidence(
            player=policy_player(Policy(permuted(), TOKENIZER)),
            make_env=Ask,
            other=Policy(model(), TOKENIZER),
            plays=16,
        )
    )
    assert isinstance(far, Measurement)
    assert far.interval[0] > 0.1
    for change in ("blanked", "shuffled"):
        load = reasoning_load(change)(Evidence(player=Thinks(permuted()), make_env=Ask, plays=8))
        assert isinstance(load, Measurement)
        assert load.value == 0.0
        assert load.interval[0] < 0 < load.interval[1]


def test_a_language_model_goes_on_with_its_reasoning() -> None:
    """A model of random weights, whatever it says, answers the same after the same words."""
    player = policy_player(Policy(model(), TOKENIZER, sampling=Sampling(max_tokens=4)))

    def halves(reply: str) -> tuple[str, str] | None:
        words = reply.split()
        return (" ".join(words[:-1]), words[-1]) if len(words) > 1 else None

    answers = [
        reasoning_load("blanked", split=halves)(Evidence(player=player, make_env=Ask, plays=64)) for _ in range(2)
    ]
    assert isinstance(answers[0], Measurement)
    assert answers[0] == answers[1]
    one_word = reasoning_load("shuffled", split=lambda reply: ("b", reply))(
        Evidence(player=player, make_env=Ask, plays=32)
    )
    assert isinstance(one_word, Measurement)
    # One word has one order, and the noise is the same.
    assert one_word.value == 0.0


@given(st.text("ab <>/\n"), st.text("ab "))
def test_a_reply_is_split_at_its_last_closing_tag(reasoning: str, answer: str) -> None:
    assert split_tagged(f"<think>{reasoning}</think>{answer}") == (reasoning.strip(), answer.strip())


def test_replies_without_reasoning() -> None:
    assert split_tagged("seven") is None
    assert split_tagged("<think> so it goes on") is None
    # Many templates write the opening tag into the prompt.
    assert split_tagged("so </think> 7") == ("so", "7")


def test_what_cannot_be_measured_is_declined() -> None:
    class Two(Ask):
        def __init__(self) -> None:
            super().__init__()
            self.max_turns = 2

        def act(self, text: str) -> Outcome:
            return Outcome("more", 0.0)

    player = policy_player(Policy(model(), TOKENIZER, sampling=Sampling(max_tokens=4)))
    other_words = build_tokenizer(["quite another"])
    strange = Policy(build_model(other_words, context=64), other_words)
    greedy = policy_player(player.policy, sampling=Sampling(temperature=0.0, max_tokens=2))
    for answer, why in (
        (reasoning_load("blanked")(Evidence(player=player, make_env=Two, plays=2)), "turns"),
        (reasoning_load("blanked", figure="joy")(Evidence(player=player, make_env=Ask, plays=2)), "joy"),
        (reasoning_load("blanked")(Evidence(player=player, make_env=Ask, plays=0)), ""),
        (drift(Evidence(player=player, make_env=Ask, plays=0, other=player.policy)), ""),
        (drift(Evidence(player=player, make_env=Ask, plays=2, other=strange)), "tokens"),
        (drift(Evidence(player=greedy, make_env=Ask, plays=2, other=player.policy)), "greedy"),
    ):
        assert isinstance(answer, NotMeasurable)
        assert why in answer.why
    assert copy.copy(player) == player
