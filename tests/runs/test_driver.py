"""The figures the driver computes, its records, and what it says when something is wrong."""

from __future__ import annotations

import math
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.runs.fakes import episode, turn
from tests.runs.toy import ToyAlgorithm, ToyLearner, ToySource
from turnwise.episode import Cut, Episode, Stop
from turnwise.errors import TurnwiseError
from turnwise.runs import Improvement, RunError, RunFolder, read_metrics, read_rows, read_streams, train
from turnwise.runs.statistics import episode_metrics


class Fixed(ToyAlgorithm):
    """Hands out the same hand-made episodes and does nothing with them."""

    episodes = (
        episode(turn(1.0, act=[1, 2, 3]), turn(2.0, act=[4], stop=Stop.LENGTH), metrics={"success": 1.0}),
        episode(turn(-1.0, act=[5, 6], obs=[1, 2, 3]), cut=Cut.TURN_LIMIT, metrics={"success": 0.0}),
        episode(turn(99.0, act=[7] * 50), cut=Cut.CRASH, detail="environment 'fake', seed 3, turn 1: it raised"),
        episode(turn(99.0), cut=Cut.CRASH, detail="environment 'fake', seed 4, turn 1: it raised"),
    )

    def collect(self, source, iteration):
        return list(self.episodes)

    def improve(self, learner, episodes):
        return Improvement({"loss": (6.0, 4.0), "kl": (0.0, 0.0), "entropy": (np.float32(0.5), 1)})


def start(folder: Path, algorithm: ToyAlgorithm, steps: int = 1, **settings) -> RunFolder:
    with RunFolder.create(folder, {}) as run:
        train(
            algorithm,
            ToySource(),
            ToyLearner(),
            run,
            steps=steps,
            **{"progress": False, "tensorboard": False, **settings},
        )
    return run


def test_figures_by_hand(tmp_path: Path) -> None:
    run = start(tmp_path / "run", Fixed(), steps=2)
    first, second = read_metrics(run.metrics)
    expected = {
        "iteration": 1,
        "loss": 1.5,
        "entropy": 0.5,
        "reward": 1.0,  # returns 3 and -1; the broken ones do not count
        "reward_std": 2.0,
        "rewards/env/mean": 1.0,
        "rewards/env/std": 2.0,
        "rewards/env/unscorable": 0,
        "success": 0.5,
        "turns/mean": 1.5,
        "completions/mean_length": 2.0,  # actions of 3, 1 and 2 tokens
        "completions/clipped_ratio": 1 / 3,
        "episodes/count": 4,
        "episodes/failed": 2,
        "episodes/truncated": 0.5,
        "tokens/action": 6,
        "tokens/observation": 5,
        "total/episodes": 4,
        "total/turns": 5,
        "total/tokens": 58,
        "learner/version": 0,  # nothing was learnt
        "learner/version_after": 0,
    }
    timing = {name: first.pop(name) for name in list(first) if name.startswith("time/")}
    assert first == expected
    assert timing.keys() == {f"time/{name}" for name in ("rollout", "update", "saving", "other", "tokens_per_second")}
    assert (second["iteration"], second["total/tokens"]) == (2, 116)


def test_no_second_of_a_run_is_booked_twice(tmp_path: Path) -> None:
    begun = time.perf_counter()
    run = start(tmp_path / "run", ToyAlgorithm(pause=0.01), steps=4, save_every=2)
    total = time.perf_counter() - begun
    lines = read_metrics(run.metrics)
    parts = [line[f"time/{name}"] for line in lines for name in ("rollout", "update", "saving", "other")]
    assert all(seconds >= 0 for seconds in parts)
    assert 8 * 0.01 <= sum(parts) <= total
    # The checkpoint after the second iteration is booked to the third.
    assert lines[2]["time/saving"] > 0


def test_every_logged_name_is_documented(tmp_path: Path) -> None:
    run = start(tmp_path / "run", Fixed())
    documented = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
    names = {re.sub("^rewards/.*/", "rewards/…/", name) for name in read_metrics(run.metrics)[0]}
    assert not {name for name in names if f"`{name}`" not in documented}


