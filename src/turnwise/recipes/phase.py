"""A phase that comes before the algorithm of a run: a run of its own in a folder inside, so that it resumes exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from turnwise.recipes.models import default_lr
from turnwise.recipes.settings import Training


def before(
    training: Training,
    name: str,
    out: Path,
    model: Any,
    method: Any,
    source: Any,
    *,
    steps: int,
    lr: float,
    progress: bool,
) -> None:
    """Train `model` with `method` on stored episodes in ``out/name``; what is there already is taken up.

    Args:
        training: The settings of the run.
        name: Of the phase, and of its folder.
        out: Folder of the run.
        model: What is trained.
        method: How.
        source: Hands out the episodes.
        steps: Iterations.
        lr: Peak learning rate; 0 for the default of a phase.
        progress: Show progress.

    Raises:
        Interrupted: Ctrl-C; says from where the *run* goes on.
    """
    from turnwise.learners import LocalLearner
    from turnwise.runs import Interrupted, RunFolder, train

    home = out / name
    config = {"training": training.to_config(), "phase": name}
    started = (home / "config.json").exists()
    folder = RunFolder.open(home) if started else RunFolder.create(home, config, seeds={"run": training.seed})
    with folder:
        learner = LocalLearner(
            model,
            lr=lr or default_lr(training.model, scratch=2e-3),
            warmup=0.1,
            max_grad_norm=training.optimiser.max_grad_norm,
            max_tokens=training.optimiser.max_tokens,
            gradient_checkpointing=training.optimiser.gradient_checkpointing,
            precision=training.optimiser.precision,
            seed=training.seed,
        )
        try:
            shown = progress and not folder.final.exists()
            train(method, source, learner, folder, steps=steps, save_every=steps, record=0, progress=shown)
        except Interrupted:
            # What is resumed is the run; its phases go on by themselves.
            raise Interrupted(out, 0, 0, training.steps) from None
