"""E4: offline against online at equal labels. Ways to learn from a fixed log, and policy gradient on own episodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.random import Generator

from turnwise.credit import returns
from turnwise.envs import vault
from turnwise.envs.exact import Array, Tabular, greedy, mixture, optimal_policy, optimal_return, policy_return
from turnwise.recipes.claims.claim import Chart, Claim, Comparison, Curve, Outcome
from turnwise.recipes.claims.tabular import Log, clone, learn, play
from turnwise.recipes.parallel import Job

SIZES = (100, 300, 1000, 3000)
"""Numbers of labels: episodes whose return is known."""
DECIDES = 1000
"""The number at which the claim is decided."""
BASE_NOISE = 0.8
"""Share of random actions in the base; the others are an expert's."""
DISCOUNT = 0.95
"""Of methods that hurry because they discount: rewards of this world fall with the turn, and a log of it tells no time."""
ROUND = 25
"""Episodes of an online round."""


def base_policy(world: Tabular) -> Array:
    """(S, A): a mediocre player, an expert's action with probability 0.2 and a random one otherwise."""
    return mixture(np.eye(world.n_actions)[optimal_policy(world)[0]], BASE_NOISE)


def filtered_cloning(world: Tabular, log: Log, base: Array, rng: Generator) -> Array:
    """Imitate the best tenth of the episodes."""
    paid = log.total(log.reward)
    return clone(world, log.of(paid >= np.quantile(paid, 0.9)))


def weighted_cloning(world: Tabular, log: Log, base: Array, rng: Generator) -> Array:
    """Imitate each action by its return: advantage-weighted regression, weight exp(A / β) (Peng et al. 2019).

    A is the return-to-go, discounted by 0.95, less its mean in the state, in standard deviations; β = 0.2, and A / β is at
    most 20.
    """
    found = np.concatenate(returns(log.split(log.reward), DISCOUNT))
    visits = np.maximum(np.bincount(log.state, minlength=world.n_states), 1)
    value = np.bincount(log.state, found, minlength=world.n_states) / visits
    advantage = found - value[log.state]
    return clone(world, log, np.exp(np.minimum(advantage / (0.2 * advantage.std() + 1e-12), 20.0)))


def dpo(world: Tabular, log: Log, base: Array, rng: Generator, *, beta: float = 0.1, steps: int = 30) -> Array:
    """DPO on pairs of whole episodes, the one of greater return chosen, with the base as its reference.

    It stops after 30 steps of Adam on all pairs; ten times as many halve the return.
    """
    import torch

    from turnwise.objectives.preference_losses import Pairs, sigmoid

    order = rng.permutation(log.n - log.n % 2).reshape(2, -1)
    paid = log.total(log.reward)
    differ = paid[order[0]] != paid[order[1]]
    first, second = order[:, differ]
    better = np.where(paid[first] > paid[second], first, second)
    worse = np.where(paid[first] > paid[second], second, first)
    reference = torch.tensor(np.log(base))
    logits = reference.clone().requires_grad_()
    episode = torch.tensor(np.repeat(np.arange(log.n), log.lengths))
    at = torch.tensor(log.state * world.n_actions + log.action)

    def summed(table: torch.Tensor) -> torch.Tensor:
        per_turn = table.reshape(-1)[at]
        return torch.zeros(log.n, dtype=per_turn.dtype).index_add(0, episode, per_turn)

    kept, lengths = summed(reference), torch.tensor(log.lengths)
    optimiser = torch.optim.Adam([logits], lr=0.05)
    for _ in range(steps):
        now = summed(torch.log_softmax(logits, -1))
        sides = (now[better], now[worse], kept[better], kept[worse], lengths[better], lengths[worse])
        optimiser.zero_grad()
        sigmoid(Pairs(*sides, beta=beta)).mean().backward()
        optimiser.step()
    return torch.softmax(logits.detach(), -1).numpy()


