"""TRL's own reward functions run unchanged, by name, and pay what they return when TRL calls them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from tests.parity.trl import needs_trl
from turnwise.algorithms import Reinforce
from turnwise.envs.prompts import PromptEnv
from turnwise.envs.registry import EnvSpec
from turnwise.models import build_tokenizer
from turnwise.recipes.rewards import rewards_of
from turnwise.recipes.settings import Feedback, Training
from turnwise.rewards import overlong
from turnwise.testing import build_dialogue
from turnwise.text import Renderer

pytestmark = needs_trl

REPLIES = ["<think> 1 + 1 </think> \\boxed{2}", "\\boxed{2}", "<think> 1 + 1", "<think> 2 </think> \\boxed{3}"]
RENDERER = Renderer(build_tokenizer([*REPLIES, "say"]))
ROWS = [{"prompt": "say", "solution": "$2$"} for _ in REPLIES]


class Asked:
    """Makes a world over the rows."""

    def __call__(self) -> PromptEnv:
        return PromptEnv(ROWS)

    def asked(self, *, held_out: bool) -> list[dict[str, str]]:
        return ROWS


class Acting:
    """All that rewards ask of a policy."""

    renderer = RENDERER
    device = "cpu"


@pytest.mark.parametrize("name", ["think_format_reward", "accuracy_reward", "reasoning_accuracy_reward"])
def test_by_name(name: str) -> None:
    if "accuracy" in name:
        pytest.importorskip("math_verify", reason="TRL's accuracy rewards need math-verify")
    from trl import rewards

    training = dataclasses.replace(
        Training(Reinforce()), feedback=Feedback(reward=f"trl.rewards:{name}", form="messages")
    )
    episodes = [build_dialogue([("say", text)], RENDERER, seed=i) for i, text in enumerate(REPLIES)]
    (weight, reward) = rewards_of(training, EnvSpec("prompts", Asked()), Acting())[name]
    paid = [array[-1] for array in reward(episodes)]
    texts = [RENDERER.action_text(episode.turns[0].act) for episode in episodes]
    given: Any = getattr(rewards, name)(
        completions=[[{"role": "assistant", "content": text}] for text in texts], solution=[r["solution"] for r in ROWS]
    )
    np.testing.assert_array_equal(paid, np.array(given, np.float64))
    assert weight == 1.0
    assert len(set(paid)) > 1


def test_overlong_punishment_is_the_same() -> None:
    from trl.rewards import get_soft_overlong_punishment

    episodes = [build_dialogue([("say", "2 " * n)], RENDERER) for n in range(1, 12)]
    ids = [episode.turns[0].act.tolist() for episode in episodes]
    theirs = get_soft_overlong_punishment(max_completion_len=9, soft_punish_cache=4)(completion_ids=ids)
    np.testing.assert_allclose([array[-1] for array in overlong(9, 4)(episodes)], theirs, atol=1e-12)