def test_the_version_that_an_update_began_from_is_recorded(tmp_path: Path) -> None:
    class Twice(ToyAlgorithm):
        """Two optimizer steps in each update, and one in the second's rollout."""

        def collect(self, source: ToySource, iteration: int) -> list[Episode]:
            if iteration == 1:
                learner.version += 1
            return super().collect(source, iteration)

        def improve(self, learner: ToyLearner, episodes: list[Episode]) -> Improvement:
            super().improve(learner, episodes)
            return super().improve(learner, episodes)

    learner = ToyLearner()
    with RunFolder.create(tmp_path / "run", {}) as run:
        train(Twice(), ToySource(), learner, run, steps=2, progress=False, tensorboard=False)
    lines = read_metrics(run.metrics)
    assert [(line["learner/version"], line["learner/version_after"]) for line in lines] == [(0, 2), (3, 5)]


def test_what_a_learner_has_spent_is_recorded_by_iteration(tmp_path: Path) -> None:
    class Counting(ToyLearner):
        tokens = 5.0  # spent before the run

        def step(self, loss: Any) -> None:
            super().step(loss)
            self.tokens += 7

        def spent(self) -> dict[str, float]:
            spent, self.tokens = {"tokens/backward": self.tokens}, 0.0
            return spent

    with RunFolder.create(tmp_path / "run", {}) as run:
        train(ToyAlgorithm(), ToySource(), Counting(), run, steps=3, progress=False, tensorboard=False)
    assert [line["tokens/backward"] for line in read_metrics(run.metrics)] == [7.0, 7.0, 7.0]


def test_no_episodes_give_no_figures() -> None:
    counted = {name for name, (_, count) in episode_metrics([]).items() if count}
    assert counted == {"episodes/count", "episodes/failed", "tokens/action", "tokens/observation"}