def offline_q(world: Tabular, log: Log, base: Array, rng: Generator) -> Array:
    """Fitted Q-iteration on the log (Ernst et al. 2005) with discount `DISCOUNT`, then its greedy policy.

    Actions tried fewer than three times in a state are not chosen there.
    """
    counts = np.zeros((world.n_states, world.n_actions))
    np.add.at(counts, (log.state, log.action), 1.0)
    tried = counts >= 3
    q = np.zeros_like(counts)
    for _ in range(200):
        value = np.where(tried.any(-1), np.where(tried, q, -np.inf).max(-1), 0.0)
        target = log.reward + DISCOUNT * np.where(log.ended, 0.0, value[log.after])
        total = np.zeros_like(q)
        np.add.at(total, (log.state, log.action), target)
        q = total / np.maximum(counts, 1.0)
    known = np.where(tried, q, -1e9)
    return np.where(tried.any(-1, keepdims=True), greedy(known, scale=1.0), base)


OFFLINE: Mapping[str, Callable[[Tabular, Log, Array, Generator], Array]] = {
    "filtered cloning": filtered_cloning,
    "weighted cloning": weighted_cloning,
    "DPO": dpo,
    "offline Q": offline_q,
}
"""Name -> what makes a policy of a log."""
ONLINE = "online policy gradient"
"""The other side."""


def online(world: Tabular, base: Array, labels: int, rng: Generator) -> Array:
    """The policy after so many own episodes."""
    return list(learn(world, base, rng, rounds=labels // ROUND, episodes=ROUND, lr=3.0))[-1]


def work(seed: int, quick: bool, tick: Callable[[], None]) -> Outcome:
    """Exact returns of all of them, at all numbers of labels."""
    rng = np.random.default_rng(seed)
    world = vault.tabular(4 if quick else 6, 0.1)
    base = base_policy(world)
    sizes = SIZES[:3] if quick else SIZES
    paid: dict[str, list[float]] = {name: [] for name in (*OFFLINE, ONLINE)}
    for labels in sizes:
        log = play(world, base, labels, rng)
        for name, made in OFFLINE.items():
            paid[name].append(policy_return(world, made(world, log, base, rng)))
        paid[ONLINE].append(policy_return(world, online(world, base, labels, rng)))
        tick()
    at = sizes.index(DECIDES)
    figures = {name: values[at] for name, values in paid.items()}
    figures |= {"base": policy_return(world, base), "optimum": optimal_return(world)}
    curves = (
        Curve("return by labels", name, tuple(map(float, sizes)), tuple(values), "episodes")
        for name, values in paid.items()
    )
    return Outcome(figures, tuple(curves))


def jobs(seed: int, quick: bool, out: Path) -> list[Job]:
    """One job."""
    return [Job("offline and online", work, {"seed": seed, "quick": quick}, len(SIZES) - quick)]


CLAIM = Claim(
    key="E4",
    title="learning from a fixed log falls short of online learning",
    statement=(
        "Whoever learns from a fixed set of answers does not do reinforcement learning and gets less far than somebody who acts: at "
        "equal labels every offline method ends below online learning. Said of DPO on fixed preferences."
    ),
    expected=(
        "False of every method: imitation and DPO stay below, but Q-learning on the same log comes as far, where the log has been "
        "everywhere."
    ),
    learner="exact tabular",
    claimed=tuple(Comparison(name, "below", ONLINE, 0.2) for name in OFFLINE),
    found=(
        *(Comparison(name, "above", "base", 0.2) for name in OFFLINE),
        Comparison("offline Q", "above", ONLINE),
        Comparison("offline Q", "above", "DPO", 0.2),
    ),
    how=(
        "A vault of 6 rooms with slip 0.1. The base takes an expert's action with probability 0.2 and a random one otherwise, so "
        f"that its log has been everywhere. Labels are episodes whose return is known: {DECIDES:,} of the base for each offline method, "
        f"as many of its own, in rounds of {ROUND}, for policy gradient. Filtered cloning imitates the best tenth; weighted cloning is "
        "advantage-weighted regression; DPO gets half as many pairs of episodes, the better one known; offline Q is fitted Q-iteration. The settings "
        "of each method were chosen among about twenty on other seeds. Returns are exact."
    ),
    jobs=jobs,
    charts=(Chart(f"expected return after {DECIDES:,} labels", ("base", *OFFLINE, ONLINE), "optimum"),),
    seeds=5,
)
"""E4."""
