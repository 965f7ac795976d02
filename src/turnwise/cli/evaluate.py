"""``turnwise eval``: held-out tasks, figures with intervals, and the optimum beside them where it is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from turnwise.cli.acting import FLAGS, Actor, resolve
from turnwise.cli.parsing import Flag, parse
from turnwise.errors import TurnwiseError

if TYPE_CHECKING:
    from turnwise.envs.registry import EnvSpec
    from turnwise.runs import Estimate, Evaluation

_OWN = (
    Flag("run", str, "", "Run folder.", metavar="RUN", positional=True),
    Flag("model", str, "", "Another model to act, a folder or an id.", hint="the run's", metavar="FOLDER"),
    Flag("env", str, "", "Another environment to act in.", hint="the run's", metavar="ENV"),
    Flag("episodes", int, 256, "Number of tasks, one episode each."),
    Flag("seeds", Literal["held-out", "validation"], "held-out", "List of tasks: for reporting, or for choosing."),
    Flag("greedy", bool, False, "Take the most likely token instead of sampling."),
    Flag("out", str, "", "JSON file to write.", hint="RUN/eval.json for the run's own model and env", metavar="FILE"),
    Flag("quiet", bool, False, "No progress bar."),
)

_DESCRIPTION = "Evaluate a trained model on tasks that no run trains on."


def main(arguments: Sequence[str]) -> int:
    """Evaluate.

    Raises:
        TurnwiseError: anything the user can mend.
    """
    values = parse("eval", _DESCRIPTION, {"": _OWN, "acting": FLAGS}, arguments)
    if values["episodes"] < 1:
        raise TurnwiseError(f"--episodes {values['episodes']} leaves nothing to evaluate; use at least 1")
    actor = resolve(values["run"], values["model"], values["env"], values)
    from turnwise.cli.console import output, say
    from turnwise.recipes.models import trains
    from turnwise.recipes.training import resolve_env
    from turnwise.runs import summarise

    if trains(actor.training) != "policy":
        return _judge(actor, values)
    world = resolve_env(actor.training, None)
    policy = actor.policy()
    done = rollouts(actor, world, policy, values["episodes"], values["seeds"], values["greedy"], not values["quiet"])
    evaluation = summarise(done)
    best = optimum(actor, world)
    _show(actor, world, evaluation, best, values)
    broken = [episode.detail for episode in done if episode.failed]
    if broken:
        more = f"{len(broken)} more episodes were" if len(broken) > 1 else "1 more episode was"
        say(output(), f"{more} broken by the environment and not counted, first: {broken[0]}")
    _write(actor, evaluation, best, values)
    return 0


def _judge(actor: Actor, values: dict[str, Any]) -> int:
    """The report on a model that scores."""
    from turnwise.cli.console import columns, output, say
    from turnwise.recipes.dataset import judge_held_out
    from turnwise.recipes.models import load_scorer

    report = judge_held_out(actor.training, load_scorer(actor.training, actor.model), values["episodes"])
    say(output(), f"{actor.model} on {actor.training.data.data}")
    table = columns("", "value", "remark")
    for row in report.rows():
        table.add_row(*row)
    output().print(table)
    _write(actor, report, None, values)
    return 0


def rollouts(
    actor: Actor, world: EnvSpec, policy: Any, episodes: int, seeds: str, greedy: bool, progress: bool
) -> list[Any]:
    """One episode for each of the first tasks of an evaluation list."""
    from rich.progress import Progress

    from turnwise.cli.console import messages
    from turnwise.recipes.sources import held_out_rollouts
    from turnwise.rollout import held_out_tasks
    from turnwise.runs import evaluation_seeds

    tasks = held_out_tasks(episodes, first=evaluation_seeds(episodes, seeds)[0])
    console = messages()
    with Progress(console=console, transient=True, disable=not (progress and console.is_terminal)) as bar:
        task = bar.add_task("episodes", total=episodes)
        shown = lambda finished: bar.update(task, completed=finished)  # noqa: E731
        return held_out_rollouts(actor.training, world, policy, tasks, greedy=greedy, on_episode=shown)


def optimum(actor: Actor, world: EnvSpec) -> float | None:
    """The greatest expected return under the turn limit in force; None where no tables are known."""
    if world.exact is None:
        return None
    from turnwise.envs.exact import optimal_return

    tabular = world.exact()
    limit = actor.training.world.max_turns
    return optimal_return(tabular, min(tabular.horizon, limit) if limit else None)


def _show(actor: Actor, world: EnvSpec, evaluation: Evaluation, best: float | None, values: dict[str, Any]) -> None:
    from turnwise.cli.console import columns, output, say
    from turnwise.recipes.sources import unjudged

    console = output()
    how = "greedy" if values["greedy"] else f"temperature {actor.training.model.temperature:g}"
    # Which rows of a file are held out, the file's own line says.
    tasks = world.summary if actor.training.data.data else f"{values['seeds']} tasks"
    say(console, f"{actor.model} in {world.id}: {evaluation.episodes} episodes, {tasks}, {how}")
    table = columns("", "value", f"{evaluation.confidence:.0%} interval", "n", "optimum")
    mean = evaluation.undiscounted_return.mean
    share = "" if best is None else f"{best:.4g}"
    # A share of the optimum means something where zero is the worst, or at least a poor, outcome.
    if best is not None and best > 0 and mean > 0:
        share += f" (reached: {mean / best:.0%})"
    if evaluation.success is not None:
        table.add_row("success", *_figures(evaluation.success, percent=True), "")
    if not unjudged(actor.training):
        table.add_row("return", *_figures(evaluation.undiscounted_return), share)
    table.add_row("turns", *_figures(evaluation.turns), "")
    table.add_row("tokens", *_figures(evaluation.tokens), "")
    console.print(table)
    if unjudged(actor.training):
        say(console, "nobody judges these replies; name who does with --reward, as in --reward rewards.py:f")


def _figures(estimate: Estimate, *, percent: bool = False) -> tuple[str, str, str]:
    shape = "{:.1%}" if percent else "{:.3g}"
    interval = "" if math.isnan(estimate.low) else f"[{shape.format(estimate.low)}, {shape.format(estimate.high)}]"
    return shape.format(estimate.mean), interval, str(estimate.n)


def _write(actor: Actor, evaluation: Any, best: float | None, values: dict[str, Any]) -> None:
    from turnwise.cli.console import output, say
    from turnwise.recipes.sources import unjudged
    from turnwise.runs.atomic import write_bytes
    from turnwise.runs.folder import RunFolder, as_json

    content = {
        "model": actor.model,
        "env": actor.training.world.env,
        "seeds": values["seeds"],
        "greedy": values["greedy"],
        "judged": not unjudged(actor.training),
        "optimal_return": best,
        "evaluation": evaluation,
    }
    changed = any(values[flag.name] is not None for flag in FLAGS)
    if values["out"]:
        write_bytes(Path(values["out"]), as_json(content))
        say(output(), f"written to {values['out']}")
    elif actor.own and actor.run is not None and not changed:
        folder = RunFolder.view(actor.run)
        folder.write_evaluation(content)
        say(output(), f"written to {folder.evaluation}")
