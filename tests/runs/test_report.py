"""A report promises: (1) texts of environments and models are shown, never run; (2) what is missing or damaged is named and
stops nothing else; (3) figures on the page are those of the run; (4) one file below 2 MB, whatever the run holds."""

from __future__ import annotations

import json
import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.runs.fakes import episode, turn
from tests.runs.test_figures import Tags
from turnwise.episode import Cut, Episode
from turnwise.errors import TurnwiseError
from turnwise.runs import Estimate, Evaluation, RunError, RunFolder, write_episodes
from turnwise.runs.log import MetricsLog
from turnwise.runs.report import window, write_report
from turnwise.runs.report_episodes import shorten, spread

HOSTILE = (
    "<script>alert(1)</script></script><!--<script><img src=x onerror=alert(2)> 'quoted\" \x00\x1b[31m \u2028 &amp;"
)
CONFIG = {
    "training": {
        "algorithm": {"name": "ppo", "gamma": 0.9},
        "world": {"env": "guess", "memory": 0},
        "model": {"model": "tiny"},
        "steps": 3,
        "seed": 5,
    }
}
LIMIT = 2_000_000


def text_of(text: str) -> Callable[[np.ndarray], str]:
    return lambda ids: f"{text} {' '.join(map(str, ids.tolist()))}"


def make_run(
    path: Path,
    *,
    steps: int = 3,
    episodes: Callable[[int], list[Episode]] | None = None,
    text: str = "ids",
    config: Any = CONFIG,
    metrics: Callable[[int], Mapping[str, float]] = lambda k: {"reward": k / 2, "success": k / 4},
    final: bool = True,
) -> Path:
    with RunFolder.create(path, config, seeds={"run": 5}) as run:
        log = MetricsLog(run.metrics, None, 0)
        for k in range(1, steps + 1):
            log.write(k, {**metrics(k), "total/tokens": 100.0 * k, "time/rollout": 1.0, "time/update": 3.0})
            made = episodes(k) if episodes else [play(float(k + i), success=float(i > 0)) for i in range(3)]
            streams = {"advantage": [np.linspace(-1, 1, len(e.turns)) for e in made]}
            write_episodes(run.episodes(k), made, text_of(text), streams)
        log.close()
        if final:
            run.final.mkdir()
    return path


def play(reward: float, *, success: float = 1.0, cut: Cut | None = None, detail: str = "", n: int = 2) -> Episode:
    turns = [turn(0.0, fresh=True)] + [turn(0.0) for _ in range(n - 2)] + [turn(reward)]
    return episode(*turns, seed=int(reward * 10), metrics={"success": success}, cut=cut, detail=detail)


def read(out: Path) -> tuple[str, dict[str, Any] | None]:
    """The page and the data in it; every page has to pass what is asserted here."""
    assert out.stat().st_size < LIMIT
    page = out.read_text(encoding="utf-8")
    tags = Tags(page)
    assert not tags.links
    assert not tags.handlers
    assert tags.tags.count("script") == (2 if 'id="data"' in page else 1)
    for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        ET.fromstring(svg)
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return page, json.loads(found.group(1)) if found else None


def test_the_page_of_a_finished_run(tmp_path: Path) -> None:
    out = write_report(make_run(tmp_path / "run"))
    assert out == tmp_path / "run" / "report.html"
    page, data = read(out)
    assert data is not None
    assert "guess · ppo" in page
    assert "finished: 3 iterations" in page
    assert "Missing or damaged" not in page
    # Returns 1, 2, 3 in iteration 1 and 3, 4, 5 in iteration 3; two of three succeed.
    assert re.search(r'class="from">2\.00</span>.*?→</span> 4\.00', page, re.DOTALL)
    assert "2.00 [1.00, 3.00] n=3" in page
    assert [entry["iteration"] for entry in data["iterations"]] == [1, 2, 3]
    shown = data["iterations"][2]["episodes"][1]
    assert (shown["return"], shown["success"], shown["outcome"]) == (4.0, 1.0, "ended by itself")
    assert [t["streams"]["advantage"] for t in shown["turns"]] == [-1.0, 1.0]
    assert shown["turns"][1]["rewards"] == {"env": 4.0}
    assert shown["turns"][0]["obs"] == "ids 3"
    assert shown["turns"][0]["probability"] == pytest.approx(math.exp(-1.0), rel=1e-5)
    assert ">300<" in page  # tokens of the last line, not their sum
    assert ">25.0<" in page or ">25<" in page  # 300 tokens in 12 s


