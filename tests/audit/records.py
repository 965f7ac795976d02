"""What tests of measures over records share."""

from __future__ import annotations

from turnwise.audit import Measurement, NotMeasurable


def value(result: Measurement | NotMeasurable) -> float:
    """The figure; the test fails with the reason where there is none."""
    assert isinstance(result, Measurement), result
    return result.value
