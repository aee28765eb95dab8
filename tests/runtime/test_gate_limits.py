"""Limits of acceleration, workspace and following error."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.gate_bench import TICK, GateBench

from vla_policy.runtime import State


def test_acceleration_is_limited_from_start_to_end() -> None:
    bench = GateBench(max_change=np.full(2, 0.002)).ready()
    bench.offer(np.full(15, 0.9))
    x = np.array([0.5] + [c.action[0] for c in bench.run(1.0) if c])
    steps = np.diff(x)
    assert np.abs(np.diff(steps, prepend=0.0)).max() <= 0.002 + 1e-9
    assert x.max() <= 0.9 + 1e-9
    np.testing.assert_allclose(x[-1], 0.9, atol=1e-6)


def test_an_arm_a_little_outside_the_box_is_brought_back_within_the_limits() -> None:
    bench = GateBench(max_change=np.full(2, 0.002))
    bench.pose = np.array([1.04, 0.5])
    bench.ready()
    x = np.array([1.04] + [c.action[0] for c in bench.run(0.5) if c])
    assert np.abs(np.diff(np.diff(x), prepend=0.0)).max() <= 0.002 + 1e-9
    assert x[-1] == pytest.approx(1.0)


def test_a_drooping_arm_at_the_edge_of_the_box_is_enabled_again() -> None:
    bench = GateBench(following_error=np.array([0.2, 0.2]))
    bench.pose = np.array([0.0, 0.5])
    bench.ready()
    bench.alive.add("stuck")
    bench.run(0.1)
    bench.pose = np.array([-0.1, 0.5])
    bench.run(0.1)
    bench.gate.disable()
    bench.enable()
    np.testing.assert_allclose(bench.last(TICK).action, [0.0, 0.5])


def test_an_arm_that_lags_within_the_following_error_keeps_running() -> None:
    bench = GateBench(following_error=np.array([0.05, 0.05])).start()
    bench.alive.add("stuck")
    sent = [bench.pose] * 10
    for _ in range(50):  # 0.2 s behind its commands, which move at 0.2 / s
        sent.append(bench.last(TICK).action)
        bench.pose = sent[-11]
    assert np.abs(sent[-1] - bench.pose).max() == pytest.approx(0.04)
    assert bench.gate.supervisor.state is State.RUNNING


def test_a_stuck_arm_is_held_with_commands_at_most_the_following_error_away() -> None:
    bench = GateBench(following_error=np.array([0.05, 0.05]), max_change=np.full(2, 0.002)).start()
    bench.alive.add("stuck")
    bench.run(1.0)
    assert bench.gate.supervisor.state is State.HOLDING
    assert bench.gate.supervisor.reason.startswith("0 is 0.05")
    assert bench.gate.supervisor.reason.endswith("away from its command, more than 0.05")
    for _ in range(5):  # nor does the lead grow when it is enabled again, and led again
        bench.gate.disable()
        bench.run(0.1)
        bench.enable()
        bench.offer(np.full(15, 0.9))
        bench.run(0.5)
        assert bench.gate.supervisor.state is State.HOLDING
    leads = np.array([c.action - bench.pose for c in bench.commands if c])
    assert leads[:, 0].max() == pytest.approx(0.05)
    np.testing.assert_allclose(leads[-50:, 0], leads[:, 0].max())
    pose = bench.pose
    for noise in (-0.003, 0.003, 0.0):  # a restart at the measured pose would drive back
        bench.pose = pose + noise
        np.testing.assert_allclose(bench.last(0.1).action[0], pose[0] + 0.05)
    bench.enable()
    bench.offer(np.full(15, 0.4))
    bench.run(0.1)
    assert bench.gate.supervisor.state is State.RUNNING  # the way back is free


def test_an_arm_that_falls_is_a_fault_and_commands_do_not_follow_it_down() -> None:
    bench = GateBench(following_error=np.array([0.05, 0.05])).ready()
    bench.alive.add("stuck")
    poses = 0.5 - 0.01 * np.arange(40)
    for x in poses:
        bench.pose = np.array([x, 0.5])
        bench.run(TICK)
    told = [c.action[0] for c in bench.commands if c]
    assert min(told) > 0.5 - 2 * 0.06  # it was brought somewhere once, and not all the way down
    assert bench.gate.supervisor.state is State.FAULT
    assert "does not stay where it is" in bench.gate.supervisor.reason
    assert bench.run(0.1) == [None] * 5
