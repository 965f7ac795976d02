"""E11: reasoning under a reward on the answer alone. How far it drifts from the base's words, and whether the answer needs it."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from turnwise.algorithms import Reinforce
from turnwise.envs.text_env import Outcome as Reply
from turnwise.envs.text_env import TextEnv
from turnwise.recipes.claims.claim import Chart, Claim, Comparison, Outcome
from turnwise.recipes.parallel import Job
from turnwise.recipes.settings import World
from turnwise.text.reasoning import THINK, after_reasoning

if TYPE_CHECKING:
    from numpy.random import Generator

    from turnwise.episode import Transcript

DIGITS, MODULUS = 4, 5
"""Digits to add up, and what they are added modulo."""
WORDS = ("well", "so", "hm", "now")
"""What the reasoning of a demonstration begins with, all equally likely: nothing depends on it."""
SLIP = 0.2
"""Probability that a step of a demonstration's reasoning is wrong; it goes on, and answers, from there."""
START, SFT_ARM, ANSWER, HELD = "start", "SFT", "answer alone", "answer and KL"
ARMS = (START, SFT_ARM, ANSWER, HELD)
"""The start model, and what is made of it."""
KL = 0.1
"""Price of a nat of divergence from the start model, where a right answer pays 1."""


class Chain(TextEnv):
    """One turn: add up four digits modulo 5, by running sums if you like. Whatever is reasoned, the answer alone is paid."""

    def __init__(self) -> None:
        super().__init__("chain", 1)
        self.digits: tuple[int, ...] = ()
        self._right = False

    def begin(self, seed: int) -> str:
        rng = random.Random(f"chain {seed}")
        self.digits, self._right = tuple(rng.randrange(MODULUS) for _ in range(DIGITS)), False
        return f"add {' '.join(map(str, self.digits))}"

    def act(self, text: str) -> Reply:
        answer = after_reasoning(text)
        self._right = answer is not None and answer.strip() == str(sum(self.digits) % MODULUS)
        return Reply("", float(self._right), True)

    def metrics(self) -> dict[str, float]:
        return {"success": float(self._right)}


WORLD = World(f"{__name__}:Chain", max_tokens=20, where="inline")
"""The world of the claim."""


def sums(digits: Sequence[int], rng: Generator | None = None, slip: float = 0.0) -> list[int]:
    """The running sums of digits modulo 5, each step wrong with probability `slip` and gone on from."""
    found: list[int] = []
    for digit in digits:
        total = (digit + (found[-1] if found else 0)) % MODULUS
        if found and rng is not None and rng.random() < slip:
            total = (total + int(rng.integers(1, MODULUS))) % MODULUS
        found.append(total)
    return found


def demonstrations(seed: int, n: int, slip: float) -> list[Transcript]:
    """Replies that write a word, the running sums and their end, on training tasks."""
    import numpy as np

    from turnwise.episode import Transcript
    from turnwise.rollout import TRAIN_SEEDS

    rng, env = np.random.default_rng(seed), Chain()
    shown: list[Transcript] = []
    for task in rng.integers(TRAIN_SEEDS, size=n).tolist():
        seen, _ = env.reset(seed=task)
        steps = sums(env.digits, rng, slip)
        word = WORDS[int(rng.integers(len(WORDS)))]
        said = f"{THINK[0]} {word} {' '.join(map(str, steps))} {THINK[1]} {steps[-1]}"
        _, paid, *_ = env.step(said)
        shown.append(Transcript((seen,), (said,), (paid,), True, False, env="chain", seed=task))
    return shown


def trial(seed: int, quick: bool, out: str, tick: Callable[[], None]) -> Outcome:
    """All arms of a seed; they go on from the same start model."""
    from turnwise.recipes.claims.language import go_on, teach

    home = Path(out)
    warm, more, groups = (20, 2, 4) if quick else (240, 40, 16)
    first = demonstrations(seed, 32 * min(warm, 64), SLIP)
    models = {START: teach(WORLD, home / START, seed, shown=first, steps=warm)}
    tick()
    fresh = demonstrations(seed + 1, 32 * more, 0.0)
    models[SFT_ARM] = teach(WORLD, home / SFT_ARM, seed, shown=fresh, start=models[START], steps=more, lr=5e-4)
    tick()
    for arm, price in ((ANSWER, 0.0), (HELD, KL)):
        method = Reinforce(groups=groups, kl_coef=price)
        models[arm] = go_on(method, WORLD, home / arm, seed, start=models[START], steps=more)
        tick()
    figures: dict[str, float] = {}
    for arm, model in models.items():
        figures |= measured(arm, model, models[START], seed, 16 if quick else 128)
        tick()
    return Outcome(figures)


