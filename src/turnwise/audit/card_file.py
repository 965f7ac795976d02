"""``card.json``: a card on disk, and back."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from turnwise.audit.card import Card, Line, Refused
from turnwise.audit.catalogue import ControlResult
from turnwise.audit.errors import AuditError
from turnwise.audit.evidence import Level
from turnwise.audit.measure import Measurement, NotMeasurable, Series
from turnwise.audit.quantity import Section
from turnwise.runs.atomic import disk, write_bytes

SCHEMA = 1
"""Version of ``card.json``; see ``docs/audit.md``. A reader refuses what is newer."""


def write_json(card: Card, path: Path) -> Path:
    """Write a card as strict JSON; see ``docs/audit.md`` for its fields. A figure that is not finite becomes null.

    Raises:
        RunError: the disk refused.
    """
    text = json.dumps(as_data(card), indent=1, ensure_ascii=False, allow_nan=False)
    with disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, (text + "\n").encode("utf-8", "replace"))
    return path


def read_card(path: str | Path) -> Card:
    """Read ``card.json``, from the file or from the folder it lies in.

    Raises:
        AuditError: there is none, it is of a newer schema, or it is damaged, with the place.
    """
    path = Path(path)
    path = path / "card.json" if path.is_dir() else path
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise AuditError(
            f"cannot read the card {path}: {error.strerror}; make one with `turnwise audit RUN`"
        ) from error
    except ValueError as error:
        raise AuditError(f"{path} is not JSON ({error}); write the card again with `turnwise audit RUN`") from error
    found = data.get("schema") if isinstance(data, dict) else None
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise AuditError(f"{path} is not an audit card: it has no field 'schema' with the number of a version")
    if found > SCHEMA:
        raise AuditError(
            f"{path} was written by turnwise {data.get('version', 'of a newer version')} in schema {found}; this version "
            f"reads up to schema {SCHEMA}. Install the newer version, or write the card again with this one"
        )
    try:
        return _card(data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise AuditError(
            f"{path} is a damaged card: {type(error).__name__} {error}; write it again with `turnwise audit RUN`"
        ) from error


def as_data(card: Card) -> dict[str, Any]:
    """A card as plain data; the layout of ``card.json``."""
    return {
        "schema": SCHEMA,
        "version": card.version,
        "subject": card.subject,
        "about": list(card.about),
        "notes": list(card.notes),
        "seed": card.seed,
        "plays": card.plays,
        "sentence": card.sentence,
        "quantities": [_line_data(line) for line in card.lines],
        "controls": [
            {
                "quantity": result.quantity,
                "control": result.control,
                "expected": _number(result.expected),
                "measured": _number(result.measured),
                "passed": result.passed,
                "seconds": result.seconds,
                "tolerance": result.tolerance,
                "side": result.side,
                "error": result.error,
            }
            for result in card.controls
        ],
    }


def _line_data(line: Line) -> dict[str, Any]:
    data: dict[str, Any] = {
        "name": line.name,
        "title": line.title,
        "question": line.question,
        "section": line.section.value,
        "level": line.level.name,
        "seconds": line.seconds,
    }
    match line.answer:
        case Measurement() as m:
            low, high = m.interval
            data |= {"status": "measured", "value": m.value, "low": _number(low), "high": _number(high), "n": m.n}
            data |= {"how": m.how, "unit": m.unit, "series": [_series_data(series) for series in m.series]}
        case NotMeasurable() as missing:
            data |= {"status": "not measurable", "needs": missing.needs.name, "why": missing.why}
        case Refused() as refused:
            data |= {"status": "refused", "why": refused.why}
    return data


def _series_data(series: Series) -> dict[str, Any]:
    return {
        "label": series.label,
        "x": [_number(v) for v in series.x],
        "y": [_number(v) for v in series.y],
        "low": [_number(v) for v in series.low],
        "high": [_number(v) for v in series.high],
        "x_label": series.x_label,
        "y_label": series.y_label,
    }


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _card(data: Mapping[str, Any]) -> Card:
    controls = tuple(
        ControlResult(
            _text(c, "quantity"), _text(c, "control"), _optional(c["expected"]), _optional(c["measured"]),
            c["passed"] is True, float(c["seconds"]), float(c["tolerance"]), c["side"], _text(c, "error"),
        )
        for c in data["controls"]
    )  # fmt: skip
    return Card(
        _text(data, "subject"),
        tuple(str(line) for line in data["about"]),
        tuple(_line(line) for line in data["quantities"]),
        controls,
        int(data["seed"]),
        int(data["plays"]),
        tuple(str(line) for line in data["notes"]),
        _text(data, "version"),
    )


def _line(data: Mapping[str, Any]) -> Line:
    name, status = _text(data, "name"), data["status"]
    if status == "measured":
        interval = _figure(data["low"], -math.inf), _figure(data["high"], math.inf)
        series = tuple(_series(series) for series in data["series"])
        answer = Measurement(
            name, _figure(data["value"], math.nan), interval, int(data["n"]), _text(data, "how"), _text(data, "unit"),
            series,
        )  # fmt: skip
    elif status == "not measurable":
        answer = NotMeasurable(name, Level[data["needs"]], _text(data, "why"))
    elif status == "refused":
        answer = Refused(name, _text(data, "why"))
    else:
        raise ValueError(f"{name} has the status {status!r}; it is measured, not measurable or refused")
    return Line(
        name, _text(data, "title"), _text(data, "question"), Section(data["section"]), Level[data["level"]], answer,
        float(data["seconds"]),
    )  # fmt: skip


def _series(data: Mapping[str, Any]) -> Series:
    def column(key: str, missing: float) -> tuple[float, ...]:
        return tuple(_figure(value, missing) for value in data[key])

    return Series(
        _text(data, "label"), column("x", math.nan), column("y", math.nan), column("low", -math.inf),
        column("high", math.inf), _text(data, "x_label"), _text(data, "y_label"),
    )  # fmt: skip


def _text(data: Mapping[str, Any], key: str) -> str:
    value = data[key]
    if not isinstance(value, str):
        raise TypeError(f"{key!r} is {value!r:.40}; it has to be text")
    return value


def _optional(value: Any) -> float | None:
    return None if value is None else _figure(value, 0.0)


def _figure(value: Any, missing: float) -> float:
    if value is None:
        return missing
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r:.40} is no figure; JSON numbers are finite, and null stands for none")
    return float(value)
