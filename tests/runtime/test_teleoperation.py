"""Leading by hand under a clock that only the test moves: taps, held keys, sticks, arms that droop, far leaders."""

from __future__ import annotations

import numpy as np
import pytest

from vla_policy.interfaces import InputError
from vla_policy.runtime import Gamepad, HeldKey, Lead, Limits
from vla_policy.runtime.teleoperation import HELD, JUMP, LEASH, LOST, MET, RAMP, TELEOP_SCALE, Alignment

RATE = 50.0
TICK = 1 / RATE
FULL, ACCELERATION, FOLLOWING_ERROR = 0.5, 4.0, 0.25
SPEED = TELEOP_SCALE * FULL  # what a person leads with
LOW, HIGH = np.full(2, -1.5), np.full(2, 1.5)
UP, DOWN, REST = np.array([0.0, 1.0]), np.array([0.0, -1.0]), np.zeros(2)


class Bench:
    """A person, a gate that keeps its last command, and an arm that hangs `droop` below what it is told."""

    def __init__(self, droop: float = 0.0, scale: float = TELEOP_SCALE) -> None:
        two = np.ones(2)
        self.lead = Lead(LOW, HIGH, FULL * two, ACCELERATION * two, FOLLOWING_ERROR * two, RATE, scale)
        self.limits = Limits(LOW, HIGH, np.full(2, FULL * TICK), np.full(2, ACCELERATION * TICK**2))
        self.now, self.enabled, self.stuck = 100.0, True, False
        self.droop = np.array([0.0, droop])
        self.command, self.step = np.array([0.0, 0.5]), np.zeros(2)
        self.measured = self.command - self.droop
        self.lead.command(self.command, self.now)
        self.targets: list[np.ndarray] = []
        self.commands: list[np.ndarray] = []

    def run(self, seconds: float, direction: np.ndarray | None) -> float:
        """How far the second channel went in this time; a direction of None is a released deadman."""
        before = self.measured[1]
        for _ in range(round(seconds * RATE)):
            self.now += TICK
            target = None
            if direction is None:
                self.lead.release()
            else:
                target = self.lead.push(direction, self.measured, self.now)
                self.targets.append(target)
            self._gate(target)
            if not self.stuck:
                self.measured = self.measured + (self.command - self.droop - self.measured) * 0.3
        return float(self.measured[1] - before)

    def _gate(self, target: np.ndarray | None) -> None:
        if self.enabled:
            command = self.limits.gate(target, self.command, self.step).action
            self.step, self.command = command - self.command, command
            self.commands.append(command)
            self.lead.command(command, self.now)


def test_a_tap_moves_the_arm_a_little_and_a_held_key_has_no_gap() -> None:
    for delay in (0.25, 0.5, 0.66):
        key, bench = HeldKey(), Bench()
        presses = [0.0, *np.arange(delay, 3.0, 1 / 30)]
        part, until, parts = 0.0, 0.0, []
        for t in np.arange(0.0, 3.0, TICK):
            while presses and presses[0] <= t:
                part, seconds = key.press("w", presses[0])
                until = presses.pop(0) + seconds
            parts.append(part if t < until else 0.0)
            bench.run(TICK, parts[-1] * UP)
        assert min(parts) > 0
        assert set(parts[: int(delay * RATE)]) == {HeldKey.CREEP}
        assert set(parts[int(delay * RATE) + 1 :]) == {1.0}
        expected = SPEED * (3.0 - (1 - HeldKey.CREEP) * delay)
        assert bench.command[1] - 0.5 == pytest.approx(expected, abs=2 * SPEED * TICK + 0.002)

    part, seconds = HeldKey().press("w", 0.0)
    assert part * seconds <= 0.2  # seconds at the teleoperation's speed
    tapped = Bench()
    tapped.run(seconds, part * UP)
    tapped.run(1.0, None)
    assert 0 < tapped.command[1] - 0.5 < 0.2 * SPEED


def test_another_key_or_a_later_press_is_a_first_one() -> None:
    key = HeldKey()
    assert key.press("w", 0.0) == (HeldKey.CREEP, HeldKey.FIRST)
    assert key.press("w", 0.5) == (1.0, HeldKey.REPEAT)
    assert key.press("w", 0.53) == (1.0, HeldKey.REPEAT)
    assert key.press("w", 0.75) == (HeldKey.CREEP, HeldKey.FIRST)  # released meanwhile
    assert key.press("s", 0.8) == (HeldKey.CREEP, HeldKey.FIRST)


@pytest.mark.parametrize("scale", [0.02, 0.1, 1.0])
def test_the_target_keeps_to_speed_and_acceleration(scale: float) -> None:
    bench = Bench(scale=scale)
    generator = np.random.default_rng(0)
    for _ in range(40):
        bench.run(generator.uniform(0.04, 0.6), generator.uniform(-1, 1, 2))
    steps = np.diff(bench.targets, axis=0)
    assert np.abs(steps).max() <= scale * FULL * TICK + 1e-9
    assert np.abs(np.diff(steps, axis=0)).max() <= ACCELERATION * TICK**2 + 1e-9
    assert np.abs(np.diff(bench.commands, n=2, axis=0)).max() <= ACCELERATION * TICK**2 + 1e-9


