"""What stops the arm, how soon, and that only a person starts it again."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.gate_bench import RATE, TICK, GateBench

from vla_policy.interfaces import Refused
from vla_policy.runtime import State


@pytest.mark.parametrize("quiet", ["policy", "monitor", "robot"])
def test_a_missing_heartbeat_holds_in_time_and_the_arm_does_not_resume(quiet: str) -> None:
    bench = GateBench().start()
    bench.alive.discard(quiet)
    assert bench.seconds_to_hold() <= 0.18
    assert quiet in bench.gate.supervisor.reason
    bench.alive.add(quiet)
    bench.run(0.2)
    bench.offer(np.full(15, 0.9))
    assert {c.status for c in bench.run(0.3) if c} == {"hold"}
    bench.enable()
    assert bench.offer(np.full(15, 0.6))
    assert {c.status for c in bench.run(0.1) if c} == {"ok"}


def test_a_stop_holds_at_the_next_command() -> None:
    bench = GateBench().start()
    bench.alive.discard("monitor")
    bench.gate.heartbeat("monitor", True, bench.steady)
    assert bench.seconds_to_hold() == 0
    assert bench.gate.supervisor.reason == "monitor says stop"
    with pytest.raises(Refused, match="monitor"):
        bench.enable()


@pytest.mark.parametrize("first", ["stop", "cause"])
def test_a_stop_gives_its_cause_whichever_arrives_first(first: str) -> None:
    bench = GateBench().start()
    cause = "no picture from /front since 0.4 s"
    if first == "cause":
        bench.gate.explain("policy", cause)
    bench.gate.heartbeat("policy", True, bench.steady)
    bench.alive.discard("policy")
    bench.run(TICK)
    bench.gate.explain("policy", cause)
    assert bench.gate.supervisor.reason == f"policy says stop: {cause}"
    with pytest.raises(Refused, match=f"cannot enable: policy says stop: {cause}"):
        bench.enable()
    bench.gate.explain("policy", "")
    assert bench.gate.supervisor.reason == f"policy says stop: {cause}"


def test_a_chunk_with_nan_is_refused_and_holds() -> None:
    bench = GateBench().start()
    xs = np.full(15, 0.9)
    xs[7] = np.nan
    assert not bench.offer(xs)
    assert bench.seconds_to_hold() == 0
    assert "not finite" in bench.gate.supervisor.reason


@pytest.mark.parametrize("jump", [5.0, -5.0])
def test_a_clock_that_jumps_holds(jump: float) -> None:
    bench = GateBench().start()
    bench.jump = jump
    assert bench.seconds_to_hold() == 0
    assert "clock jumped" in bench.gate.supervisor.reason
    bench.enable()  # the new time is as good as the old one
    bench.offer(np.full(15, 0.6))
    assert {c.status for c in bench.run(0.1) if c} == {"ok"}


def test_a_gate_that_was_suspended_reads_its_messages_before_it_holds() -> None:
    bench = GateBench().start()
    bench.steady += 0.5  # the process did not run; nobody could be heard
    command = bench.gate.tick(bench.now, bench.steady)
    assert command is not None
    assert command.status == "ok"
    assert {c.status for c in bench.run(0.2) if c} == {"ok"}


def test_a_robot_away_from_the_constant_channels_holds_and_is_sent_nothing_until_it_is_back() -> None:
    bench = GateBench(following_error=np.array([0.2, 0.2])).start()
    bench.gate.pose_error = "z: expected 0.01, found 0.21"
    assert bench.run(0.2) == [None] * 10
    assert (bench.gate.supervisor.state, bench.gate.supervisor.reason) == (State.HOLDING, bench.gate.pose_error)
    with pytest.raises(Refused, match="z: expected"):
        bench.enable()
    bench.gate.pose_error = ""
    last = next(c for c in reversed(bench.commands) if c is not None)
    np.testing.assert_allclose(bench.last(0.1).action, last.action)


def test_without_an_acceleration_limit_a_stop_ends_at_the_last_command() -> None:
    bench = GateBench().start()
    last = bench.pose
    bench.gate.heartbeat("policy", True, bench.steady)
    np.testing.assert_allclose(bench.last(TICK).action, last)


@pytest.mark.parametrize("stop", ["policy says stop", "emergency stop", "silence", "bad chunk"])
@pytest.mark.parametrize("age", [0.0, 0.4])
def test_a_stop_brakes_forward_within_the_acceleration_limit(stop: str, age: float) -> None:
    bench = GateBench(following_error=np.full(2, 0.5), max_change=np.full(2, 0.002), max_step=np.full(2, 0.02)).ready()
    bench.alive.add("stuck")
    was = [bench.pose] * round(age * RATE)  # a state that is so old when it comes
    for k in range(40):
        bench.offer(np.full(15, 0.95))
        was.append(bench.last(TICK).action)
        bench.pose = was[k]
    if stop == "emergency stop":
        bench.gate.supervisor.fault(stop)
    elif stop == "silence":
        bench.alive.discard("robot")
    elif stop == "bad chunk":
        bench.offer(np.full(15, np.nan))
    else:
        bench.gate.heartbeat("policy", True, bench.steady)
    bench.run(1.0)
    x = np.array([c.action[0] for c in bench.commands if c])
    assert np.diff(x).min() >= 0  # the path never reverses
    assert np.abs(np.diff(x, 2)).max() <= 0.002 + 1e-9
    assert np.ptp(x[-20:]) == 0
    if stop != "silence":
        v = np.diff(x)[39]
        assert x[-1] - x[40] < v**2 / 2 / 0.002 + v  # not later than it must
