"""One training run from plain settings: the place where configuration becomes objects.

A run has up to two phases, each a run folder of its own: a warm start (supervised fine-tuning on demonstrations, in
``warm-start/``) and the algorithm. Both resume exactly.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from turnwise.envs.address import UNREACHABLE
from turnwise.envs.registry import ByName, EnvSpec, of_factory, spec
from turnwise.episode import Transcript
from turnwise.errors import TurnwiseError
from turnwise.recipes.settings import Model, Optimiser, Training, WarmStart, World

__all__ = [
    "Model",
    "Optimiser",
    "Trained",
    "Training",
    "WarmStart",
    "World",
    "load",
    "load_policy",
    "make_collector",
    "resolve_env",
    "run",
]


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
    on_start: Callable[[Any, EnvSpec], None] | None = None,
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
        on_start: Called with the policy and its environment when both are there and nothing has been learnt yet.

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
        try:
            transcripts = _demonstrations(training, world, demonstrations)
            policy = _first_policy(training, world, transcripts, folder.tokenizer)
        except BaseException:
            # A mistyped model or option leaves no run behind that would be in the way of the corrected command.
            if not resume:
                folder.discard()
            raise
        if resume and folder.config != config:
            _refuse_other_settings(folder.config, config, out)
            folder.reconfigure(config)
        if on_start is not None:
            on_start(policy, world)
        # A stored critic is for the algorithm; imitation has nothing to teach it.
        critic, policy.value_head = policy.value_head, None
        _warm_start(training, policy, out, transcripts, progress)
        if _needs_critic(training):
            policy.value_head = critic
            policy.add_value_head()
        reference = policy.reference() if getattr(training.algorithm, "kl_coef", 0) else None
        learner = LocalLearner(
            policy,
            lr=training.optimiser.lr or _default_lr(training.model, scratch=5e-4),
            schedule=training.optimiser.schedule,
            warmup=training.optimiser.warmup,
            max_grad_norm=training.optimiser.max_grad_norm,
            max_tokens=training.optimiser.max_tokens,
            reference=reference,
            seed=training.seed,
        )
        record = None if training.record < 0 else training.record
        source = _source(training, world, policy, transcripts)
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


def _refuse_other_settings(before: dict[str, Any], now: dict[str, Any], out: Path) -> None:
    """A resumed run may be given more iterations; with any other change it would not be the same run."""
    old, new = before.get("training", {}), now["training"]
    for part in new.keys() - {"steps"}:
        if new[part] != old.get(part):
            raise TurnwiseError(
                f"{out} was started with {part} {old.get(part)}, not {new[part]}; a resumed run keeps its settings, and only "
                "steps may be raised. Start a new run in another folder"
            )


def load(
    out: str | Path,
    *,
    model: str | Path | None = None,
    env: str | EnvSpec | Callable[..., Any] | None = None,
) -> Trained:
    """A finished run from its folder.

    Args:
        out: Run folder.
        model: Another model folder to act with, in the run's environment.
        env: The environment, by name or as the object itself; needed where the run was given an object that no file
            holds.

    Raises:
        TurnwiseError: no run there, one that has not finished its first phase, or one whose environment has to be passed.
    """
    from turnwise.runs import RunFolder

    folder = RunFolder.view(out)
    training = Training.from_config(folder.config["training"])
    path = Path(model) if model else folder.final
    if not path.exists():
        raise TurnwiseError(f"{out} has no final model yet; finish it with `turnwise train --resume {out}`")
    if isinstance(env, str):
        training, env = dataclasses.replace(training, world=dataclasses.replace(training.world, env=env)), None
    world = resolve_env(training, env)
    return Trained(Path(out), training, load_policy(training, path), world)


def resolve_env(training: Training, env: EnvSpec | Callable[..., Any] | None) -> EnvSpec:
    """The description of the run's environment.

    Raises:
        TurnwiseError: no such environment, or an option that it does not have (one is made to find out), or one that was
            passed as an object and has to be passed again.
    """
    if env is None and training.world.env.startswith(UNREACHABLE):
        raise TurnwiseError(
            f"this run's environment is a Python object, {training.world.env.removeprefix(UNREACHABLE)}: pass env= to "
            "turnwise.load / turnwise.train(..., resume=True), or define it at the top level of a file and name that with "
            "--env file.py:name"
        )
    if env is None:
        by_name = ByName(training.world.env)
        by_name().close()
        return dataclasses.replace(spec(training.world.env), make=by_name)
    if isinstance(env, EnvSpec):
        return env
    if not callable(env):
        raise TurnwiseError(
            f"the environment is a {type(env).__name__} and cannot be called, so no second one could be made; pass the class "
            "or a function that makes one"
        )
    return of_factory(training.world.env, env)


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
    memory = Memory(None if settings.memory < 0 else settings.memory, policy.context_limit, settings.compact)
    return Collector(
        make_env or world.make,
        policy,
        slots=settings.slots,
        memory=memory,
        on_length=settings.on_length,
        max_turns=settings.max_turns or None,
        where=_where(training, world),
        deadline=settings.deadline,
        seed=training.seed,
        deterministic=settings.deterministic,
    )


def _where(training: Training, world: EnvSpec) -> Any:
    """Where environments run."""
    if training.world.where != "auto":
        return training.world.where
    return "inline" if world.inline else "thread"


def _sampling(training: Training) -> Any:
    from turnwise.models import Sampling

    return Sampling(
        temperature=training.model.temperature, top_p=training.model.top_p, max_tokens=training.world.max_tokens
    )


def _default_lr(model: Model, *, scratch: float) -> float:
    from turnwise.models import SIZES

    if model.model in SIZES:
        return scratch
    return 1e-4 if model.lora else 1e-5


def _memory(training: Training, policy: Any) -> Any:
    from turnwise.rollout import Memory

    turns = training.world.memory
    return Memory(None if turns < 0 else turns, policy.context_limit, training.world.compact)


def _logged(training: Training, policy: Any, transcripts: Sequence[Transcript]) -> Any:
    from turnwise.rollout import Logged, episodes_of

    return Logged(episodes_of(transcripts, policy, _memory(training, policy)), seed=training.seed)


def _source(training: Training, world: EnvSpec, policy: Any, transcripts: Sequence[Transcript]) -> Any:
    from turnwise.algorithms import SFT

    if isinstance(training.algorithm, SFT):
        return _logged(training, policy, transcripts)
    return make_collector(training, world, policy)


def _demonstrations(training: Training, world: EnvSpec, given: Sequence[Transcript] | None) -> list[Transcript]:
    """The given transcripts, or what the environment's own demonstrator does on training tasks."""
    from turnwise.algorithms import SFT
    from turnwise.engines.noise import mix
    from turnwise.envs import demonstrate
    from turnwise.rollout import TRAIN_SEEDS

    n = training.warm_start.demonstrations
    if given is None and not n and isinstance(training.algorithm, SFT):
        raise TurnwiseError("sft learns from demonstrations: say how many with --demonstrations N")
    if given is not None or not n:
        return list(given or ())
    seeds = [mix(training.seed, i, 0, 3) % TRAIN_SEEDS for i in range(n)]
    limit = training.world.max_turns or None
    return demonstrate(world.make, seeds, skill=training.warm_start.skill, seed=training.seed, max_turns=limit)


