"""``turnwise bench``: how fast training is here, side by side with TRL on the same work."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from turnwise.cli.parsing import Flag, parse
from turnwise.errors import TurnwiseError

_OWN = (
    Flag("names", tuple[str, ...], (), "Workloads; all by default. `list` names them.", hint="all", metavar="WORKLOAD ...", positional=True),
    Flag("sizes", str, "S,M", "Sizes of the model, of XS, S, M and L, with commas between them."),
    Flag("threads", str, "1", "Numbers of threads, with commas between them."),
    Flag("dtypes", str, "fp32,bf16", "What to compute in, with a comma between them; curves are drawn with the first."),
    Flag("pairs", int, 5, "Steps of each side that count, one of ours after one of theirs."),
    Flag("minutes", float, 20.0, "Begin no further pair of a case after so many minutes."),
    Flag("out", str, "", "Folder for the results.", hint="runs/bench-TIME", metavar="FOLDER"),
    Flag("quick", bool, False, "Few cases of the smallest model: it shows that everything works."),
    Flag("ours_only", bool, False, "Leave the other side out; TRL need not be installed then."),
    Flag("device", Literal["auto", "cpu", "cuda"], "auto", "Where both sides compute; auto takes a GPU if there is one."),
    Flag("old_trl", str, "", "Folder with TRL 1.12, the last release with PPO.", hint=".parity/trl-1.12.0", metavar="FOLDER"),
    Flag("render", str, "", "Print the tables of an earlier benchmark as Markdown, and measure nothing.", metavar="FOLDER"),
)  # fmt: skip

_DESCRIPTION = "Measure the speed of training, side by side with TRL on the same work."


def main(arguments: Sequence[str]) -> int:
    """Measure and write, or render what was measured.

    Raises:
        TurnwiseError: an unknown workload or size, TRL missing, an output folder that holds something, or no figures.
    """
    values = parse("bench", _DESCRIPTION, {"": _OWN}, arguments)
    if values["render"]:
        return _render(Path(values["render"]))
    if list(values["names"]) == ["list"]:
        return _list()
    return _measure(values)


def _measure(values: dict[str, Any]) -> int:
    from turnwise.cli.console import output, say
    from turnwise.recipes.speed.plan import check_dtypes, check_names, check_sizes, check_threads
    from turnwise.recipes.speed.report import MARKDOWN, PAGE
    from turnwise.recipes.speed.run import OLD_FOLDER, bench, check_trl

    names, quick = check_names(values["names"]), values["quick"]
    sizes = ("XS",) if quick else check_sizes(values["sizes"])
    threads, dtypes = check_threads(values["threads"]), check_dtypes(values["dtypes"])
    if values["pairs"] < 1 or not values["minutes"] > 0:
        raise TurnwiseError(f"--pairs {values['pairs']} --minutes {values['minutes']:g}: both are more than 0")
    now = datetime.now()
    out = Path(values["out"]) if values["out"] else Path("runs") / f"bench-{now:%Y%m%d-%H%M%S}"
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise TurnwiseError(f"--out {out}: it is there already and is not empty; choose another folder, or remove it")
    if not values["ours_only"]:
        check_trl()
    bench(
        names, sizes, out, created=now.isoformat(timespec="seconds"), threads=threads, dtypes=dtypes,
        pairs=1 if quick else values["pairs"], minutes=values["minutes"], device=_device(values["device"]),
        rivals=not values["ours_only"], quick=quick, old=Path(values["old_trl"] or OLD_FOLDER),
    )  # fmt: skip
    say(output(), f"wrote {out / MARKDOWN} and {out / PAGE}")
    return 0


def _device(name: str) -> str:
    if name == "cpu":
        return name
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if name == "cuda":
        raise TurnwiseError("--device cuda: this PyTorch sees no GPU; use --device cpu")
    return "cpu"


def _render(folder: Path) -> int:
    from turnwise.recipes.speed.report import markdown
    from turnwise.recipes.speed.results import load

    print(markdown(load(folder)))
    return 0


def _list() -> int:
    from turnwise.cli.console import columns, output
    from turnwise.recipes.speed.plan import NAMES

    table = columns("workload", "what")
    for name, what in NAMES.items():
        table.add_row(name, what)
    output().print(table)
    return 0
