"""Where a process reward model gets labels that nobody wrote: a policy's own answers, finished by it from every step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from turnwise.envs.registry import EnvSpec
from turnwise.episode import Episode
from turnwise.errors import TurnwiseError
from turnwise.recipes import sources
from turnwise.recipes.settings import Training

if TYPE_CHECKING:
    from turnwise.rollout import MonteCarlo


def make_source(training: Training, world: EnvSpec) -> MonteCarlo:
    """Answers of the policy in ``training.model``, split into steps and labelled; the policy stays as it is.

    Raises:
        TurnwiseError: a model from scratch, which has nothing to say yet, or no reward that judges an answer.
    """
    from turnwise.models import SIZES
    from turnwise.recipes.models import load_policy
    from turnwise.rewards import judged
    from turnwise.rollout import MonteCarlo, Stepwise

    if training.model.model in SIZES:
        raise TurnwiseError(
            f"labels from rollouts need a policy that answers, and {training.model.model!r} is a model from scratch: name a trained "
            "one with --model FOLDER"
        )
    policy = load_policy(training, training.model.model)
    rewards = sources.rewards_of_run(training, world, policy)
    if not rewards:
        raise TurnwiseError(
            "labels from rollouts need somebody who judges whole answers, for example --reward numeric or --reward rewards.py:f"
        )

    def judge(episodes: list[Episode]) -> list[Any]:
        return [episode.rewards for episode in judged(episodes, rewards)]

    method = training.algorithm
    answers = sources.make_collector(training, world, policy)
    steps = Stepwise(answers, policy.renderer, separator=sources.separator(training.feedback.step_end or "\n"))
    return MonteCarlo(steps, policy, judge, samples=method.samples, label=method.label, seed=training.seed)


def held_out_answers(training: Training, world: EnvSpec, answers: int) -> list[Episode]:
    """Labelled answers to held-out tasks."""
    from turnwise.rollout import held_out_tasks, split_steps

    source = make_source(training, world)
    evaluated = getattr(world.make, "evaluated", None)
    collector = sources.make_collector(training, world, source.policy, make_env=evaluated() if evaluated else None)
    try:
        played = collector.collect(held_out_tasks(answers))
    finally:
        collector.close()
    ends = sources.separator(training.feedback.step_end or "\n")
    return source.labelled([split_steps(episode, source.policy.renderer, ends) for episode in played])
