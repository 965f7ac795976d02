"""One training run from plain settings: the place where configuration becomes objects.

A run has up to two phases, each a run folder of its own: a warm start (supervised fine-tuning on demonstrations, in
``warm-start/``) and the algorithm. Both resume exactly.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from turnwise.algorithms import NAMES
from turnwise.envs.registry import EnvSpec, of_factory, spec
from turnwise.episode import Transcript
from turnwise.errors import TurnwiseError


@dataclass(frozen=True)
class World:
    """The environment and how the policy lives in it.

    Attributes:
        env: Id of an environment (``turnwise envs``), options included, or ``file.py:name``.
        memory: Past turns that stay in the context; -1 keeps all, 0 makes every observation a context of its own.
        compact: When the context is full, forget the oldest turns instead of ending the episode.
        max_tokens: Budget of one action in tokens, stop token included.
        on_length: An action that uses up its budget ends the episode (truncate) or is taken as it is (act).
        max_turns: Stop an episode after so many turns, besides the environment's own limit; 0 for no further limit.
        slots: Episodes in flight.
        where: Run environments in the event loop (inline), in threads or in processes; auto asks the environment.
        deadline: Seconds an environment may take for one step, in threads and processes.
    """

    env: str = "errand"
    memory: int = -1
    compact: bool = False
    max_tokens: int = 16
    on_length: Literal["truncate", "act"] = "act"
    max_turns: int = 0
    slots: int = 64
    where: Literal["auto", "inline", "thread", "process"] = "auto"
    deadline: float = 60.0


@dataclass(frozen=True)
class Model:
    """The language model.

    Attributes:
        model: ``tiny`` or ``small`` for a model from scratch, else a Hugging Face folder or id.
        lora: Rank of a LoRA adapter; 0 trains all weights.
        dtype: Torch dtype of a loaded model's weights.
        temperature: Sampling temperature, in training and in every log-probability.
        top_p: Nucleus that actions are sampled from; 1 samples from everything.
        system: System message put before every episode; empty for none.
        template: Chat template: ``auto`` takes the tokenizer's, ``plain`` a line for the observation and one for the action.
        trust_remote_code: Run modelling code that comes with the weights.
    """

    model: str = "tiny"
    lora: int = 0
    dtype: str = "float32"
    temperature: float = 1.0
    top_p: float = 1.0
    system: str = ""
    template: Literal["auto", "plain"] = "auto"
    trust_remote_code: bool = False


@dataclass(frozen=True)
class WarmStart:
    """Supervised fine-tuning before the algorithm, on demonstrations that the environment gives for free.

    Attributes:
        demonstrations: Number of demonstrated episodes; 0 for no warm start.
        skill: Share of the demonstrator's actions that are the expert's; the others are random. At 1 they are
            perfect, at 0 no expert is needed.
        epochs: Passes over the demonstrations.
        lr: Peak learning rate.
    """

    demonstrations: int = 0
    skill: float = 0.2
    epochs: int = 3
    lr: float = 2e-3


@dataclass(frozen=True)
class Optimiser:
    """AdamW.

    Attributes:
        lr: Peak learning rate; 0 takes 5e-4 for a model from scratch, 1e-5 for a loaded one, 1e-4 for LoRA.
        schedule: Linear to zero over the run, or constant.
        warmup: Share of the run during which the rate rises from zero.
        max_grad_norm: Clip the gradient's norm to this; 0 leaves it.
        max_tokens: Tokens per micro-batch; lower it when memory runs out, the result stays the same.
    """

    lr: float = 0.0
    schedule: Literal["linear", "constant"] = "linear"
    warmup: float = 0.0
    max_grad_norm: float = 1.0
    max_tokens: int = 8192


@dataclass(frozen=True)
class Training:
    """Everything that decides a run.

    Attributes:
        algorithm: One of `turnwise.algorithms`, with its hyperparameters.
        steps: Iterations.
        seed: Seed of everything: weights, tasks, sampling, minibatches.
        save_every: Iterations between checkpoints.
        record: Episodes kept per iteration in the record; 0 keeps none, -1 all.
        threads: Torch threads; 0 leaves torch's choice. The same number is needed for a bit-exact resume.
    """

    algorithm: Any
    world: World = field(default_factory=World)
    model: Model = field(default_factory=Model)
    warm_start: WarmStart = field(default_factory=WarmStart)
    optimiser: Optimiser = field(default_factory=Optimiser)
    steps: int = 30
    seed: int = 0
    save_every: int = 10
    record: int = 16
    threads: int = 0

    def to_config(self) -> dict[str, Any]:
        """Plain data, for ``config.json``."""
        names = {cls: name for name, cls in NAMES.items()}
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "algorithm"}
        parts = {k: dataclasses.asdict(v) if dataclasses.is_dataclass(v) else v for k, v in own.items()}  # pyright: ignore
        hyper = {"name": names[type(self.algorithm).__name__], **dataclasses.asdict(self.algorithm)}
        return {"algorithm": hyper, **parts}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Training:
        """The inverse of `to_config`.

        Raises:
            TurnwiseError: unknown keys, with their names.
        """
        from turnwise import algorithms

        data = dict(config)
        hyper = dict(data.pop("algorithm"))
        made = _construct(getattr(algorithms, NAMES[hyper.pop("name")]), hyper, "algorithm")
        kinds = {"world": World, "model": Model, "warm_start": WarmStart, "optimiser": Optimiser}
        parts = {name: _construct(kind, data.pop(name, {}), name) for name, kind in kinds.items()}
        return _construct(cls, {"algorithm": made, **parts, **data}, "run")


def _construct(kind: Any, values: Mapping[str, Any], where: str) -> Any:
    known = {f.name for f in dataclasses.fields(kind)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise TurnwiseError(f"{where} has no setting {unknown[0]!r}; it has {', '.join(sorted(known))}")
    return kind(**values)


@dataclass
class Trained:
    """A finished (or interrupted and reloaded) run.

    Attributes:
        folder: Where everything is.
        training: Its settings.
        policy: The policy as trained.
        env: What is known about its environment.
    """

    folder: Path
    training: Training
    policy: Any
    env: EnvSpec

    def evaluate(self, episodes: int = 256, *, greedy: bool = False, env: Callable[[], Any] | None = None) -> Any:
        """Roll out held-out tasks that no run trains on.

        Args:
            episodes: Number of tasks.
            greedy: Take the most likely token instead of sampling.
            env: Another environment to act in, with the same texts (an interrupted one, say).

        Returns:
            `turnwise.runs.Evaluation`: success, return, turns, with bootstrap intervals.
        """
        from turnwise.runs import summarise

        return summarise(self.rollouts(episodes, greedy=greedy, env=env))

    def rollouts(self, episodes: int = 256, *, greedy: bool = False, env: Callable[[], Any] | None = None) -> list[Any]:
        """The episodes behind `evaluate`."""
        from turnwise.rollout import held_out_tasks

        collector = make_collector(self.training, self.env, self.policy, make_env=env)
        try:
            sampling = dataclasses.replace(self.policy.sampling, temperature=0.0) if greedy else None
            return collector.collect(held_out_tasks(episodes), sampling=sampling)
        finally:
            collector.close()

    def save(self, folder: str | Path) -> None:
        """Write the policy as a Hugging Face folder, a LoRA adapter merged."""
        self.policy.save(folder, merge=True)


def run(
    training: Training,
    out: str | Path,
    *,
    env: EnvSpec | Callable[..., Any] | None = None,
    demonstrations: Sequence[Transcript] | None = None,
    resume: bool = False,
    progress: bool = True,
    on_iteration: Callable[[int, dict[str, float]], None] | None = None,
) -> Trained:
    """Train, from the beginning or from the newest checkpoint in `out`.

    Args:
        training: The settings.
        out: Run folder; new or empty, unless `resume`.
        env: The environment itself where it has no name, in place of ``training.world.env``.
        demonstrations: What to warm-start from, in place of the environment's own demonstrator.
        resume: Go on with the run in `out`.
        progress: Show progress.
        on_iteration: Called after each iteration of the algorithm, with its number and metrics.

    Raises:
        TurnwiseError: anything the user can mend, with the remedy.
    """
    import torch

    from turnwise.learners import LocalLearner
    from turnwise.runs import RunFolder, train

    if training.threads:
        torch.set_num_threads(training.threads)
    world = resolve_env(training, env)
    out = Path(out)
    config = {"training": training.to_config()}
    folder = RunFolder.open(out) if resume else RunFolder.create(out, config, seeds={"run": training.seed})
    with folder:
        policy = _initial_policy(training, world, out, demonstrations, progress)
        reference = policy.reference() if getattr(training.algorithm, "kl_coef", 0) else None
        learner = LocalLearner(
            policy,
            lr=training.optimiser.lr or _default_lr(training.model),
            schedule=training.optimiser.schedule,
            warmup=training.optimiser.warmup,
            max_grad_norm=training.optimiser.max_grad_norm,
            max_tokens=training.optimiser.max_tokens,
            reference=reference,
        )
        record = None if training.record < 0 else training.record
        source = _source(training, world, policy, demonstrations)
        try:
            train(
                training.algorithm,
                source,
                learner,
                folder,
                steps=training.steps,
                save_every=training.save_every,
                record=record,
                on_iteration=on_iteration,
                progress=progress,
            )
        finally:
            source.close()
    return Trained(out, training, policy, world)


def load(out: str | Path, *, model: str | Path | None = None) -> Trained:
    """A finished run from its folder.

    Args:
        out: Run folder.
        model: Another model folder to act with, in the run's environment.

    Raises:
        TurnwiseError: no run there, or one that has not finished its first phase.
    """
    from turnwise.runs import RunFolder

    folder = RunFolder.view(out)
    training = Training.from_config(folder.config["training"])
    path = Path(model) if model else folder.final
    if not path.exists():
        raise TurnwiseError(f"{out} has no final model yet; finish it with `turnwise train --resume {out}`")
    return Trained(Path(out), training, load_policy(training, path), resolve_env(training, None))


def resolve_env(training: Training, env: EnvSpec | Callable[..., Any] | None) -> EnvSpec:
    """The description of the run's environment."""
    if env is None:
        return spec(training.world.env)
    return env if isinstance(env, EnvSpec) else of_factory(training.world.env, env)


