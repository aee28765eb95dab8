"""Where commands begin and stay: set-points continue from the last command, not from what is measured."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.gate_bench import RATE, TICK, GateBench

from vla_policy.interfaces import Refused


def test_holding_stays_at_the_last_command_wherever_the_arm_is_measured() -> None:
    bench = GateBench().start()
    last = bench.pose
    bench.gate.supervisor.hold("test")
    bench.alive |= {"stuck"}
    bench.pose = np.array([0.49, 0.48])  # it sags, or this is where it was a while ago
    held = [c.action for c in bench.run(0.2) if c]
    np.testing.assert_allclose(held, np.tile(last, (10, 1)))


def test_a_command_that_the_robot_cannot_follow_is_taken_back() -> None:
    bench = GateBench(following_error=np.array([0.2, 0.2])).start()
    sent = bench.commands[-2]
    bench.gate.take_back("out of reach")
    held = bench.last(0.1)
    assert sent is not None
    np.testing.assert_allclose(held.action, sent.action)
    assert held.reason == "out of reach"


def test_a_disabled_arm_moved_by_hand_takes_its_set_point_along() -> None:
    bench = GateBench(following_error=np.array([0.2, 0.2])).start()
    bench.alive.add("stuck")
    last = bench.pose
    bench.pose = last - [0.03, 0.0]  # its weight
    bench.run(0.2)
    bench.gate.disable()
    bench.run(2.0)
    bench.enable()
    before = bench.last(TICK)
    bench.gate.disable()
    bench.run(2.0)
    bench.pose = last - [0.13, 0.0]  # by hand
    bench.ready()
    after = bench.last(TICK)
    np.testing.assert_allclose(after.action, before.action - [0.1, 0.0])  # it does not jump back, nor sink


@pytest.mark.parametrize("state", ["armed", "holding", "fault"])
def test_an_enabled_arm_moved_by_hand_stays_where_it_was_brought(state: str) -> None:
    bench = GateBench(following_error=np.array([0.05, 0.05])).ready()
    bench.run(0.1)
    if state == "holding":
        bench.gate.heartbeat("policy", True, bench.steady)
    elif state == "fault":
        bench.gate.supervisor.fault("emergency stop")
    bench.run(0.1)
    resets = bench.gate.setpoint_resets
    bench.pose = np.array([0.1, 0.5])
    bench.alive.add("stuck")
    command = bench.last(0.1)
    assert command.status == "hold"
    np.testing.assert_allclose(command.action, [0.1, 0.5])  # and is not pulled back when its drives are on again
    assert bench.gate.setpoint_resets == resets + 1  # what the joints are told begins anew as well


def test_enabling_after_a_hold_begins_where_the_arm_is() -> None:
    bench = GateBench().start()
    bench.gate.heartbeat("policy", True, bench.steady)
    bench.run(0.1)
    resets, bench.pose = bench.gate.setpoint_resets, np.array([0.52, 0.5])
    bench.alive.add("stuck")
    bench.ready()
    assert bench.gate.setpoint_resets > resets
    np.testing.assert_allclose(bench.last(TICK).action, [0.52, 0.5])


def test_enabling_again_begins_where_the_arm_was_moved_to_by_hand() -> None:
    bench = GateBench().start()
    bench.gate.supervisor.hold("test")
    bench.run(0.1)
    bench.pose = moved = np.array([0.2, 0.3])
    bench.gate.measure(moved, bench.steady)
    bench.enable()
    for command in bench.run(0.2):
        assert command is not None
        np.testing.assert_allclose(command.action, moved)


class Droop:
    """An arm whose weight keeps it `droop` below its commands, which it follows with a lag; it keeps the last one."""

    def __init__(self, start: float, droop: float, lag: float) -> None:
        self.x = self.goal = start
        self.droop, self.lag = droop, lag

    def step(self, command: float | None) -> None:
        if command is not None:
            self.goal = command - self.droop
        self.x += (self.goal - self.x) * min(1.0, TICK / self.lag)


@pytest.mark.parametrize("seed", range(24))
def test_no_sequence_of_enabling_and_stopping_moves_a_drooping_arm_by_more_than_its_droop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    droop, lag = rng.uniform(-1, 1) * 0.99 * 0.05, rng.choice([TICK, rng.uniform(0.02, 0.15)])
    bench, arm = GateBench(following_error=np.full(2, 0.05), max_change=np.full(2, 0.002)), Droop(0.5, droop, lag)
    bench.alive.add("stuck")  # the bench's own arm is another one
    seen = [arm.x]

    def run(seconds: float, press: bool = False) -> None:
        for _ in range(max(1, round(seconds * RATE))):
            bench.pose = np.array([arm.x + rng.normal(0, 1e-4), 0.5])
            last = next((c.action for c in reversed(bench.commands) if c is not None), None)
            if press and last is not None:
                bench.gate.teleoperate(last, bench.steady)
            (command,) = bench.run(TICK)
            arm.step(None if command is None else command.action[0])
            seen.append(arm.x)

    def enable() -> None:
        try:
            bench.enable()
        except Refused:
            bench.gate.disable()

    run(0.1)
    for _ in range(40):
        match rng.choice(["enable", "disable", "press", "mirror", "stop", "emergency", "jump", "wait"]):
            case "enable":
                enable()
            case "disable":
                bench.gate.disable()
            case "press":
                run(rng.uniform(0.02, 0.5), press=True)
            case "mirror":  # a leader that begins where the arm is measured
                run(0.3)
                begin = bench.pose
                for _ in range(rng.integers(1, 25)):
                    bench.gate.teleoperate(begin, bench.steady)
                    run(TICK)
            case "stop":
                bench.gate.heartbeat("policy", True, bench.steady)
            case "emergency":
                bench.gate.supervisor.fault("emergency stop")
            case "jump":
                bench.jump += 1.0
        run(rng.choice([0.0, 0.1, 0.3, 1.5]))
    low, high = sorted([0.5, 0.5 - droop])
    assert low - 5e-3 < min(seen)
    assert max(seen) < high + 5e-3