def _needs_critic(training: Training) -> bool:
    return bool(getattr(training.algorithm, "needs_critic", False))


def _first_policy(training: Training, world: EnvSpec, transcripts: Sequence[Transcript], home: Path) -> Any:
    """The policy as it is built or loaded, before it has learnt anything."""
    from turnwise.models import SIZES, Policy, build_model
    from turnwise.models.policy import with_lora
    from turnwise.text import Renderer
    from turnwise.text.renderer import PLAIN

    if training.model.model in SIZES:
        tokenizer = _tokenizer(training, world, transcripts, home)
        model = build_model(tokenizer, training.model.model, seed=training.seed)
        template = PLAIN if training.model.template == "plain" else None
        renderer = Renderer(tokenizer, system=training.model.system or None, template=template)
        policy = Policy(model, tokenizer, renderer=renderer, sampling=_sampling(training))
    else:
        policy = _loaded(training)
    rank = training.model.lora
    if rank and policy.has_adapter:
        stored = sorted({adapter.r for adapter in policy.model.peft_config.values()})
        if stored != [rank]:
            raise TurnwiseError(
                f"{training.model.model} holds a LoRA adapter of rank {', '.join(map(str, stored))}, which is trained on; "
                f"lora={rank} cannot change it. Leave lora out, or merge the adapter into its model first: "
                "turnwise.load(RUN).save(FOLDER)"
            )
    elif rank:
        adapted = with_lora(policy.model, rank, seed=training.seed)
        critic = policy.value_head
        policy = Policy(adapted, policy.tokenizer, renderer=policy.renderer, sampling=policy.sampling)
        policy.value_head = critic
    return policy