def measured(arm: str, model: Path, start: Path, seed: int, plays: int) -> dict[str, float]:
    """The figures of an arm (`turnwise.audit.reasoning`), and the share of replies whose running sums are right."""
    from turnwise.audit.persistence import success
    from turnwise.audit.players import held_out_seeds
    from turnwise.audit.reasoning import drift, reasoning_load
    from turnwise.recipes.claims.language import evidence, value

    seen = evidence(WORLD, model, seed, plays, base=start)
    assert seen.player is not None
    played = seen.player(Chain, held_out_seeds(plays, seed))
    figures = {
        f"accuracy, {arm}": value(success(seen)),
        f"right sums, {arm}": sum(reasons_right(one) for one in played) / plays,
        f"load blanked, {arm}": value(reasoning_load("blanked")(seen)),
        f"load shuffled, {arm}": value(reasoning_load("shuffled")(seen)),
    }
    return figures if arm == START else {**figures, f"drift, {arm}": value(drift(seen))}


def reasons_right(episode: Transcript) -> bool:
    """Whether the digits in the reasoning are the running sums of those in the question."""
    from turnwise.audit.reasoning import split_tagged

    parts = split_tagged(episode.actions[0])
    asked = [int(word) for word in episode.observations[0].split() if word.isdigit()]
    return parts is not None and [word for word in parts[0].split() if word.isdigit()] == [*map(str, sums(asked))]


def jobs(seed: int, quick: bool, out: Path) -> list[Job]:
    """One job: the arms share their start model."""
    return [Job("reasoning", trial, {"seed": seed, "quick": quick, "out": str(out)}, 2 * len(ARMS))]


CLAIM = Claim(
    key="E11",
    title="rewarded for the answer alone, reasoning turns into something else",
    statement=(
        "With a reward on the answer alone nothing holds the reasoning: it drifts away from the language that it was learnt in, "
        "and the answer comes to depend on it less."
    ),
    expected=(
        "Half of it. The words drift further than under a KL penalty. The answer depends on the reasoning as before or more, "
        "since that is where a right one comes from."
    ),
    learner="language model",
    claimed=(
        Comparison(f"drift, {ANSWER}", "above", f"drift, {HELD}"),
        Comparison(f"drift, {ANSWER}", "above", f"drift, {SFT_ARM}"),
        Comparison(f"load blanked, {ANSWER}", "below", f"load blanked, {START}"),
    ),
    found=(
        Comparison(f"accuracy, {ANSWER}", "above", f"accuracy, {START}", 0.1),
        Comparison(f"right sums, {ANSWER}", "above", f"right sums, {START}", 0.1),
        Comparison(f"load shuffled, {ANSWER}", "above", 0.1),
        Comparison(f"accuracy, {HELD}", "within", f"accuracy, {ANSWER}", 0.1),
    ),
    how=(
        f"Four digits are added up modulo {MODULUS}. A language model of 0.2 million parameters from scratch learns from demonstrations to write a word "
        f"that means nothing, the running sums, each step wrong with probability {SLIP:g}, and an answer. From there: SFT on demonstrations without mistakes, or "
        f"REINFORCE on 128 answers, 40 updates each, without a penalty or with {KL:g} for each nat of divergence. Drift: nats per token of the reply under the "
        "frozen start model. Load: accuracy lost when the reasoning is blanked or its words are shuffled before the answer. 128 "
        "held-out tasks."
    ),
    jobs=jobs,
    charts=(
        Chart("drift, nats per token", tuple(f"drift, {arm}" for arm in ARMS[1:])),
        Chart("accuracy", tuple(f"accuracy, {arm}" for arm in ARMS), unit="share"),
        Chart(
            "accuracy lost without the reasoning, or with its words shuffled",
            tuple(f"load {change}, {arm}" for arm in ARMS for change in ("blanked", "shuffled")),
        ),
        Chart("share of reasonings whose sums are right", tuple(f"right sums, {arm}" for arm in ARMS), unit="share"),
    ),
)
"""E11."""