def load_policy(training: Training, path: str | Path, *, value_head: bool = False) -> Any:
    """The model in `path`, acting as the run's settings say."""
    from turnwise.models import Policy
    from turnwise.text.renderer import PLAIN

    model = training.model
    return Policy.from_pretrained(
        path,
        value_head=value_head,
        dtype=model.dtype,
        sampling=_sampling(training),
        system=model.system or None,
        template=PLAIN if model.template == "plain" else None,
        trust_remote_code=model.trust_remote_code,
    )


def make_collector(
    training: Training, world: EnvSpec, policy: Any, *, make_env: Callable[[], Any] | None = None
) -> Any:
    """A collector with the run's settings."""
    from turnwise.rollout import Collector, Memory

    settings = training.world
    where = settings.where
    if where == "auto":
        where = "inline" if world.inline else "thread"
    memory = Memory(None if settings.memory < 0 else settings.memory, policy.context_limit, settings.compact)
    return Collector(
        make_env or world.make,
        policy,
        slots=settings.slots,
        memory=memory,
        on_length=settings.on_length,
        max_turns=settings.max_turns or None,
        where=where,
        deadline=settings.deadline,
        seed=training.seed,
    )


def _sampling(training: Training) -> Any:
    from turnwise.models import Sampling

    return Sampling(
        temperature=training.model.temperature, top_p=training.model.top_p, max_tokens=training.world.max_tokens
    )


