"""Constitutional AI: (1) violations of a checkable principle fall below one per cent, from 40 per cent, on three seeds, (2) each phase asks
for its own world, (3) preferences are measured from the policy that imitation ended with, (4) a run that was cut between and
within the phases goes on exactly, (5) the dialogue of a policy that revises itself trains too, (6) nonsense is refused."""

from __future__ import annotations

import copy
import random
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from turnwise.algorithms import SFT
from turnwise.algorithms.constitutional import Constitutional
from turnwise.algorithms.settings import SettingsError
from turnwise.envs.constitution import ConstitutionEnv
from turnwise.envs.prompts import PromptEnv
from turnwise.episode import Transcript
from turnwise.learners import LocalLearner
from turnwise.models import Policy, Sampling, build_model, build_tokenizer
from turnwise.rewards.principles import PrincipleReward
from turnwise.rollout import Collector, Logged, episodes_of, held_out_tasks
from turnwise.rollout.constitution import Constitution, reviewer
from turnwise.runs import RunFolder, train
from turnwise.text import Reader
from turnwise.text.principles import parse_principles, violations
from turnwise.text.procedure import Procedure, by_rule

PRINCIPLES = parse_principles("Never mention the weather. [forbids: rain|sun|wind => gardens]")
PLACES = ["london", "paris", "rome", "cairo", "lima", "oslo", "delhi", "tokyo"]
THINGS = ["bridges", "markets", "gardens", "museums"]
PROMPTS = [f"tell me about {place}" for place in PLACES]


def chatter(seed: int, n: int = 256, share: float = 0.4) -> list[Transcript]:
    """Replies of which `share` end with the weather."""
    rng, made = random.Random(seed), []
    for i in range(n):
        place, thing = rng.choice(PLACES), rng.choice(THINGS)
        last = rng.choice(["rain", "sun", "wind"] if rng.random() < share else THINGS)
        reply = f"{place} has {thing} and {last} today"
        made.append(Transcript((f"tell me about {place}",), (reply,), (0.0,), True, False, seed=i))
    return made


def started(seed: int, steps: int = 40) -> Policy:
    """A small model that has learnt to talk like that; a new copy at every call."""
    policy = learnt(seed, steps)
    model = copy.deepcopy(policy.model)
    return Policy(model, policy.tokenizer, renderer=policy.renderer, sampling=policy.sampling)


@lru_cache
def learnt(seed: int, steps: int) -> Policy:
    rows = chatter(seed)
    tokenizer = build_tokenizer([text for row in rows for text in (*row.observations, *row.actions)])
    policy = Policy(build_model(tokenizer, seed=seed, context=128), tokenizer, sampling=Sampling(max_tokens=12))
    learner = LocalLearner(policy, lr=3e-3, seed=seed)
    source, sft = Logged(episodes_of(rows, policy), seed=seed), SFT(episodes=64, minibatch=32)
    for iteration in range(steps):
        learner.anneal(iteration / steps)
        sft.improve(learner, sft.collect(source, iteration))
    return policy


def world(policy: Policy, seed: int, *, self_revised: bool = False) -> Constitution:
    options: Any = {"slots": 128, "where": "inline", "seed": seed}
    replies = Collector(partial(PromptEnv, PROMPTS, lambda *_: 0.0), policy, **options)
    revise: Any = reviewer(PRINCIPLES, by_rule, policy.renderer)
    if self_revised:
        make = partial(ConstitutionEnv, PROMPTS, PRINCIPLES, Procedure("{principle}", "tell"))
        revise = Collector(make, policy, **options)
    return Constitution(replies, revise, {"principles": (1.0, PrincipleReward(PRINCIPLES, policy.renderer))})


def said(source: Constitution, n: int = 500) -> list[tuple[str, str]]:
    """(prompt, reply) on held-out tasks."""
    collector: Any = source.replies
    reader = Reader(collector.policy.renderer)
    found = [reader.transcript(episode) for episode in collector.collect(held_out_tasks(n))]
    return [(one.observations[0], one.actions[0]) for one in found]