def _warm_start(training: Training, policy: Any, out: Path, transcripts: Sequence[Transcript], progress: bool) -> None:
    """Fine-tune the policy on the transcripts, in a run folder of its own; on a resume, take its result from there."""
    from turnwise.algorithms import SFT
    from turnwise.learners import LocalLearner
    from turnwise.runs import Interrupted, RunFolder, train

    if not transcripts or isinstance(training.algorithm, SFT):
        return
    warm, phase = training.warm_start, out / "warm-start"
    source = _logged(training, policy, transcripts)
    sft = SFT()
    steps = max(1, warm.epochs * len(source.episodes) // sft.episodes)
    started = (phase / "config.json").exists()
    config = {"training": training.to_config(), "phase": "warm-start"}
    folder = RunFolder.open(phase) if started else RunFolder.create(phase, config, seeds={"run": training.seed})
    with folder:
        learner = LocalLearner(
            policy,
            lr=warm.lr or _default_lr(training.model, scratch=2e-3),
            warmup=0.1,
            max_grad_norm=training.optimiser.max_grad_norm,
            max_tokens=training.optimiser.max_tokens,
            seed=training.seed,
        )
        try:
            shown = progress and not folder.final.exists()
            train(sft, source, learner, folder, steps=steps, save_every=steps, record=0, progress=shown)
        except Interrupted:
            # What is resumed is the run; the warm start goes on by itself.
            raise Interrupted(out, 0, 0, training.steps) from None


def _loaded(training: Training) -> Any:
    """The model by its folder or id; a name that is neither may be a slip for one of the sizes."""
    from turnwise.envs.errors import did_you_mean
    from turnwise.models import SIZES

    try:
        return load_policy(training, training.model.model, value_head=_needs_critic(training))
    except TurnwiseError as error:
        near = did_you_mean(training.model.model, SIZES)
        if not near or Path(training.model.model).exists():
            raise
        raise TurnwiseError(f"there is no model {training.model.model!r}{near} ({error})") from error


def _tokenizer(training: Training, world: EnvSpec, transcripts: Sequence[Transcript], home: Path) -> Any:
    """A tokenizer of the words of the environment, stored with the run: nobody promises that a resumed run hears the
    same ones."""
    from transformers import PreTrainedTokenizerFast

    from turnwise.models import build_tokenizer
    from turnwise.runs.atomic import new_folder

    if not home.exists():
        made = build_tokenizer(_texts(training, world, transcripts))
        with new_folder(home) as temporary:
            made.save_pretrained(temporary)
    return PreTrainedTokenizerFast.from_pretrained(home)


def _texts(training: Training, world: EnvSpec, transcripts: Sequence[Transcript]) -> list[str]:
    """Texts that a from-scratch tokenizer has to know: the demonstrations, else what random play shows."""
    from turnwise.rollout import rehearse

    texts = list(world.actions)
    for transcript in transcripts:
        texts += [*transcript.observations, *transcript.actions, transcript.last_obs, transcript.goal or ""]
    if transcripts:
        return texts
    where = _where(training, world)
    # An environment that is not known to answer at once may take its time.
    turns = 50 if where == "inline" else 20
    heard = rehearse(
        world.make, range(64), actions=texts, max_turns=turns, where=where, deadline=training.world.deadline
    )
    return texts + heard
