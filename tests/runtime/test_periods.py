"""Observations and commands, a control period at a time."""

from __future__ import annotations

import numpy as np
import pytest

from vla_policy.interfaces import InputError, Observation
from vla_policy.runtime import Periods


def seen(t: float) -> Observation:
    return Observation({"observation.state": np.zeros(2)}, "", t)


def pairs(periods: Periods) -> list[tuple[float, float | None]]:
    """(time of the observation, first channel of the command)."""
    taken = periods.take()
    return [(round(p.observation.t, 6), None if p.command is None else float(p.command[0])) for p in taken]


def drive(rate: float, seconds: float = 2.0) -> list[tuple[float, float | None]]:
    """A camera of `rate` Hz beside commands of 50 Hz that carry their own times."""
    periods = Periods(0.1, 0.02)
    events = [(k / 50, "command") for k in range(round(seconds * 50))]
    events += [(k / rate + 0.003, "picture") for k in range(round(seconds * rate))]
    for t, what in sorted(events):
        if what == "picture":
            periods.observe(seen(t))
        else:
            periods.command(t, np.array([t]))
    return pairs(periods)


@pytest.mark.parametrize("rate", [10, 25, 30, 50, 60])
def test_a_faster_camera_is_judged_once_a_control_period_with_the_command_just_before(rate: float) -> None:
    (_, first), *paired = drive(rate)
    assert first is None  # nothing is known of what was done before
    spacing = np.diff([t for t, _ in paired])
    assert np.mean(spacing) == pytest.approx(0.1, abs=2e-3)
    assert (np.abs(spacing - 0.1) < 0.026).all()
    assert len(paired) >= 18
    for t, command in paired:
        assert command is not None
        assert 0 < t - command <= 0.02


def test_an_observation_waits_for_a_command_that_comes_after_it() -> None:
    periods = Periods(0.1, 0.02)
    for t in (0.0, 0.1):
        periods.command(t - 0.01, np.array([t]))
        periods.observe(seen(t))
    assert pairs(periods) == [(0.0, None), (0.1, 0.1)]
    periods.observe(seen(0.2))  # the commands are still on their way, and come oldest first
    assert pairs(periods) == []
    periods.command(0.11, np.array([0.11]))
    assert pairs(periods) == []
    periods.command(0.19, np.array([0.19]))
    assert pairs(periods) == [(0.2, 0.19)]


def test_it_does_not_wait_longer_than_the_next_observation() -> None:
    periods = Periods(0.1, 0.02)
    periods.command(0.05, np.array([0.05]))
    periods.observe(seen(0.1))
    periods.observe(seen(0.2))
    assert pairs(periods) == [(0.1, None)]  # a beginning
    periods.observe(seen(0.3))
    assert pairs(periods) == [(0.2, None)]  # a command of the period before is none of this one's


def test_a_gap_is_a_beginning() -> None:
    periods = Periods(0.1, 0.02)
    for t in (0.0, 0.1, 0.4, 0.5):
        periods.command(t - 0.01, np.array([t]))
        periods.observe(seen(t))
    assert pairs(periods) == [(0.0, None), (0.1, 0.1), (0.4, None), (0.5, 0.5)]


def test_a_clock_set_back_starts_new_periods() -> None:
    periods = Periods(0.1, 0.02)
    for t in (100.0, 100.1, 50.0, 50.1):
        periods.command(t - 0.01, np.array([t]))
        periods.observe(seen(t))
        periods.command(t + 0.005, np.array([-1.0]))
    assert pairs(periods)[-1] == (50.1, 50.1)


def test_commands_slower_than_control_periods_are_refused() -> None:
    with pytest.raises(InputError, match=r"expected dt >= every > 0, found 0.1 and 0.5"):
        Periods(0.1, 0.5)


def test_a_picture_that_comes_late_finds_its_command_among_those_of_a_fast_gate() -> None:
    periods = Periods(0.1, 0.002)
    for k in range(2000):  # 500 Hz
        periods.command(k / 500, np.array([k]))
        if k % 50 == 0 and k >= 200:
            periods.observe(seen((k - 200) / 500))  # 0.4 s late
    found = periods.take()
    assert len(found) >= 30
    assert all(p.command is not None and p.command[0] == pytest.approx(500 * p.observation.t) for p in found[1:])
