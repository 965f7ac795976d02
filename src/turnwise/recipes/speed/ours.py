"""Our side: what a user of the library writes. A collector, an algorithm, a learner, and the loop of the driver around them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

from turnwise.envs.text_env import Outcome, TextEnv
from turnwise.recipes.speed.cases import Case
from turnwise.recipes.speed.material import build_model, build_tokenizer, first_words, reward_of, stored, words
from turnwise.recipes.speed.meter import Meter


class Words(TextEnv):
    """Answers every action with words, and pays at the end of the episode.

    Args:
        case: Says how many turns and words.
    """

    def __init__(self, case: Case) -> None:
        super().__init__("words", case.turns)
        self.case = case

    def begin(self, seed: int) -> str:
        """The first observation."""
        return first_words(self.case, seed)

    def act(self, text: str) -> Outcome:
        """The next observation; what closes an answer that used up its budget is one of its tokens."""
        if self.turn == self.case.turns:
            return Outcome("", reward_of(text), terminated=True)
        return Outcome(words(self.case.shape, self.case.observation - 3, self.turn), 0.0)


def run(case: Case, dtype: str, meter: Meter, options: Mapping[str, Any]) -> None:
    """Do steps of the case until the meter says stop.

    Args:
        case: What to do.
        dtype: ``fp32`` or ``bf16``.
        meter: Keeps the time.
        options: Arguments of the learner that replace ours.
    """
    meter.settings(**dict(options))
    _RUN[case.workload](case, dtype, meter, dict(options))


def _policy(case: Case, **options: Any) -> Any:
    from turnwise.models import Policy, Sampling

    sampling = Sampling(max_tokens=case.actions)
    return Policy(build_model(case), build_tokenizer(case.shape), sampling=sampling, **options)


def _learner(policy: Any, dtype: str, options: Mapping[str, Any], **more: Any) -> Any:
    from turnwise.learners import LocalLearner

    precision = "bf16" if dtype == "bf16" else "full"
    return LocalLearner(policy, lr=1e-5, schedule="constant", **{"precision": precision, **more, **options})


def _engine(case: Case, policy: Any, dtype: str) -> Any:
    from turnwise.engines import LocalEngine

    return LocalEngine(policy, slots=case.rows, dtype="bfloat16" if dtype == "bf16" else "")


def _collector(case: Case, policy: Any, dtype: str) -> Any:
    from turnwise.rollout import Collector

    engine = _engine(case, policy, dtype)
    return Collector(lambda: Words(case), policy, engine=engine, slots=case.rows, on_length="act", where="inline")


def _loop(algorithm: Any, source: Any, learner: Any, meter: Meter, *, samples: bool) -> None:
    """The steps of `turnwise.runs.train`, without its record on disk."""
    for iteration in count():
        if not meter.next():
            return
        learner.iteration = iteration
        source.refresh(learner)
        with meter.phase("rollout" if samples else "data"):
            episodes = algorithm.collect(source, iteration)
        with meter.phase("update"):
            algorithm.improve(learner, episodes)
        tokens = sum(len(turn.obs) + len(turn.act) for episode in episodes for turn in episode.turns)
        sampled = sum(episode.n_action_tokens for episode in episodes) if samples else 0
        meter.count(tokens=tokens, sampled=sampled, rows=len(episodes))
        # TRL keeps no gradients between steps, and what an update needs is measured with them on both sides.
        for parameter in learner.policy.parameters().values():
            parameter.grad = None


def _grpo(case: Case, dtype: str, meter: Meter, options: dict[str, Any]) -> None:
    from turnwise.algorithms import GRPO

    policy = _policy(case)
    algorithm = GRPO(groups=case.groups, group_size=case.group_size, minibatch=case.rows * case.turns)
    _loop(algorithm, _collector(case, policy, dtype), _learner(policy, dtype, options), meter, samples=True)


def _ppo(case: Case, dtype: str, meter: Meter, options: dict[str, Any]) -> None:
    from turnwise.algorithms import TokenPPO
    from turnwise.models import Scorer
    from turnwise.rewards import RewardModelReward
    from turnwise.rollout import Judged

    policy = _policy(case, value_head=True)
    judge = Scorer(build_model(case, scores=True, seed=1), build_tokenizer(case.shape))
    source = Judged(_collector(case, policy, dtype), {"judge": (1.0, RewardModelReward(judge, policy.renderer))})
    algorithm = TokenPPO(
        episodes=case.rows, epochs=1, minibatch=case.rows, gamma=1.0, lam=0.95, discount="tokens", reward_scale=1.0,
        kl_coef=0.05, value_coef=0.1, value_clip=0.2,
    )  # fmt: skip
    _loop(algorithm, source, _learner(policy, dtype, options, reference=policy.reference()), meter, samples=True)


def _decode(case: Case, dtype: str, meter: Meter, options: dict[str, Any]) -> None:
    import asyncio

    import numpy as np

    from turnwise.engines import Request

    policy = _policy(case)
    engine = _engine(case, policy, dtype)
    contexts = [policy.renderer.first(first_words(case, row)).astype(np.int32) for row in range(case.rows)]

    async def sample(step: int) -> list[Any]:
        requests = [
            Request(context, row, step * case.rows + row, policy.sampling, policy.renderer.stop)
            for row, context in enumerate(contexts)
        ]
        return await asyncio.gather(*(engine.generate(request) for request in requests))

    for step in count():
        if not meter.next():
            return
        engine.load(step)
        completions = asyncio.run(sample(step))
        sampled = sum(len(completion.ids) for completion in completions)
        meter.count(sampled=sampled, tokens=sampled + sum(map(len, contexts)), rows=case.rows)


# ---- stored data -----------------------------------------------------------------------------------------------------


def _sft(case: Case, dtype: str, meter: Meter, options: dict[str, Any]) -> None:
    import numpy as np

    from turnwise.algorithms import SFT
    from turnwise.episode import Episode, Source, Turn
    from turnwise.rollout import Logged

    policy = _policy(case)
    nothing = np.zeros(0, np.int32)
    texts: list[Episode] = []
    for seed in range(stored(case)):
        ids = np.array(policy.tokenizer.encode(words(case.shape, case.length, seed)), np.int32)
        act = ids[case.prompt :]
        turn = Turn(ids[: case.prompt], act, np.zeros(len(act), np.float32), 0.0, fresh=True)
        texts.append(Episode(str(seed), (turn,), True, False, nothing, source=Source.DATASET))
    algorithm = SFT(episodes=case.rows, minibatch=case.rows)
    _loop(algorithm, Logged(texts), _learner(policy, dtype, options), meter, samples=False)


def _preferences(case: Case, policy: Any) -> Any:
    from turnwise.episode import Source, Transcript
    from turnwise.rollout import Logged, episodes_of

    def side(seed: int, shift: int, reward: float) -> Transcript:
        answer = words(case.shape, case.actions - 1, seed + shift * stored(case))
        return Transcript(
            (first_words(case, seed),), (answer,), (reward,), terminated=True, truncated=False, group=str(seed),
            source=Source.DATASET, pays="label",
        )  # fmt: skip

    sides = [side(seed, *which) for seed in range(stored(case)) for which in ((1, 1.0), (2, 0.0))]
    return Logged(episodes_of(sides, policy), grouped=True)


def _dpo(case: Case, dtype: str, meter: Meter, options: dict[str, Any]) -> None:
    from turnwise.algorithms import DPO

    policy = _policy(case)
    learner = _learner(policy, dtype, options, reference=policy.reference())
    algorithm = DPO(groups=case.groups, minibatch=case.groups)
    _loop(algorithm, _preferences(case, policy), learner, meter, samples=False)


def _reward_model(case: Case, dtype: str, meter: Meter, options: dict[str, Any]) -> None:
    from turnwise.algorithms import RewardModel
    from turnwise.models import Scorer

    scorer = Scorer(build_model(case, scores=True), build_tokenizer(case.shape))
    algorithm = RewardModel(groups=case.groups, minibatch=case.groups)
    _loop(algorithm, _preferences(case, scorer), _learner(scorer, dtype, options), meter, samples=False)


_RUN: Mapping[str, Callable[[Case, str, Meter, dict[str, Any]], None]] = {
    "grpo": _grpo,
    "turns": _grpo,
    "ppo": _ppo,
    "decode": _decode,
    "sft": _sft,
    "dpo": _dpo,
    "reward-model": _reward_model,
}
