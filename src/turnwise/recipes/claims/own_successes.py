"""E6: fine-tuning on one's own successes is no reinforcement learning. Rounds of filtered imitation, exact and sampled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from turnwise.envs import vault
from turnwise.envs.exact import Array, Tabular, optimal_return, policy_return, policy_values, uniform_policy
from turnwise.recipes.claims.claim import Chart, Claim, Comparison, Curve, Outcome
from turnwise.recipes.claims.tabular import Log, gradient, occupancy, play, with_reward
from turnwise.recipes.parallel import Job

ROUNDS = 20
"""Rounds of sampling, filtering and imitation."""
DEADLINE = 20
"""Turns there are."""


def successes(world: Tabular) -> Tabular:
    """The same world, paying 1 for a success and nothing else."""
    return with_reward(world, np.broadcast_to(world.ended.astype(float), world.probability.shape))


def imitate_successes(world: Tabular, policy: Array) -> Array:
    """(S, A): what imitating endlessly many successful episodes of a policy gives.

    The share of action a among all visits of s in successful episodes, each visit having probability
    ``sum_t d_t(s) π(a | s) P(success | s, a, t)``; the policy itself where no success comes by.

    Args:
        world: Pays 1 for a success, see `successes`.
        policy: (S, A).
    """
    weight = visits_before_success(world, policy)
    total = weight.sum(-1, keepdims=True)
    return np.where(total > 0, weight / np.maximum(total, 1e-300), policy)


def visits_before_success(world: Tabular, policy: Array) -> Array:
    """(S, A): expected number of times that an action is taken in a state in an episode that goes on to succeed."""
    values, reached = policy_values(world, policy), occupancy(world, policy)
    chance = np.stack([world.action_values(t, values[t + 1]) for t in range(world.horizon)])
    return (reached[..., None] * policy * chance).sum(0)


def exact_gradient(world: Tabular, policy: Array) -> Array:
    """(S, A): gradient of the expected return in the logits, Σ_t d_t(s) π(a | s) (Q_t(s, a) − V_t(s)) (Sutton et al. 2000)."""
    values, reached = policy_values(world, policy), occupancy(world, policy)
    advantage = np.stack([world.action_values(t, values[t + 1]) - values[t][:, None] for t in range(world.horizon)])
    return (reached[..., None] * policy * advantage).sum(0)


def successful(log: Log) -> Log:
    """The episodes that reached the treasure."""
    return log.of(log.total(log.ended.astype(float)) > 0)


def work(seed: int, quick: bool, tick: Callable[[], None]) -> Outcome:
    """Success and return over the rounds."""
    rng = np.random.default_rng(seed)
    episodes = 256 if quick else 2000
    world = vault.tabular(5 if quick else 6, 0.1, max_turns=DEADLINE)
    goal = successes(world)
    start = uniform_policy(world)

    first = successful(play(world, start, 20 * episodes, rng))
    share = first.n / (20 * episodes)
    supervised = share * gradient(first, start, np.ones(len(first.state)))
    exact = exact_gradient(goal, start)
    cosine = float((supervised * exact).sum() / np.linalg.norm(supervised) / np.linalg.norm(exact))

    policy, ideal = start, start
    sampled, limit, paid = [policy_return(goal, start)], [policy_return(goal, start)], [policy_return(world, start)]
    for _ in range(ROUNDS):
        kept = successful(play(world, policy, episodes, rng))
        # A trace of the last round, so that an action does not vanish by chance; it fades with the size of the round.
        counts = np.zeros_like(policy)
        np.add.at(counts, (kept.state, kept.action), 1.0)
        policy = (counts + policy) / (counts.sum(-1, keepdims=True) + 1.0)
        ideal = imitate_successes(goal, ideal)
        sampled.append(policy_return(goal, policy))
        limit.append(policy_return(goal, ideal))
        paid.append(policy_return(world, policy))
    tick()
    best, best_paid = optimal_return(goal), optimal_return(world)
    x = tuple(float(i) for i in range(ROUNDS + 1))
    return Outcome(
        {
            "success at the start": sampled[0],
            "success after one round": sampled[1],
            f"success after {ROUNDS} rounds": sampled[-1],
            "greatest possible success": best,
            "return at the start": paid[0],
            "return after one round": paid[1],
            f"return after {ROUNDS} rounds": paid[-1],
            "greatest possible return": best_paid,
            "least change of success in a round, endless samples": float(np.diff(limit).min()),
            "least change of success in a round": float(np.diff(sampled).min()),
            "cosine of its first gradient with the policy gradient of success": cosine,
        },
        (
            Curve("success", "sampled", x, tuple(sampled), "round"),
            Curve("success", "endless samples", x, tuple(limit), "round"),
            Curve("return", "sampled", x, tuple(paid), "round"),
        ),
    )


def jobs(seed: int, quick: bool, out: Path) -> list[Job]:
    """One job."""
    return [Job("own successes", work, {"seed": seed, "quick": quick}, 1)]


CLAIM = Claim(
    key="E6",
    title="rejection sampling and SFT are no RL",
    statement=(
        "Fine-tuning on one's own successful samples is supervised learning: it copies what the model could do already and gets no "
        "better at the task. Said of rejection sampling by those who set it against reinforcement learning."
    ),
    expected=(
        "False: imitating one's own successes is a step along the policy gradient of success, and repeated it rises in every round "
        "to near the optimum. One round is not enough, and a filter of successes knows nothing of how fast they were."
    ),
    learner="exact tabular",
    claimed=(
        Comparison(f"success after {ROUNDS} rounds", "within", "success at the start", 0.1),
        Comparison("success after one round", "within", "success at the start", 0.1),
    ),
    found=(
        Comparison("cosine of its first gradient with the policy gradient of success", "above", 0.95),
        Comparison("least change of success in a round, endless samples", "above", -1e-9),
        Comparison("success after one round", "below", f"success after {ROUNDS} rounds", 0.1),
        Comparison(f"success after {ROUNDS} rounds", "within", "greatest possible success", 0.05),
        Comparison(f"return after {ROUNDS} rounds", "below", "greatest possible return", 0.2),
    ),
    how=(
        f"A vault of 6 rooms with slip 0.1 and {DEADLINE} turns, from random play. Each round plays 2,000 episodes, keeps those that "
        "reach the treasure, and imitates them. Success and return are computed exactly from the policy. Endless samples: the same "
        "with the exact distribution of successful episodes. The first gradient is that of the log-likelihood of the kept episodes "
        "(40,000 played); the policy gradient of success is exact."
    ),
    jobs=jobs,
    charts=(
        Chart(
            "success",
            ("success at the start", "success after one round", f"success after {ROUNDS} rounds"),
            "greatest possible success",
            "share",
        ),
    ),
    seeds=5,
)
"""E6."""
