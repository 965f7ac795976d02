"""Who pays in a run: the rewards that its settings name, with the columns of the rows that its episodes came from."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from turnwise.envs import registry
from turnwise.envs.registry import EnvSpec
from turnwise.episode import Episode
from turnwise.errors import TurnwiseError
from turnwise.recipes.settings import Model, Training
from turnwise.rewards import Reward, RewardError
from turnwise.rewards.named import Loaders, parse_rewards, resolve
from turnwise.text import Conversation, Renderer

if TYPE_CHECKING:
    from turnwise.models import Policy

Row = Mapping[str, Any]
"""The columns of one row of data."""

_OWN = ("prompt", "completion", "prompts", "completions", "completion_ids")
_written: dict[Path, int] = {}
"""File of functions -> when it was written, as far as it has been loaded."""


def rewards_of(
    training: Training, world: EnvSpec, policy: Any, *, held_out: bool = False
) -> dict[str, tuple[float, Reward]]:
    """The run's rewards by name, each with its weight.

    Args:
        training: The settings; ``feedback.reward`` names the rewards.
        world: The environment. Where it asks the rows of a file, their columns are what functions and verifiers are given.
        policy: Whose renderer reads the episodes.
        held_out: The episodes come from held-out rows.

    Raises:
        TurnwiseError: a reward that does not exist, cannot be loaded, or needs a column that is not there.
    """
    row_of = rows_of(world, held_out=held_out)
    rows, find = row_of if row_of is not None else ((), None)
    names = list(dict.fromkeys(name for row in rows for name in row if name not in _OWN))
    feedback = training.feedback
    spoken = any(isinstance(row.get("prompt"), Conversation) for row in rows)
    form = ("messages" if spoken else "text") if feedback.form == "auto" else feedback.form
    return resolve(
        parse_rewards(feedback.reward),
        policy.renderer,
        loaders(policy.renderer, feedback.reward_deadline, device=str(policy.device)),
        columns=None if find is None else lambda episode: {name: find(episode.seed).get(name) for name in names},
        known=names,
        prompt=None if find is None else lambda episode: _prompt(find, episode),
        form=form,
        deadline=feedback.reward_deadline,
    )


def rows_of(world: EnvSpec, *, held_out: bool = False) -> tuple[Sequence[Row], Callable[[int], Row]] | None:
    """The rows that a world asks, and which of them a seed asks; None for a world without rows."""
    asked = getattr(world.make, "asked", None)
    if asked is not None:
        rows: Sequence[Row] = asked(held_out=held_out)
        return rows, lambda seed: rows[seed % len(rows)]
    if world.id.partition("?")[0] != "prompts":
        return None
    env = world.make()
    try:
        unwrapped = env.unwrapped
        return unwrapped.rows, unwrapped.row_of
    finally:
        env.close()


def loaders(renderer: Renderer, deadline: float = 600.0, *, device: str = "cpu") -> Loaders:
    """What loads functions and models for episodes made with `renderer`.

    Args:
        renderer: The renderer that the episodes are made with.
        deadline: Seconds that a judge behind an address may take for the episodes of one call.
        device: Where models are.
    """
    return Loaders(
        function=find_function,
        model=partial(_scored_by, renderer, device),
        judge=partial(_judged_by, renderer, device),
        endpoint=partial(_asked_at, renderer, deadline),
    )


def find_function(path: str) -> Callable[..., Any]:
    """The function at ``file.py:name`` or ``package.module:name``; a file that has been mended since is read again.

    Raises:
        EnvError: no such file, module or name.
        RewardError: the file cannot be run.
    """
    where = Path(path.rpartition(":")[0])
    written = where.stat().st_mtime_ns if where.suffix == ".py" and where.is_file() else 0
    if written and _written.setdefault(where.resolve(), written) != written:
        _written[where.resolve()] = written
        for name in [name for name, module in sys.modules.items() if _file_of(module) == where.resolve()]:
            del sys.modules[name]
    try:
        return registry.find(path)
    except TurnwiseError:
        raise
    except Exception as error:
        raise RewardError(f"{where} cannot be loaded: {type(error).__name__}: {error}") from error


def _file_of(module: Any) -> Path | None:
    file = getattr(module, "__file__", None)
    return Path(file) if file else None


def _prompt(find: Callable[[int], Row], episode: Episode) -> Any:
    return find(episode.seed)["prompt"]


def _scored_by(renderer: Renderer, device: str, folder: Path, by_text: bool) -> Reward:
    from turnwise.models import Scorer
    from turnwise.rewards import ProcessReward, RewardModelReward

    path, how = _model_in(folder)
    kind = _kind(path, folder)
    scorer = Scorer.from_pretrained(path, kind=kind, device=device, **how)
    pays = RewardModelReward if kind == "reward" else ProcessReward
    return pays(scorer, renderer, text=by_text)


def _judged_by(renderer: Renderer, device: str, folder: Path, template: str) -> Reward:
    from turnwise.rewards.judge import ModelJudge

    return ModelJudge(judge_model(folder, device), renderer, template=template or None)


def judge_model(folder: Path, device: str = "cpu") -> Policy:
    """The language model in a folder or run folder, to be asked for its opinion."""
    from turnwise.models import Policy

    path, how = _model_in(folder)
    return Policy.from_pretrained(path, device=device, **how)


def _asked_at(renderer: Renderer, deadline: float, address: str, model: str, template: str) -> Reward:
    from turnwise.engines import Endpoint
    from turnwise.rewards.judge import Judge

    return Judge(Endpoint(address, model, deadline=deadline), renderer, template=template or None)


def _model_in(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The folder of the model itself, and how it is read: as the run that trained it did, if it is a run's folder.

    Of a run that may be anybody's, only what describes the model is taken: nothing that it names is loaded, and code that
    comes with its weights is not run.
    """
    from turnwise.recipes.models import reading

    about = _json(folder / "config.json")
    if "config" not in about or "seeds" not in about:
        return folder, {}
    if not (folder / "final").is_dir():
        raise RewardError(
            f"{folder} is a run that has no final model yet; finish it with `turnwise train --resume {folder}`"
        )
    stored = about["config"].get("training", {}).get("model", {})
    known = {name: stored[name] for name in ("dtype", "system", "template") if name in stored}
    return folder / "final", reading(Model(**known))


def _kind(path: Path, named: Path) -> Literal["reward", "process"]:
    """Whether the model in a folder is a reward model or a process reward model."""
    adapter = _json(path / "adapter_config.json").get("task_type", "")
    names = " ".join([*(_json(path / "config.json").get("architectures") or []), adapter])
    if "ForTokenClassification" in names or "TOKEN_CLS" in names:
        return "process"
    if "ForSequenceClassification" in names or "SEQ_CLS" in names:
        return "reward"
    if "CausalLM" in names or "CAUSAL_LM" in names or "LMHead" in names:
        raise RewardError(
            f"{named} holds a language model, which has no score; to ask for its opinion, name judge:{named}"
        )
    raise RewardError(f"{named} holds no reward model; train one with `turnwise train reward-model`")


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RewardError(f"cannot read {path}: {error}") from error
    return read if isinstance(read, dict) else {}