def _default_lr(model: Model) -> float:
    from turnwise.models import SIZES

    if model.model in SIZES:
        return 5e-4
    return 1e-4 if model.lora else 1e-5


def _source(training: Training, world: EnvSpec, policy: Any, given: Sequence[Transcript] | None) -> Any:
    from turnwise.algorithms import SFT
    from turnwise.rollout import Logged, Memory, episodes_of

    if not isinstance(training.algorithm, SFT):
        return make_collector(training, world, policy)
    memory = Memory(None if training.world.memory < 0 else training.world.memory, policy.context_limit)
    return Logged(episodes_of(_demonstrations(training, world, given), policy, memory), seed=training.seed)


def _demonstrations(training: Training, world: EnvSpec, given: Sequence[Transcript] | None) -> list[Transcript]:
    """The given transcripts, or what the environment's own demonstrator does on training tasks."""
    from turnwise.engines.noise import mix
    from turnwise.envs import demonstrate
    from turnwise.rollout import TRAIN_SEEDS

    if given is not None:
        return list(given)
    n = training.warm_start.demonstrations
    seeds = [mix(training.seed, i, 3) % TRAIN_SEEDS for i in range(n)]
    limit = training.world.max_turns or None
    return demonstrate(world.make, seeds, skill=training.warm_start.skill, seed=training.seed, max_turns=limit)


