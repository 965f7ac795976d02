"""`turnwise bench`: measure, write the results after every case, render them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

from turnwise.errors import TurnwiseError
from turnwise.recipes.speed.cases import WORKLOADS, Case, Dtype
from turnwise.recipes.speed.flops import work
from turnwise.recipes.speed.measure import OURS, THEIRS, Arena, Launch, Measurement, Participant, Worker
from turnwise.recipes.speed.plan import QUICK, START_UP, Entry, plan
from turnwise.recipes.speed.report import write
from turnwise.recipes.speed.results import Record, new_results, save
from turnwise.recipes.speed.startup import measure_startup
from turnwise.recipes.speed.ticker import Ticker
from turnwise.runs.numbers import number

RELEASE = "1.16"
"""The release of TRL that the other side is written for."""

OLD_RELEASE = "1.12"
"""The last one that had PPO."""

OLD_FOLDER = Path(".parity/trl-1.12.0")
"""Where that one is looked for, below the working directory."""


def bench(
    names: Sequence[str],
    sizes: Sequence[str],
    out: Path,
    *,
    created: str,
    threads: Sequence[int] = (1,),
    dtypes: Sequence[Dtype] = ("fp32", "bf16"),
    pairs: int = 5,
    minutes: float = 20.0,
    device: str = "cpu",
    rivals: bool = True,
    quick: bool = False,
    old: Path = OLD_FOLDER,
    launch: Launch | None = None,
) -> dict[str, Any]:
    """Measure, and write everything into a folder.

    Args:
        names: Of `turnwise.recipes.speed.plan.NAMES`.
        sizes: Of `turnwise.recipes.speed.cases.SIZES`.
        out: Folder for the results; made if need be.
        created: When, in ISO 8601.
        threads: Numbers of threads.
        dtypes: What to compute in.
        pairs: Rounds of each case.
        minutes: Begin no further round of a case after so long.
        device: Torch device of both sides.
        rivals: Measure the other side too.
        quick: Few cases, to see that everything works.
        old: Folder with the old release of TRL.
        launch: Starts the processes; ours by default.

    Returns:
        The results, as they are in the file.

    Raises:
        TurnwiseError: TRL is missing, or no case could be measured.
    """
    if rivals and launch is None:
        check_trl()
    names = [name for name in names if not quick or name in QUICK]
    entries = plan(names, sizes, threads=threads, dtypes=dtypes, device=device, rivals=rivals, quick=quick)
    start = launch or launcher(out / "log", old)
    settings = {
        "workloads": list(names), "sizes": list(sizes), "threads": list(threads), "dtypes": list(dtypes), "pairs": pairs,
        "minutes": minutes, "device": device,
    }  # fmt: skip
    results = new_results(created, settings)
    save(results, out)
    arena = Arena(start)
    ticker = Ticker([_weight(entry, pairs) for entry in entries])
    try:
        for entry in entries:
            ticker.begin(entry.name)
            measured = arena.measure(
                entry.question, entry.case, entry.participants, pairs=pairs, seconds=60 * minutes, tell=ticker.tell
            )
            results["machine"] |= {name: value for name, value in measured.machine.items() if value}
            results["measurements"].append(measured.as_dict())
            save(results, out)
            ticker.done(_summary(measured))
        if START_UP in names:
            ticker.begin(START_UP)
            arena.close()
            results["startup"] = measure_startup(start, pairs=pairs, rivals=rivals, tell=ticker.tell)
            save(results, out)
    finally:
        arena.close()
        ticker.close()
    if not results["startup"] and not any(data["sides"] for data in results["measurements"]):
        reasons = {reason for data in results["measurements"] for reason in data["skipped"].values()}
        raise TurnwiseError(f"nothing could be measured: {'; '.join(sorted(reasons)) or 'no case was asked for'}")
    write(results, out)
    return results


def check_trl() -> None:
    """TRL is there, and is the release that the other side is written for.

    Raises:
        TurnwiseError: it is not; says what to install.
    """
    remedy = f"install it (python -m pip install 'trl=={RELEASE}.*'), or measure turnwise alone with --ours-only"
    try:
        found = metadata.version("trl")
    except metadata.PackageNotFoundError:
        raise TurnwiseError(f"the other side is TRL, which is not installed; {remedy}") from None
    if not found.startswith(RELEASE):
        raise TurnwiseError(f"TRL {found} is installed, and the other side is written for {RELEASE}; {remedy}")


def launcher(log: Path, old: Path) -> Launch:
    """Starts each side in a process of its own.

    Args:
        log: Folder for what the processes print.
        old: Folder with the old release of TRL, which is given to those that need it.
    """

    def launch(who: Participant, case: Case) -> Worker:
        path: Path | None = None
        if who.side == "trl-1.12":
            path = old.absolute()
            if not list(path.glob(f"trl-{OLD_RELEASE}*.dist-info")):
                raise TurnwiseError(
                    f"TRL {OLD_RELEASE}, the last release with PPO, is not in {old}: python -m pip install --no-deps "
                    f"--target {old} trl=={OLD_RELEASE}.0"
                )
        return Worker(who, case, log / f"{who.side}-{who.dtype}.txt", path)

    return launch


def _weight(entry: Entry, pairs: int) -> float:
    """About how long an entry takes compared with others: its operations, and what every case costs to begin."""
    again = 1 + (entry.case.turns - 1) / 8 if len({who.side for who in entry.participants}) > 1 else 1
    return len(entry.participants) * (2e10 + (pairs + 2) * work(entry.case).every * again)


def _summary(measured: Measurement) -> str:
    record = Record(measured.as_dict())
    ours, theirs = record.best(OURS), record.best(THEIRS)
    parts = [f"{name} {number(record.time(name))} s" for name in (theirs, ours) if name is not None]
    ratios = record.ratios(theirs, ours)
    if ratios:
        parts.append(f"ratio {number(median(ratios))} [{number(min(ratios))}, {number(max(ratios))}]")
    parts += [f"{name} not measured ({reason})" for name, reason in measured.skipped.items()]
    return f"{WORKLOADS[measured.case.workload].title}: {', '.join(parts)}"