def test_texts_of_the_world_and_the_model_are_never_run(tmp_path: Path) -> None:
    hostile = [
        episode(turn(), turn(1.0), group=HOSTILE, metrics={HOSTILE: 1.0}),
        play(1.0, cut=Cut.CRASH, detail=HOSTILE),
    ]
    run = make_run(
        tmp_path / "run",
        episodes=lambda k: hostile,
        text=HOSTILE,
        config={"training": {"world": {"env": HOSTILE}, HOSTILE: HOSTILE}, HOSTILE: [HOSTILE]},
        metrics=lambda k: {HOSTILE: 1.0 * k, f"rewards/{HOSTILE}/mean": 1.0, "rewards/other/mean": 2.0},
    )
    page, data = read(write_report(run, tmp_path / "page.html", defaults={"training": {HOSTILE: "other"}}))
    assert data is not None
    assert HOSTILE in data["iterations"][0]["episodes"][0]["turns"][0]["obs"]
    outside = page.replace(re.findall(r'id="data">(.*?)</script>', page, re.DOTALL)[0], "")
    assert "<img" not in page
    assert "&lt;script&gt;alert(1)" in outside
    assert "\x00" not in page
    assert "\x1b" not in page


def test_only_the_page_s_own_script_may_run(tmp_path: Path) -> None:
    import base64
    import hashlib

    page, _ = read(write_report(make_run(tmp_path / "run")))
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page
    assert "innerHTML" not in page


