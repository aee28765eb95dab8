"""A person who leads a drooping arm through the gate: what they do in any order moves it where they lead it."""

from __future__ import annotations

import numpy as np
import pytest

from vla_policy.interfaces import Refused
from vla_policy.runtime import Gate, GateConfig, Lead, Limits

RATE = 50.0
TICK = 1 / RATE
SPEED, ACCELERATION, FOLLOWING_ERROR, SCALE = 0.5, 4.0, 0.1, 0.5
LOW, HIGH = np.full(1, -1.5), np.full(1, 1.5)
EPOCH = 1000.0


class Bench:
    """The gate and teleoperation as their nodes join them, and an arm that follows its last command with a lag.

    It hangs `droop` below it. Commands are heard by teleoperation one tick later.
    """

    def __init__(self, droop: float, lag: float) -> None:
        one = np.ones(1)
        limits = Limits(LOW, HIGH, SPEED * TICK * one, ACCELERATION * TICK**2 * one)
        self.gate = Gate(GateConfig(RATE, limits, {"policy": 0.12}, following_error=FOLLOWING_ERROR * one))
        self.lead = Lead(LOW, HIGH, SPEED * one, ACCELERATION * one, FOLLOWING_ERROR * one, RATE, SCALE)
        self.droop, self.lag = droop, lag
        self.steady, self.stop = 0.0, False
        self.arm = self.goal = 0.0
        self.command: np.ndarray | None = None
        self.path: list[float] = [0.0]
        self.commands: list[float] = []  # without a gap, since the arm was enabled the last time

    @property
    def now(self) -> float:
        return EPOCH + self.steady

    def enable(self) -> bool:
        try:
            self.gate.enable(self.now, self.steady)
        except Refused:
            self.gate.disable()
            return False
        return True

    def run(self, seconds: float, stick: float | None = None) -> None:
        """Play on; a stick of None is a released deadman."""
        for _ in range(max(1, round(seconds * RATE))):
            self.steady += TICK
            measured = np.array([self.arm])
            self.gate.heartbeat("policy", self.stop, self.steady)
            self.gate.measure(measured, self.steady)
            if self.command is not None:
                self.lead.command(self.command, self.steady)
            if stick is None:
                self.lead.release()
            else:
                self.gate.teleoperate(self.lead.push(np.array([stick]), measured, self.steady), self.steady)
            sent = self.gate.tick(self.now, self.steady)
            self.command = None if sent is None else sent.action
            if self.command is None:
                self.commands.clear()
            else:
                self.commands.append(float(self.command[0]))
                self.goal = float(self.command[0]) - self.droop
            self.arm += (self.goal - self.arm) * min(1.0, TICK / self.lag)
            self.path.append(self.arm)


def bench_of(rng: np.random.Generator) -> Bench:
    bench = Bench(rng.uniform(-0.9, 0.9) * FOLLOWING_ERROR, rng.choice([TICK, rng.uniform(0.02, 0.1)]))
    bench.run(0.1)
    return bench


def upset(bench: Bench, rng: np.random.Generator) -> None:
    """Something that stops the arm or starts it."""
    match rng.choice(["enable", "disable", "stop", "emergency", "nothing"]):
        case "enable":
            bench.stop = False
            bench.run(TICK)
            bench.enable()
        case "disable":
            bench.gate.disable()
        case "stop":
            bench.stop = True
        case "emergency":
            bench.gate.supervisor.fault("emergency stop")


@pytest.mark.parametrize("seed", range(16))
def test_leading_without_a_motion_moves_a_drooping_arm_by_its_droop_once(seed: int) -> None:
    rng = np.random.default_rng(seed)
    bench = bench_of(rng)
    for _ in range(60):
        upset(bench, rng)
        if rng.random() < 0.5:
            bench.run(rng.uniform(0.02, 0.6), stick=0.0)
        bench.run(rng.choice([TICK, 0.1, 0.3, 1.2]))
    low, high = sorted([0.0, -bench.droop])
    assert low - 1e-6 <= min(bench.path)
    assert max(bench.path) <= high + 1e-6


@pytest.mark.parametrize("seed", range(16))
def test_leading_up_moves_a_drooping_arm_up_within_the_limits(seed: int) -> None:
    rng = np.random.default_rng(seed)
    bench = bench_of(rng)
    bench.enable()
    bench.run(1.5)  # it hangs now
    begin, pressed = bench.arm, 0.0
    bench.path.clear()
    for _ in range(12):
        if rng.random() < 0.5:
            upset(bench, rng)
        seconds = rng.uniform(0.02, 0.6)
        bench.run(seconds, stick=1.0)
        pressed += seconds
        bench.run(rng.choice([TICK, 0.1, 0.3, 1.2]))
        steps = np.diff(bench.commands)
        assert (np.diff(bench.path) >= -1e-6).all()  # never back: not by stopping, not by starting again
        assert (np.abs(steps) <= SPEED * TICK + 1e-9).all()
        assert (np.abs(np.diff(steps)) <= ACCELERATION * TICK**2 + 1e-9).all()
    braking = 12 * (SCALE * SPEED) ** 2 / (2 * ACCELERATION)
    assert bench.arm - begin <= SCALE * SPEED * (pressed + 12 * 0.2) + braking