def test_the_target_stops_smoothly_at_the_edge_of_the_box() -> None:
    bench = Bench(scale=1.0)
    bench.run(4.0, UP)
    targets = np.array(bench.targets)[:, 1]
    assert targets.max() <= HIGH[1]
    assert targets[-1] == pytest.approx(HIGH[1], abs=1e-3)
    assert np.abs(np.diff(targets, n=2)).max() <= ACCELERATION * TICK**2 + 1e-6


def test_taking_over_a_moving_arm_continues_its_velocity_and_never_reverses() -> None:
    bench = Bench()
    step = np.array([0.0, FULL * TICK])  # the policy moves it at full speed
    for _ in range(20):
        bench.now += TICK
        bench.command, bench.step = bench.command + step, step
        bench.measured = bench.command
        bench.lead.command(bench.command, bench.now)
    bench.commands.clear()
    bench.run(1.0, REST)
    steps = np.diff(bench.commands, axis=0)[:, 1]
    assert steps.min() >= -1e-9
    assert np.abs(np.diff(steps)).max() <= ACCELERATION * TICK**2 + 1e-9
    assert bench.commands[-1][1] - bench.commands[0][1] < FULL**2 / 2 / ACCELERATION + 2 * FULL * TICK


@pytest.mark.parametrize("seed", range(8))
def test_no_sequence_of_presses_makes_an_arm_with_a_steady_state_error_sink(seed: int) -> None:
    generator = np.random.default_rng(seed)
    bench = Bench(droop=generator.uniform(0.0, 0.95 * FOLLOWING_ERROR))
    start = bench.measured[1]
    if generator.random() < 0.5:  # the arm's own controller holds it, and the gate begins at the measured pose, once
        bench.enabled = False
        bench.run(0.5, REST)
        bench.command = bench.measured.copy()
        bench.enabled = True
    for _ in range(30):
        bench.enabled = bool(generator.random() < 0.8)
        bench.run(generator.uniform(0.1, 1.0), REST if generator.random() < 0.5 else None)
    bench.enabled = True
    bench.run(1.0, None)
    assert abs(bench.measured[1] - start) <= bench.droop[1] + 1e-6


@pytest.mark.parametrize("droop", [0.0, 0.01, 0.05, 0.2])
def test_a_stick_moves_an_arm_with_a_steady_state_error_both_ways(droop: float) -> None:
    bench = Bench(droop)  # also where the error is larger than the leash
    assert LEASH * SPEED < 0.05
    assert abs(bench.run(4.0, REST)) < 1e-6
    assert bench.run(4.0, UP) == pytest.approx(4.0 * SPEED, rel=0.05)
    assert bench.run(4.0, DOWN) == pytest.approx(-4.0 * SPEED, rel=0.05)


def test_without_an_acceleration_limit_a_moving_arm_is_stopped_within_the_ramp() -> None:
    one = np.ones(1)
    lead = Lead(-one, one, FULL * one, None, FOLLOWING_ERROR * one, RATE, TELEOP_SCALE)
    for k in range(10):
        lead.command(k * FULL * TICK * one, k * TICK)
    targets = [lead.push(0 * one, 9 * FULL * TICK * one, 10 * TICK)[0] for _ in range(round(RAMP * RATE) + 1)]
    assert (np.diff(targets) >= 0).all()
    assert targets[-1] == targets[-2]


def test_a_command_that_the_arm_does_not_follow_leads_nothing() -> None:
    bench = Bench()
    bench.lead.command(bench.measured + 2 * FOLLOWING_ERROR, bench.now)
    np.testing.assert_allclose(bench.lead.push(REST, bench.measured, bench.now), bench.measured)


def test_the_target_of_an_arm_that_does_not_move_stays_near() -> None:
    bench = Bench()
    bench.enabled = False
    bench.run(10.0, UP)
    assert bench.targets[-1][1] - 0.5 == pytest.approx(LEASH * SPEED)
    bench.enabled = True  # and is forgotten when the arm is enabled
    bench.run(TICK, UP)
    assert abs(bench.command[1] - 0.5) <= LEASH * SPEED
    bench.command, bench.step = np.array([0.0, 0.5]), np.zeros(2)
    bench.run(0.5, REST)
    assert bench.command[1] - 0.5 < SPEED * 0.1