def test_no_run_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(TurnwiseError, match=r"holds no run \(no config.json\)"):
        write_report(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(RunError, match="not a run's configuration"):
        write_report(tmp_path)


def test_a_run_that_has_only_begun(tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "run", CONFIG).close()
    page, data = read(write_report(tmp_path / "run"))
    assert data is None
    assert "incomplete: 0 of 3 iterations" in page
    assert "There are no metrics yet" in page
    assert "There are no recorded episodes" in page


def test_a_run_that_died_in_its_warm_start(tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "run", CONFIG).close()
    make_run(tmp_path / "run" / "warm-start", steps=2, metrics=lambda k: {"nll": 1.0 / k}, final=False)
    page, _ = read(write_report(tmp_path / "run"))
    assert "incomplete: in the warm start, after its iteration 2" in page
    assert "Negative log-likelihood" in page
    assert page.count("warm start</th>") == 1


def test_an_incomplete_run(tmp_path: Path) -> None:
    page, _ = read(write_report(make_run(tmp_path / "run", steps=2, final=False)))
    assert "incomplete: 2 of 3 iterations" in page


@pytest.mark.parametrize("damaged", [1, 2, 3])
def test_a_damaged_record_is_named_and_the_others_are_shown(tmp_path: Path, damaged: int) -> None:
    run = make_run(tmp_path / "run")
    record = run / "episodes" / f"00000{damaged}.parquet"
    record.write_bytes(record.read_bytes()[:100])
    page, data = read(write_report(run))
    assert data is not None
    assert [entry["iteration"] for entry in data["iterations"]] == [k for k in (1, 2, 3) if k != damaged]
    assert f"The episodes of iteration {damaged} cannot be shown" in page
    assert "not a complete Parquet file" in page


def test_all_records_damaged(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    for record in (run / "episodes").iterdir():
        record.write_bytes(b"")
    page, data = read(write_report(run))
    assert data is None
    assert "There are no episodes to show" in page
    assert "<svg" in page


def test_damaged_metrics_lose_one_line(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    lines = (run / "metrics.jsonl").read_bytes().split(b"\n")
    lines[1] = lines[1][:20]
    (run / "metrics.jsonl").write_bytes(b"\n".join(lines))
    page, _ = read(write_report(run))
    assert "line 2 is damaged" in page
    assert "Return from 0.500 at iteration 1 to 1.50 at iteration 3" in page
    assert "iteration 2: 1<" not in page


def test_figures_that_are_null_are_gaps(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", metrics=lambda k: {"reward": math.nan if k == 2 else 1.0 * k, "entropy": math.nan})
    page, _ = read(write_report(run))
    assert "Return from 1 at iteration 1 to 3 at iteration 3" in page
    assert "Entropy" not in page


def estimate(mean: float) -> Estimate:
    return Estimate(mean, mean - 0.1, mean + 0.1, 256, "bootstrap")


def evaluation(success: float) -> Evaluation:
    return Evaluation(estimate(10 * success), estimate(success), estimate(8.0), estimate(24.0), 256, 0, 0.95)


def test_a_stored_evaluation_goes_before_the_record(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    with RunFolder.open(run) as folder:
        figures = {"after": evaluation(0.875), "before": evaluation(0.25)}
        folder.write_evaluation({"seeds": "held-out", "greedy": True, "optimal_return": 9.5, "evaluation": figures})
    page, _ = read(write_report(run))
    assert re.search(r'class="from">25 %</span>.*?→</span> 88 %', page, re.DOTALL)
    assert "88 % [78 %, 98 %] n=256" in page
    assert "From evaluation on held-out tasks, most likely tokens (eval.json)." in page
    assert "Dashed: the optimum, 9.50." in page


def test_a_single_evaluation_is_compared_with_the_first_record(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    with RunFolder.open(run) as folder:
        folder.write_evaluation(evaluation(0.875))
    page, _ = read(write_report(run))
    assert re.search(r'class="from">67 %</span>.*?→</span> 88 %', page, re.DOTALL)
    assert "that of the first iteration&#x27;s recorded episodes" in page


@pytest.mark.parametrize("content", ["{", "[]", '{"after": {"success": {"mean": "high"}}}'])
def test_a_damaged_evaluation_is_named(tmp_path: Path, content: str) -> None:
    run = make_run(tmp_path / "run")
    (run / "eval.json").write_text(content)
    page, _ = read(write_report(run))
    assert "Evaluate again" in page
    assert "n=3" in page


def test_settings_that_differ_are_marked(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    defaults = {
        "training": {"algorithm": {"name": "ppo", "gamma": 0.99}, "world": {"env": "guess", "memory": -1}, "steps": 3}
    }
    page, _ = read(write_report(run, defaults=defaults))
    marked = re.findall(r'<strong class="changed">(.*?)</strong>', page)
    assert marked == ["0.9", "0"]
    assert "2 of 7 settings differ" in page
    assert "default 0.99" in page
    page, _ = read(write_report(run))
    assert "nothing is marked" in page


def test_who_broke_an_episode_is_said(tmp_path: Path) -> None:
    def with_a_crash(k: int) -> list[Episode]:
        return [*(play(1.0) for _ in range(8)), play(0.0, cut=Cut.CRASH, detail="world w, seed 3: it raised")]

    _, data = read(write_report(make_run(tmp_path / "run", episodes=with_a_crash)))
    assert data is not None
    *others, broken = data["iterations"][0]["episodes"]
    assert (broken["kind"], broken["outcome"]) == ("failed", "failed: the environment crashed")
    assert broken["detail"] == "world w, seed 3: it raised"
    assert [e["kind"] for e in others] == ["terminated"] * 4


@pytest.mark.parametrize("cut", list(Cut))
def test_every_way_to_be_cut_has_words(tmp_path: Path, cut: Cut) -> None:
    _, data = read(write_report(make_run(tmp_path / "run", episodes=lambda k: [play(1.0), play(1.0, cut=cut)])))
    assert data is not None
    shown = data["iterations"][0]["episodes"][1]
    assert cut.value not in shown["outcome"] or cut in (Cut.CONTEXT, Cut.CRASH)
    assert shown["kind"] == ("failed" if cut in (Cut.CRASH, Cut.TIMEOUT) else "truncated")


def test_a_million_characters_of_observation(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", steps=2, text="<&\u00e9\U0001f600" * 250_000)
    _, data = read(write_report(run))
    assert data is not None
    assert "characters left out" in data["iterations"][0]["episodes"][0]["turns"][0]["obs"]


def test_a_long_run_of_long_episodes(tmp_path: Path) -> None:
    run = make_run(
        tmp_path / "run",
        steps=15,
        episodes=lambda k: [play(1.0, n=400) for _ in range(4)],
        text="\U0001f600" * 1500,
        metrics=lambda k: {f"metric/{i}": 1.0 * k * i for i in range(100)},
    )
    _, data = read(write_report(run))
    assert data is not None
    assert [entry["iteration"] for entry in data["iterations"]][:: len(data["iterations"]) - 1] == [1, 15]
    assert data["iterations"][0]["episodes"][0]["length"] == 400


def test_a_run_without_settings(tmp_path: Path) -> None:
    page, _ = read(write_report(make_run(tmp_path / "toy", config={"toy": True})))
    assert "<h1>fake</h1>" in page
    assert "finished: 3 iterations" in page


def test_an_episode_without_turns(tmp_path: Path) -> None:
    _, data = read(write_report(make_run(tmp_path / "run", episodes=lambda k: [episode(cut=Cut.CRASH)])))
    assert data is not None
    assert data["iterations"][0]["episodes"][0]["turns"] == []


def test_text_is_shortened_in_the_middle() -> None:
    assert shorten("abc", 3) == "abc"
    assert shorten("a" * 60 + "b" * 60, 40) == "a" * 30 + "\n[… 80 characters left out …]\n" + "b" * 10


def test_the_first_and_the_last_are_always_among_the_chosen() -> None:
    assert spread([1, 2, 3], 5) == [1, 2, 3]
    assert spread(range(1, 101), 2) == [1, 100]
    chosen = spread(range(1, 101), 9)
    assert (chosen[0], chosen[-1], len(set(chosen))) == (1, 100, 9)


def test_curves_are_smoothed_by_about_a_tenth() -> None:
    assert [window(n) for n in (0, 9, 10, 12, 100, 10_000)] == [1, 1, 3, 3, 13, 101]