def _initial_policy(
    training: Training, world: EnvSpec, out: Path, given: Sequence[Transcript] | None, progress: bool
) -> Any:
    """The policy the algorithm starts from: loaded or built, and warm-started if asked for."""
    from turnwise.algorithms import PPO, SFT
    from turnwise.learners import LocalLearner
    from turnwise.models import SIZES, Policy, build_model, build_tokenizer
    from turnwise.models.policy import with_lora
    from turnwise.rollout import Logged, Memory, episodes_of
    from turnwise.runs import RunFolder, train

    critic = isinstance(training.algorithm, PPO)
    warm = training.warm_start
    is_sft = isinstance(training.algorithm, SFT)
    if is_sft and given is None and not warm.demonstrations:
        raise TurnwiseError("sft learns from demonstrations: say how many with --warm-start.demonstrations N")
    phase = out / "warm-start"
    if (phase / "final").exists():
        return load_policy(training, phase / "final", value_head=critic)
    wanted = bool(given) or warm.demonstrations > 0
    transcripts = _demonstrations(training, world, given) if wanted else []
    if training.model.model in SIZES:
        tokenizer = build_tokenizer(_texts(world, transcripts))
        model = build_model(tokenizer, training.model.model, seed=training.seed)
        if training.model.lora:
            model = with_lora(model, training.model.lora)
        policy = Policy(model, tokenizer, sampling=_sampling(training))
    else:
        policy = load_policy(training, training.model.model)
        if training.model.lora:
            policy = Policy(
                with_lora(policy.model, training.model.lora), policy.tokenizer, renderer=policy.renderer,
                sampling=policy.sampling,
            )  # fmt: skip
    if wanted and not is_sft:
        memory = Memory(None if training.world.memory < 0 else training.world.memory, policy.context_limit)
        source = Logged(episodes_of(transcripts, policy, memory), seed=training.seed)
        sft = SFT()
        steps = max(1, warm.epochs * len(source.episodes) // sft.episodes)
        config = {"training": training.to_config(), "phase": "warm-start"}
        started = (phase / "config.json").exists()
        folder = RunFolder.open(phase) if started else RunFolder.create(phase, config, seeds={"run": training.seed})
        with folder:
            learner = LocalLearner(policy, lr=warm.lr, warmup=0.1)
            train(sft, source, learner, folder, steps=steps, save_every=steps, record=0, progress=progress)
    if critic:
        policy.add_value_head()
    return policy


def _texts(world: EnvSpec, transcripts: Sequence[Transcript]) -> list[str]:
    """Texts that a from-scratch tokenizer has to know: the demonstrations, else what random play shows."""
    from turnwise.envs import demonstrate
    from turnwise.envs.errors import NotOffered

    texts = list(world.actions)
    if not transcripts:
        try:
            transcripts = demonstrate(world.make, range(64), skill=0.0, max_turns=50)
        except NotOffered:
            texts += _explore(world)
    for transcript in transcripts:
        texts += [*transcript.observations, *transcript.actions, transcript.last_obs, transcript.goal or ""]
    return texts


def _explore(world: EnvSpec) -> list[str]:
    """What an environment says to actions that mean nothing, where it offers no legal ones."""
    env = world.make()
    if hasattr(env, "agents"):
        return [env.reset(seed)[1] for seed in range(64)]
    seen: list[str] = []
    for seed in range(16):
        obs, _ = env.reset(seed=seed)
        seen.append(obs)
        for number in range(20):
            obs, _, terminated, truncated, _ = env.step(str(number))
            seen.append(obs)
            if terminated or truncated:
                break
    env.close()
    return seen