def test_a_pointed_place_is_gone_to_straight_and_reached_without_overshoot() -> None:
    bench = Bench(scale=1.0)
    place = np.array([0.3, 0.1])
    path = [bench.command]
    for _ in range(150):
        bench.now += TICK
        path.append(bench.lead.point(place, bench.measured, bench.now))
        bench.command = bench.measured = path[-1]
        bench.lead.command(bench.command, bench.now)
    np.testing.assert_allclose(path[-1], place, atol=1e-4)
    ways = np.array(path) - path[0]
    line = (place - path[0]) / np.linalg.norm(place - path[0])
    assert (ways @ line).max() <= np.linalg.norm(place - path[0]) + 1e-6
    assert np.abs(ways - np.outer(ways @ line, line)).max() < 0.005
    assert np.abs(np.diff(path, n=2, axis=0)).max() <= ACCELERATION * TICK**2 + 1e-6
    stays = bench.lead.point(np.array([np.nan, 0.4]), bench.measured, bench.now)
    assert stays[0] == pytest.approx(place[0], abs=1e-4)


def test_a_gamepad_leads_while_its_deadman_is_held_without_drift() -> None:
    pad = Gamepad([1, 0], deadman=2)
    assert pad.read([0.5, 1.0], [0, 0, 0], 0.0) is None
    np.testing.assert_allclose(pad.read([0.03, 1.0], [0, 0, 1], 0.1), [1.0, 0.0])
    np.testing.assert_allclose(pad.read([0.55, -0.09], [0, 0, 1], 0.2), [0.0, 0.5])


@pytest.mark.parametrize(
    ("axes", "buttons", "message"),
    [
        ([], [0, 0, 1], r"joy: expected the axes \[1, 0\], found 0 axes"),
        ([0.5], [0, 0, 1], r"joy: expected the axes \[1, 0\], found 1 axes"),
        ([float("nan"), 0.0], [0, 0, 1], r"joy: expected axes from -1 to 1, found \[0.0, nan\]"),
        ([0.0, 0.0], [1, 1], "joy: expected the deadman to be button 2, found 2 buttons"),
    ],
)
def test_a_gamepad_that_lacks_something_leads_nothing(axes: list[float], buttons: list[int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Gamepad([1, 0], deadman=2).read(axes, buttons, 0.0)


def test_a_gamepad_out_of_range_whose_last_state_is_repeated_stops_leading() -> None:
    pad = Gamepad([0], deadman=0)

    def repeat(stick: float, begin: float) -> None:
        """The same at 20 Hz until just before it counts as out of range."""
        for t in np.arange(begin, begin + Gamepad.SAME - 0.01, 0.05):
            assert pad.read([stick], [1], t) is not None

    def lost(stick: float, now: float) -> None:
        with pytest.raises(InputError, match="out of range"):
            pad.read([stick], [1], now)

    repeat(1.0, begin=0.0)
    lost(1.0, Gamepad.SAME)
    lost(0.9, Gamepad.SAME + 0.1)  # back in range, but nobody has taken the deadman anew
    assert pad.read([0.0], [0], Gamepad.SAME + 0.2) is None
    repeat(1.0, begin=Gamepad.SAME + 0.3)
    lost(1.0, 2 * Gamepad.SAME + 0.3)
    repeat(1.0, begin=2 * Gamepad.SAME + 0.4 + HELD)  # silence is a release as well
    for begin in (20.0, 25.0, 30.0):
        repeat(0.0, begin)  # a stick at rest moves nothing, however long


def test_a_leader_far_away_is_met_slowly_before_it_is_followed() -> None:
    most = np.full(2, FULL * TICK)
    alignment, command, leader = Alignment(most, RATE), np.zeros(2), np.array([1.0, 0.5])
    steps = []
    while not np.allclose(command, leader):
        following = alignment.follow(leader, command)
        steps.append(following - command)
        command = following
    far = np.array(steps)[: round((1.0 - MET * FULL) / SPEED * RATE) - 1]
    assert np.abs(far).max() <= SPEED * TICK + 1e-9
    np.testing.assert_allclose(far[:, 1], far[:, 0] / 2)  # straight
    for _ in range(round(0.9 * LOST * RATE)):  # at the contract's speed, with an arm that lags behind
        leader = leader - FULL * TICK
        np.testing.assert_allclose(alignment.follow(leader, command), leader)
    assert (
        np.abs(alignment.follow(command + 1.1 * LOST * FULL, command) - command).max() <= TELEOP_SCALE * most[0] + 1e-9
    )
    alignment.part()
    assert np.abs(alignment.follow(command + 0.1, command) - command).max() <= TELEOP_SCALE * most[0] + 1e-9


def test_a_leader_that_jumps_is_met_again() -> None:
    most = np.full(2, FULL * TICK)
    alignment, command = Alignment(most, RATE), np.zeros(2)
    assert (alignment.follow(command, command) == command).all()
    small, large = np.array([0.9 * JUMP * FULL, 0.0]), np.array([1.1 * JUMP * FULL, 0.0])
    np.testing.assert_allclose(alignment.follow(small, command), small)
    alignment.follow(command, command)
    for _ in range(3):  # and stays to be met
        np.testing.assert_allclose(alignment.follow(large, command), [TELEOP_SCALE * most[0], 0.0])


def test_without_a_speed_limit_no_leader_is_far() -> None:
    np.testing.assert_allclose(Alignment(None, RATE).follow(np.ones(2), np.zeros(2)), np.ones(2))
