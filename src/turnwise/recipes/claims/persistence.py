"""E3: persistence after interruption. Imitation, preferences and multi-step RL, undisturbed and disturbed."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from turnwise.algorithms import DPO, PPO, Reinforce
from turnwise.recipes.claims.claim import Chart, Claim, Comparison, Outcome
from turnwise.recipes.parallel import Job
from turnwise.recipes.settings import World

WORLD = World("vault?length=5&slip=0&max_turns=20", max_tokens=4, where="inline")
"""A vault of five rooms. The whole episode stays in the context, so that a policy can go by what it did."""
PERFECT, NOISY = "SFT, perfect", "SFT, noisy"
EARLY, OVER, ONLINE = "DPO, early", "DPO, over-trained", "DPO, online"
OFFLINE = (PERFECT, NOISY, EARLY, OVER, ONLINE)
"""The arms of which the claim says that they do not persist."""
MULTI = tuple(f"{method} from {start}" for method in ("PPO", "REINFORCE") for start in ("perfect", "noisy"))
"""The arms of which it says that they do."""
ARMS = (*OFFLINE, *MULTI)
"""All arms, in order."""
SKILL = 0.5
"""Share of an expert's actions in the noisy demonstrations."""
TURN = 3
"""The disturbance follows this action: half-way through the median episode of a planner, of 6 turns."""
HALF = 0.5
"""Less than this share of undisturbed success left is no persistence."""


def trial(seed: int, quick: bool, out: str, tick: Callable[[], None]) -> Outcome:
    """All arms of a seed; those that go on share their start models."""
    from turnwise.recipes.claims.language import go_on, pairs, teach

    home = Path(out)
    shown, warm, compared, steps, size = (32, 8, 16, 2, 16) if quick else (128, 36, 96, 12, 64)
    early, over = (1, 2) if quick else (6, 48)
    groups = 8 if quick else 16
    models: dict[str, Path] = {}
    for name, skill in ((PERFECT, 1.0), (NOISY, SKILL)):
        models[name] = teach(WORLD, home / name, seed, demonstrations=shown, skill=skill, steps=warm)
        tick()
    noisy = models[NOISY]
    two = pairs(WORLD, noisy, seed, compared)
    for name, updates in ((EARLY, early), (OVER, over)):
        models[name] = go_on(
            DPO(groups=groups), WORLD, home / name, seed, start=noisy, steps=updates, lr=5e-4, shown=two
        )
        tick()
    online = DPO(groups=size // 2, online=True)
    models[ONLINE] = go_on(online, WORLD, home / ONLINE, seed, start=noisy, steps=steps, lr=5e-4)
    tick()
    for name in MULTI:
        # Without a critic that knows the start, the first steps from a policy that always does the same are noise.
        method = PPO(episodes=size, critic_warmup=2) if name.startswith("PPO") else Reinforce(groups=size // 8)
        start = models[PERFECT if name.endswith("perfect") else NOISY]
        models[name] = go_on(method, WORLD, home / name, seed, start=start, steps=steps, lr=5e-4)
        tick()
    figures: dict[str, float] = {}
    for name, model in models.items():
        figures |= measured(name, model, seed, 16 if quick else 64)
        tick()
    return Outcome(figures)


def measured(name: str, model: Path, seed: int, plays: int) -> dict[str, float]:
    """The figures of an arm.

    ``undisturbed`` is success, ``elsewhere`` and ``moved`` are success in those episodes that last long enough to be disturbed,
    after being put elsewhere and after five forced moves; ``kept`` is ``elsewhere`` over ``undisturbed``, and nothing where
    that is 0. The audit's own figure (`turnwise.audit.persistence`) is relative to a planner instead, who always succeeds
    here.
    """
    import numpy as np

    from turnwise.audit.persistence import success
    from turnwise.audit.players import held_out_seeds
    from turnwise.envs import Interrupted
    from turnwise.recipes.claims.language import evidence, value

    seen = evidence(WORLD, model, seed, plays)
    make, player = seen.make_env, seen.player
    assert make is not None
    assert player is not None

    def after(moves: int, scatter: bool) -> float:
        played = player(
            lambda: Interrupted(make(), turn=TURN, moves=moves, scatter=scatter, seed=seed), held_out_seeds(plays, seed)
        )
        found = [episode.metrics["success"] for episode in played if episode.metrics["interrupted"]]
        return float(np.mean(found)) if found else math.nan

    calm, elsewhere = value(success(seen)), after(0, True)
    return {
        f"undisturbed, {name}": calm,
        f"elsewhere, {name}": elsewhere,
        f"moved, {name}": after(5, False),
        f"kept, {name}": elsewhere / calm if calm > 0 else math.nan,
    }


def jobs(seed: int, quick: bool, out: Path) -> list[Job]:
    """One job: the arms share their start models."""
    units = 2 * len(ARMS)
    return [Job("persistence", trial, {"seed": seed, "quick": quick, "out": str(out)}, units)]


CLAIM = Claim(
    key="E3",
    title="persistence after interruption",
    statement=(
        "A model that was trained by imitation or on preferences follows what it was shown and does not pursue anything: put it "
        "off its course and it does not find back. Multi-step RL gives it persistence."
    ),
    expected=(
        "False as stated. A language model that reads the whole state finds back after imitation too, at least where its "
        "demonstrations were noisy. RL raises success, undisturbed and disturbed alike."
    ),
    learner="language model",
    claimed=(
        *(Comparison(f"kept, {name}", "below", HALF) for name in OFFLINE if name != OVER),
        # It may reach nothing at all, of which nothing can be kept.
        Comparison(f"elsewhere, {OVER}", "below", HALF),
        *(Comparison(f"kept, {name}", "above", HALF) for name in MULTI),
    ),
    found=(
        Comparison(f"kept, {NOISY}", "above", f"kept, {PERFECT}"),
        Comparison("elsewhere, PPO from noisy", "above", f"elsewhere, {NOISY}", 0.2),
        Comparison("elsewhere, PPO from noisy", "above", f"elsewhere, {EARLY}", 0.1),
        Comparison("elsewhere, PPO from perfect", "above", f"elsewhere, {PERFECT}", 0.1),
        Comparison(f"undisturbed, {OVER}", "below", f"undisturbed, {EARLY}", 0.1),
    ),
    how=(
        "A vault of 5 rooms that never slips, 20 turns; language models of 0.2 million parameters from scratch, the whole episode "
        "in their context. SFT on 128 demonstrations, perfect or with half of the actions random. From the noisy start: DPO on its own pairs of "
        "episodes, 6 or 48 updates; DPO online, 12 updates on 32 pairs. From each start: PPO (its first two updates teach the critic alone) and REINFORCE, 12 updates on 64 episodes. Half-way through "
        "a planner's episode the agent is put elsewhere and loses the key; kept: success then, over success undisturbed. Success "
        "over 64 held-out tasks, a planner's is 1."
    ),
    jobs=jobs,
    charts=(
        Chart("success, undisturbed", tuple(f"undisturbed, {name}" for name in ARMS), unit="share"),
        Chart("success after being put elsewhere", tuple(f"elsewhere, {name}" for name in ARMS), unit="share"),
        Chart("success after five forced moves", tuple(f"moved, {name}" for name in ARMS), unit="share"),
    ),
)
"""E3."""
