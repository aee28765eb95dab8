"""Who may enable the gate and when, and that nothing is sent before."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.gate_bench import TICK, GateBench

from vla_policy.interfaces import Refused


def test_nothing_is_sent_before_enabling_or_after_disabling() -> None:
    bench = GateBench()
    assert set(bench.run(0.5)) == {None}
    bench.enable()
    assert all(c is not None and c.status == "hold" for c in bench.run(0.1))
    bench.gate.disable()
    assert set(bench.run(0.1)) == {None}


def test_an_engagement_lasts_until_the_arm_may_not_move() -> None:
    bench = GateBench()
    bench.run(0.1)
    assert bench.gate.enable(bench.now, bench.steady)
    bench.run(0.1)
    assert not bench.gate.enable(bench.now, bench.steady)
    bench.gate.supervisor.hold("an alarm")
    assert bench.gate.enable(bench.now, bench.steady)
    bench.gate.disable()
    assert bench.gate.enable(bench.now, bench.steady)


def test_enabling_names_missing_heartbeats() -> None:
    bench = GateBench()
    bench.alive = {"policy"}
    bench.run(0.1)
    with pytest.raises(Refused, match="monitor, robot state"):
        bench.enable()
    with pytest.raises(Refused, match="no time yet"):
        bench.gate.enable(0.0, bench.steady)


@pytest.mark.parametrize(("age", "why"), [(0.7, "stale"), (-0.7, "from the future"), (np.nan, "from the future")])
def test_a_robot_state_with_a_wrong_stamp_does_not_count(age: float, why: str) -> None:
    bench = GateBench()
    bench.alive.discard("robot")
    for _ in range(10):
        bench.run(TICK)
        bench.gate.measure(bench.pose, bench.steady, age)
    with pytest.raises(Refused, match=rf"no messages from robot state \(refused: {{'robot state {why}': 10}}\)"):
        bench.enable()


def test_a_state_older_than_the_following_error_at_full_speed_is_refused() -> None:
    bench = GateBench(following_error=np.array([0.5, 0.25]))  # at 2.5 units / s
    bench.alive.discard("robot")
    bench.run(0.1)
    assert bench.gate.measure(bench.pose, bench.steady, age=0.099)
    for _ in range(10):
        bench.run(TICK)
        assert not bench.gate.measure(bench.pose, bench.steady, age=0.11)
    with pytest.raises(Refused, match=r"no messages from robot state .*: it is 0\.11 s old, more than 0\.1 s"):
        bench.enable()


def test_a_fault_has_to_be_acknowledged() -> None:
    bench = GateBench().start()
    bench.gate.supervisor.fault("emergency stop")
    assert bench.seconds_to_hold() == 0
    with pytest.raises(Refused, match="disable first"):
        bench.enable()
    bench.gate.disable()
    bench.ready()


def test_a_disabled_gate_sends_nothing_in_a_fault_either() -> None:
    bench = GateBench()
    bench.run(0.1)
    bench.gate.supervisor.fault("emergency stop")
    assert set(bench.run(0.2)) == {None}
    bench.gate.disable()
    bench.enable()
    bench.gate.disable()
    bench.gate.supervisor.fault("another publisher")
    assert set(bench.run(0.2)) == {None}


def test_an_arm_outside_the_box_is_not_enabled() -> None:
    bench = GateBench()
    bench.pose = np.array([1.3, 0.5])
    bench.run(0.1)
    with pytest.raises(Refused, match=r"outside the box \(0: expected 0 to 1, found 1.3\)"):
        bench.enable()


def test_a_robot_away_from_the_constant_channels_is_not_enabled() -> None:
    bench = GateBench()
    bench.run(0.1)
    bench.gate.pose_error = "the measured pose is away from the commands' constants (z: expected 0.01, found 0.4)"
    with pytest.raises(Refused, match=r"cannot enable: .*z: expected 0\.01, found 0\.4"):
        bench.enable()
    assert bench.run(0.1) == [None] * 5
