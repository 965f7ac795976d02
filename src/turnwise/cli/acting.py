"""Which model acts, and how: taken from a run, or from a model folder and a few flags."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from turnwise.cli.parsing import Flag
from turnwise.errors import TurnwiseError
from turnwise.recipes.settings import Model, Training, World
from turnwise.recipes.sources import asking

if TYPE_CHECKING:
    from turnwise.runs import RunFolder

FLAGS = tuple(
    Flag(name, kind | None, None, text, hint="the run's", metavar=metavar)
    for name, kind, text, metavar in (
        ("memory", int, "Past turns that stay in the context; -1 keeps all, 0 none.", "INT"),
        ("max_tokens", int, "Budget of one action in tokens.", "INT"),
        ("max_turns", int, "Stop an episode after so many turns.", "INT"),
        ("temperature", float, "Sampling temperature.", "FLOAT"),
        ("data", str, "Another file of prompts.", "FILE"),
        ("reward", str, "Who judges: rewards by name, as in training.", "REWARDS"),
    )
)
"""What may be changed about how a model acts."""


@dataclass(frozen=True)
class Actor:
    """A model and how it acts.

    Attributes:
        training: The settings it acts by; the algorithm in them does not matter.
        model: Folder or id of the model.
        run: The run folder the settings come from, if any.
        own: It is the run's own final model in the run's own environment.
    """

    training: Training
    model: str
    run: Path | None
    own: bool

    def policy(self) -> Any:
        """The model, loaded.

        Raises:
            TurnwiseError: there is no such model, or something is missing in its folder.
        """
        from turnwise.cli.hub import offline_if_unreachable
        from turnwise.recipes.training import load_policy

        offline_if_unreachable(self.model)
        return load_policy(self.training, self.model)


def resolve(run: str, model: str, env: str, changes: Mapping[str, Any]) -> Actor:
    """Find the settings: those of the run, or of the run that the model lies in, or the defaults.

    Args:
        run: A run folder; empty for none.
        model: Folder or id of a model, or a run folder for its final model; empty for the run's own.
        env: Environment; empty for the run's own.
        changes: Values of `FLAGS`; None leaves a setting as it is.

    Raises:
        TurnwiseError: something is missing, with the remedy.
    """
    from turnwise.runs import RunFolder

    if run and is_model(Path(run)):
        raise TurnwiseError(f"{run} is a model and not a run; write --model {run} --env ENV")
    if not run and not model:
        raise TurnwiseError("name a run folder, or --model FOLDER and --env ENV")
    home = Path(run) if run else run_of(Path(model))
    training = run_settings(RunFolder.view(home)) if home else Training(None, World(), Model(model=model))
    if home is None and not env and not changes.get("data"):
        raise TurnwiseError(f"{model} lies in no run that would tell its environment; add --env ENV or --data FILE")
    its_model = home is not None and (not model or Path(model).resolve() == home.resolve())
    own = its_model and (not env or env == training.world.env)
    if home is not None and its_model:
        model = str(_final(home))
    world = {key: changes[key] for key in ("memory", "max_tokens", "max_turns") if changes.get(key) is not None}
    if env:
        world["env"] = env
    temperature = changes.get("temperature")
    acts = training.model if temperature is None else replace(training.model, temperature=temperature)
    changed = replace(training, world=replace(training.world, **world), model=acts)
    changed = asking(changed, data=changes.get("data") or "", reward=changes.get("reward") or "")
    return Actor(changed, model, home, own)


def run_settings(folder: RunFolder) -> Training:
    """The settings of a run of `turnwise train`.

    Raises:
        TurnwiseError: another program started the run, or a newer version with settings that this one lacks.
    """
    if "training" not in folder.config:
        raise TurnwiseError(f"{folder.path} was not started by `turnwise train`; use the program that started it")
    try:
        return Training.from_config(folder.config["training"])
    except (KeyError, TypeError, AttributeError) as error:
        raise TurnwiseError(f"{folder.path / 'config.json'} cannot be read: {type(error).__name__} {error}") from error


def run_of(model: Path) -> Path | None:
    """The run whose folder this is, or lies in as its final model or a checkpoint; None if there is none."""
    for folder in (model, *model.absolute().parents[:2]):
        about = _json(folder / "config.json")
        if "format" in about and "config" in about:
            return folder
    return None


def is_model(folder: Path) -> bool:
    """A Hugging Face model folder, or an adapter's."""
    return "model_type" in _json(folder / "config.json") or (folder / "adapter_config.json").exists()


def _final(run: Path) -> Path:
    final = run / "final"
    if final.exists():
        return final
    saved = sorted(path for path in (run / "checkpoints").glob("*") if path.name.isdigit())
    other = f", or take a checkpoint: --model {saved[-1]}" if saved else ""
    raise TurnwiseError(f"{run} has no final model yet; finish it with `turnwise train --resume {run}`{other}")


def _json(file: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}
