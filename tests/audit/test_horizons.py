"""The strip of three horizons: (1) one-step is 1 for each, (2) what is no figure is passed on as it is."""

from __future__ import annotations

from turnwise.audit import Level, Measurement, NotMeasurable
from turnwise.audit.credit_reach import reach
from turnwise.audit.evidence import Evidence
from turnwise.audit.horizon import revealed_horizon
from turnwise.audit.horizons import POLICY, REWARD, UPDATE, Horizons, horizons
from turnwise.audit.reward_signal import foresight


def figure(name: str, value: float) -> Measurement:
    return Measurement(name, value, (value - 0.5, value + 0.5), 4, "planted", "turns")


def test_one_step_is_one_for_each() -> None:
    strip = horizons({REWARD: figure(REWARD, 1.0), UPDATE: figure(UPDATE, 0.0), POLICY: figure(POLICY, 1.0)})
    assert [who for who, _ in strip.rows] == ["reward", "update", "policy"]
    assert [answer.value for _, answer in strip.rows if isinstance(answer, Measurement)] == [1.0, 1.0, 1.0]
    assert isinstance(strip.update, Measurement)
    assert strip.update.interval == (0.5, 1.5)
    assert strip.measured


def test_the_names_are_those_of_the_measures() -> None:
    for measure, name in ((foresight, REWARD), (reach, UPDATE), (revealed_horizon, POLICY)):
        answer = measure(Evidence())
        assert isinstance(answer, NotMeasurable)
        assert answer.name == name


def test_what_is_no_figure_stays_what_it_is() -> None:
    missing = NotMeasurable(UPDATE, Level.L1, "no code")
    strip: Horizons[str] = horizons({UPDATE: missing, POLICY: "refused"})
    assert strip.update is missing
    assert strip.policy == "refused"
    assert isinstance(strip.reward, NotMeasurable)
    assert not strip.measured