def trained(method: Constitutional, seed: int, steps: int) -> tuple[list[float], float]:
    """Share of replies that offend at the start and at the end, and share that names the place that was asked about."""
    policy = started(seed)
    source = world(policy, seed)
    learner = LocalLearner(policy, lr=1e-3, seed=seed, reference=policy.reference())
    shares = [float(np.mean([bool(violations(PRINCIPLES, reply)) for _, reply in said(source)]))]
    for iteration in range(steps):
        learner.anneal(iteration / steps)
        learner.iteration = iteration
        source.refresh(learner)
        method.improve(learner, method.collect(source, iteration))
    source.refresh(learner)
    heard = said(source)
    source.close()
    shares.append(float(np.mean([bool(violations(PRINCIPLES, reply)) for _, reply in heard])))
    return shares, float(np.mean([reply.startswith(prompt.split()[-1]) for prompt, reply in heard]))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_violations_of_a_checkable_principle_fall_below_one_per_cent(seed: int) -> None:
    (before, after), to_the_point = trained(Constitutional(revisions=2, groups=32, minibatch=4), seed, 6)
    assert before > 0.3
    assert after < 0.01
    assert to_the_point > 0.9


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_so_do_they_by_preferences_alone(seed: int) -> None:
    (before, after), _ = trained(Constitutional(revisions=0), seed, 12)
    assert before > 0.3
    assert after < 0.01


def test_each_phase_asks_for_its_own_world() -> None:
    class Asked:
        def revisions(self, iteration: int, n: int) -> Any:
            return ("revisions", iteration, n)

        def rollouts(self, iteration: int, groups: int, group_size: int) -> Any:
            return ("rollouts", iteration, groups, group_size)

    method: Any = Constitutional(revisions=2, episodes=5, groups=3, group_size=4)
    asked = [method.collect(Asked(), iteration) for iteration in range(4)]
    assert asked == [("revisions", 0, 5), ("revisions", 1, 5), ("rollouts", 2, 3, 4), ("rollouts", 3, 3, 4)]


SMALL = Constitutional(revisions=2, episodes=16, groups=16, group_size=2)


def run(folder: Path, steps: int, *, resume: bool = False) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """A run of a new process: the model is built again, and what it has learnt comes from the folder."""
    policy = started(0, steps=6)
    learner = LocalLearner(policy, lr=2e-3, schedule="constant", reference=policy.reference())
    source = world(policy, 0)
    with RunFolder.open(folder) if resume else RunFolder.create(folder, {}, seeds={}) as opened:
        last = train(SMALL, source, learner, opened, steps=steps, save_every=1, progress=False, tensorboard=False)
    source.close()
    weights = {name: parameter.detach().clone() for name, parameter in policy.parameters().items()}
    return {name: value for name, value in last.items() if not name.startswith("time/")}, weights


@pytest.mark.parametrize("cut", [2, 3])
def test_a_run_cut_between_or_within_the_phases_goes_on_exactly(cut: int, tmp_path: Path) -> None:
    whole, expected = run(tmp_path / "whole", 5)
    run(tmp_path / "cut", cut)
    resumed, found = run(tmp_path / "cut", 5, resume=True)
    assert resumed == whole
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())


def test_preferences_are_measured_from_where_imitation_ended() -> None:
    policy = started(0, steps=6)
    learner = LocalLearner(policy, lr=2e-3, reference=policy.reference())
    source, first = world(policy, 0), learner.reference
    for iteration in range(4):
        learner.iteration = iteration
        source.refresh(learner)
        episodes = SMALL.collect(source, iteration)
        before = {name: parameter.detach().clone() for name, parameter in policy.parameters().items()}
        SMALL.improve(learner, episodes)
        if iteration == 2:
            held = dict(learner.reference.model.named_parameters())
            assert all(torch.equal(held[name], weight) for name, weight in before.items())
            moved = learner.reference
    assert learner.reference is moved
    assert moved is not first


def test_a_policy_that_revises_itself_trains_on_what_it_wrote() -> None:
    policy = started(0, steps=6).with_sampling(max_tokens=8)
    learner = LocalLearner(policy, lr=2e-3, reference=policy.reference())
    source = world(policy, 0, self_revised=True)
    episodes = SMALL.collect(source, 0)
    improvement = SMALL.improve(learner, episodes)
    complete, n = improvement.metrics["revisions/complete"]
    assert n == 16
    assert complete == sum(episode.terminated for episode in episodes)
    assert learner.version > 0
    source.close()


def test_dialogues_without_a_revision_change_nothing(caplog: pytest.LogCaptureFixture) -> None:
    policy = started(0, steps=2)
    learner = LocalLearner(policy, reference=policy.reference())
    replies: Any = world(policy, 0).replies
    improvement = SMALL.improve(learner, replies.rollouts(0, 4))
    assert improvement.metrics["revisions/complete"] == (0.0, 4.0)
    assert learner.version == 0
    assert "none of the 4 dialogues" in caplog.text


def test_nonsense_is_refused() -> None:
    for settings in ({"group_size": 1}, {"beta": 0.0}, {"episodes": 0}, {"epochs": 0}, {"revisions": -1}):
        with pytest.raises(SettingsError, match=next(iter(settings))):
            Constitutional(**settings)  # type: ignore[arg-type]
