"""What an audit may look at: the record of a run with its policy and its world, or a policy in a world of its own choice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from turnwise.audit import Advantages, Evidence, Player
from turnwise.errors import TurnwiseError
from turnwise.recipes.settings import Data, Feedback, Training
from turnwise.recipes.sources import PROMPTS, memory_of, resolve_env, where_of

if TYPE_CHECKING:
    from turnwise.envs.exact import Tabular
    from turnwise.envs.registry import EnvSpec


@dataclass(frozen=True)
class Gathered:
    """Evidence, and what is missing from it.

    Attributes:
        evidence: What there is to look at.
        notes: What could have been there and was not, and why, a line each.
    """

    evidence: Evidence
    notes: tuple[str, ...] = ()


def of_run(path: str | Path, *, plays: int = 64, seed: int = 0, records: bool = False, env: str = "") -> Gathered:
    """The evidence in a run folder or in another framework's records.

    Of a run of `turnwise.train` these are its record, the algorithm that assigned credit, and, where they are still there and
    the world pays for itself, the policy, the one before it, and the world.

    Args:
        path: A run folder, or a file or folder that `turnwise.audit.readers` reads.
        plays: Episodes that a measure may play for each of its figures.
        seed: Of all random choices.
        records: Leave the policy and the world out, so that nothing is played.
        env: Another world for the policy to be played in, which pays for itself; empty for the run's own.

    Raises:
        TurnwiseError: there is nothing to read, or it is damaged.
    """
    from turnwise.audit.readers import read_evidence

    evidence = replace(read_evidence(path), plays=plays, seed=seed)
    folder = Path(path)
    settings = (evidence.config or {}).get("training")
    if not isinstance(settings, Mapping):
        return Gathered(evidence)
    try:
        training = Training.from_config(settings)
    except (KeyError, TypeError, AttributeError, ValueError, TurnwiseError) as error:
        return Gathered(
            evidence, (f"the settings of the run cannot be read ({error}), so its algorithm is not called",)
        )
    evidence = replace(evidence, advantages=_credit(training, folder))
    if records:
        return Gathered(evidence)
    own = training.world.env
    training = elsewhere(training, env) if env else training
    try:
        gathered = _acting(evidence, training, folder / "final", _before(training, folder))
        away = (f"the policy is played in {env} and not in its own world, {own}",) if env not in ("", own) else ()
        return replace(gathered, notes=(*away, *gathered.notes))
    except (TurnwiseError, OSError, ImportError) as error:
        if env:
            raise
        return Gathered(evidence, (f"the policy does not play: {error}",))


def elsewhere(training: Training, env: str) -> Training:
    """The same settings in another world, for what that world pays."""
    world = replace(training.world, env=env, where="auto")
    return replace(training, world=world, feedback=Feedback(), data=Data())


def of_policy(
    training: Training, model: str | Path, *, base: str | Path = "", plays: int = 64, seed: int = 0
) -> Gathered:
    """The evidence of a policy in a world.

    Args:
        training: How it acts, and where; the algorithm does not matter.
        model: Its folder or id.
        base: Likewise the policy before it was trained; empty for none.
        plays: Episodes that a measure may play for each of its figures.
        seed: Of all random choices.

    Raises:
        TurnwiseError: no such model, or no such world.
    """
    return _acting(Evidence(plays=plays, seed=seed), training, model, base or None)


def _acting(evidence: Evidence, training: Training, model: str | Path, before: str | Path | None) -> Gathered:
    """The evidence with the policy, and with its world where that pays for itself."""
    from turnwise.recipes.models import here, load_policy, trains

    if trains(training) != "policy":
        return Gathered(evidence, ("what was trained scores and does not act, so nothing is played",))
    if not Path(model).exists() and Path(model).name == "final":
        return Gathered(evidence, (f"there is no final model in {Path(model).parent}, so nothing is played",))
    training = here(training)
    evidence = replace(evidence, policy=load_policy(training, model))
    if training.world.env == PROMPTS or training.feedback.reward or training.feedback.teacher:
        why = "somebody else than the world pays or compares, so nothing is played; --policy FOLDER --env ENV does"
        return Gathered(evidence, (why,))
    world = resolve_env(training, None)
    other = load_policy(training, before) if before else None
    evidence = replace(
        evidence,
        make_env=world.make,
        player=_player(training, world, evidence.policy, evidence.seed),
        base=None if other is None else _player(training, world, other, evidence.seed),
        other=other,
        tabular=_tables(training, world),
    )
    return Gathered(evidence, () if before else ("the policy before training is not there to compare with",))


def _credit(training: Training, folder: Path) -> Advantages:
    """The run's own algorithm, as it assigned credit."""
    from turnwise.audit.rerun import advantages_of, recorded_values

    return advantages_of(training.algorithm, recorded_values(folder))


def _player(training: Training, world: EnvSpec, policy: Any, seed: int) -> Player:
    from turnwise.audit.players import policy_player

    settings = training.world
    return policy_player(
        policy, slots=settings.slots, memory=memory_of(training, policy), on_length=settings.on_length,
        max_turns=settings.max_turns or None, where=where_of(training, world), deadline=settings.deadline, seed=seed,
    )  # fmt: skip


def _tables(training: Training, world: EnvSpec) -> Tabular | None:
    """The world as a table, cut where the run cuts its episodes."""
    if world.exact is None:
        return None
    tabular = world.exact()
    turns = training.world.max_turns
    if not turns or turns >= tabular.horizon:
        return tabular
    reward = tabular.reward if tabular.reward.ndim == 3 else tabular.reward[:turns]
    return replace(tabular, reward=reward, horizon=turns)


def _before(training: Training, folder: Path) -> Path | None:
    """The model that the training proper began from, if it is still there."""
    for candidate in (folder / "warm-start" / "final", Path(training.model.model)):
        if (candidate / "config.json").exists():
            return candidate
    return None