def test_a_culprit_is_named_once_and_counted_always(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = start(tmp_path / "run", Fixed(), steps=3)
    assert capsys.readouterr().err.count("it raised") == 1
    assert [line["episodes/failed"] for line in read_metrics(run.metrics)] == [2, 2, 2]


def test_an_iteration_in_which_everything_failed_ends_the_run_by_name(tmp_path: Path) -> None:
    class Broken(Fixed):
        episodes = Fixed.episodes[2:]

    with pytest.raises(
        RunError, match=r"all 2 episodes of iteration 1 failed, first: environment 'fake', seed 3, turn 1: it raised"
    ):
        start(tmp_path / "run", Broken())


def test_records_hold_the_streams_and_are_limited_on_request(tmp_path: Path) -> None:
    everything = start(tmp_path / "all", ToyAlgorithm(failures=1), steps=2)
    rows = read_rows(everything.episodes(2))
    assert len(rows) == 9
    assert [row["turns"][0]["streams"]["advantage"] for row in rows] == [row["turns"][0]["reward"] for row in rows]
    assert rows[0]["turns"][0]["act_text"].endswith(" 9")

    some = start(tmp_path / "some", ToyAlgorithm(failures=1), steps=2, record=3)
    kept = read_rows(some.episodes(2))
    assert len(kept) == 3
    assert [row for row in rows if row in kept] == kept
    assert len(read_streams(some.episodes(2))["advantage"]) == 3

    assert start(tmp_path / "none", ToyAlgorithm(), steps=2, record=0).recorded() == []


def test_the_driver_passes_on_progress_iterations_and_fresh_weights(tmp_path: Path) -> None:
    seen: list[tuple[str, object]] = []

    class Learner(ToyLearner):
        def anneal(self, progress: float) -> None:
            seen.append(("anneal", progress))

    class Source(ToySource):
        def refresh(self, learner: ToyLearner) -> None:
            super().refresh(learner)
            seen.append(("refresh", learner.version))

    class Spy(ToyAlgorithm):
        def collect(self, source, iteration):
            seen.append(("collect", iteration))
            return super().collect(source, iteration)

    with RunFolder.create(tmp_path / "run", {}) as run:
        train(
            Spy(), Source(), Learner(), run, steps=2, progress=False, tensorboard=False,
            on_iteration=lambda number, values: seen.append(("after", (number, values["total/episodes"]))),
        )  # fmt: skip
    assert seen == [
        ("anneal", 0.25), ("refresh", 0), ("collect", 0), ("after", (1, 8.0)),
        ("anneal", 0.75), ("refresh", 1), ("collect", 1), ("after", (2, 16.0)),
    ]  # fmt: skip


@pytest.mark.parametrize("settings", [{"steps": 0}, {"steps": 1, "save_every": 0}, {"steps": 1, "keep": 0}])
def test_settings_without_meaning_are_refused(tmp_path: Path, settings: dict[str, int]) -> None:
    with RunFolder.create(tmp_path / "run", {}) as run, pytest.raises(RunError, match="must be at least 1"):
        train(ToyAlgorithm(), ToySource(), ToyLearner(), run, **settings)


def test_a_run_does_not_go_backwards(tmp_path: Path) -> None:
    start(tmp_path / "run", ToyAlgorithm(), steps=3)
    with RunFolder.open(tmp_path / "run") as run, pytest.raises(RunError, match="completed 3 iterations already"):
        train(ToyAlgorithm(), ToySource(), ToyLearner(), run, steps=2, progress=False)


def test_an_algorithm_that_raises_leaves_the_checkpoint_and_its_traceback(tmp_path: Path) -> None:
    class Buggy(ToyAlgorithm):
        def improve(self, learner, episodes):
            if learner.version == 3:
                raise ZeroDivisionError
            return super().improve(learner, episodes)

    with pytest.raises(ZeroDivisionError):
        start(tmp_path / "run", Buggy(), steps=9, save_every=2)
    run = RunFolder.view(tmp_path / "run")
    assert [p.name for p in run.checkpoints.iterdir()] == ["000002"]
    assert len(read_metrics(run.metrics)) == 3
    assert not run.final.exists()


@pytest.mark.parametrize(("moved", "kept"), [(False, ["000003"]), (True, ["000002"])])
def test_an_algorithm_that_refuses_before_it_moves_loses_nothing(tmp_path: Path, moved: bool, kept: list[str]) -> None:
    class Picky(ToyAlgorithm):
        def improve(self, learner, episodes):
            refused = learner.version == 3
            if moved or not refused:
                done = super().improve(learner, episodes)
            if refused:
                raise TurnwiseError("a label that is none")
            return done

    with pytest.raises(TurnwiseError, match="a label"):
        start(tmp_path / "run", Picky(), steps=9, save_every=2)
    run = RunFolder.view(tmp_path / "run")
    assert [p.name for p in run.checkpoints.iterdir()][-1:] == kept
    whole = start(tmp_path / "whole", ToyAlgorithm(), steps=9)
    with RunFolder.open(tmp_path / "run") as run:
        train(ToyAlgorithm(), ToySource(), ToyLearner(), run, steps=9, progress=False, tensorboard=False)
    assert [row["reward"] for row in read_metrics(run.metrics)] == [
        row["reward"] for row in read_metrics(whole.metrics)
    ]


def test_without_a_terminal_progress_is_a_few_plain_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start(tmp_path / "run", ToyAlgorithm(), steps=30, progress=True, save_every=30)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("[1/30] success ")
    assert lines[1].startswith("[30/30] ")
    assert "tokens/s" in lines[1]
    assert lines[1].endswith("ETA 0:00:00")
    assert "\x1b" not in "".join(lines)


def test_on_a_terminal_progress_is_a_bar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    start(tmp_path / "run", ToyAlgorithm(failures=1), steps=3, progress=True)
    shown = capsys.readouterr().err
    for expected in ("3/3", "success", "return", "tokens/s", "ETA", "seed 0: it raised"):
        assert expected in shown


def test_a_figure_that_is_not_finite_does_not_stop_a_run(tmp_path: Path) -> None:
    class Odd(Fixed):
        def improve(self, learner, episodes):
            return Improvement({"loss": (math.nan, 1.0)})

    assert read_metrics(start(tmp_path / "run", Odd()).metrics)[0]["loss"] is None
