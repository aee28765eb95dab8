"""The gate under two clocks that only the test moves: who stops the arm, how fast, and what starts it again."""

from __future__ import annotations

import numpy as np
import pytest

from vla_policy.interfaces import ActionChunk, Refused
from vla_policy.runtime import Command, Gate, GateConfig, Limits, State

RATE, DT = 50.0, 0.1
TICK = 1 / RATE
EPOCH = 1000.0  # of the stamps' clock; the steady one counts from 0


class Bench:
    """A gate, a robot that is where it was told to be, a policy and a monitor that are well until told otherwise."""

    def __init__(self, following_error: np.ndarray | None = None, **limits: np.ndarray) -> None:
        box = {"low": np.zeros(2), "high": np.ones(2), "max_step": np.full(2, 0.05)} | limits
        heartbeats = {"policy": 0.12, "monitor": 0.12}
        config = GateConfig(RATE, Limits(**box), heartbeats, following_error=following_error)
        self.gate = Gate(config)
        self.steady, self.jump = 0.0, 0.0
        self.pose = np.array([0.5, 0.5])
        self.alive = {"policy", "monitor", "robot"}
        self.commands: list[Command | None] = []

    @property
    def now(self) -> float:
        return EPOCH + self.jump + self.steady

    def run(self, seconds: float) -> list[Command | None]:
        """The commands of this time."""
        for _ in range(round(seconds * RATE)):
            self.steady += TICK
            for name in self.alive & {"policy", "monitor"}:
                self.gate.heartbeat(name, False, self.steady)
            if "robot" in self.alive:
                self.gate.measure(self.pose, self.steady)
            command = self.gate.tick(self.now, self.steady)
            if command is not None and "stuck" not in self.alive:
                self.pose = command.action
            self.commands.append(command)
        return self.commands[-round(seconds * RATE) :]

    def start(self) -> Bench:
        """Armed and playing a chunk to the right."""
        self.run(0.1)
        self.gate.enable(self.now, self.steady)
        assert self.offer(0.5 + 0.02 * np.arange(1, 16))
        self.run(0.04)
        assert self.gate.supervisor.state is State.RUNNING
        return self

    def offer(self, xs: np.ndarray, age: float = 0.0) -> bool:
        rows = np.stack([xs, np.full(len(xs), 0.5)], axis=1)
        return self.gate.offer(ActionChunk(rows, self.now - age, DT), self.now)

    def seconds_to_hold(self) -> float:
        """From now on until the first of the holding commands; they must not be followed by others."""
        statuses = [command.status for command in self.run(1.0) if command is not None]
        first = statuses.index("hold")
        assert set(statuses[first:]) == {"hold"}
        return first * TICK


def test_nothing_is_sent_before_the_arm_is_enabled_and_after_it_is_disabled() -> None:
    bench = Bench()
    assert set(bench.run(0.5)) == {None}
    bench.gate.enable(bench.now, bench.steady)
    assert all(c is not None and c.status == "hold" for c in bench.run(0.1))
    bench.gate.disable()
    assert set(bench.run(0.1)) == {None}


def test_rows_are_reached_at_the_end_of_their_periods_in_equal_steps() -> None:
    bench = Bench()
    bench.run(0.1)
    bench.gate.enable(bench.now, bench.steady)
    bench.offer(np.array([0.6, 0.6, 0.7]))
    x = [c.action[0] for c in bench.run(0.3) if c is not None]
    np.testing.assert_allclose(x[:5], [0.525, 0.55, 0.575, 0.6, 0.6], atol=1e-9)
    np.testing.assert_allclose(x[9:14], np.linspace(0.62, 0.7, 5), atol=1e-9)


def test_a_new_chunk_far_from_the_old_one_makes_no_jump() -> None:
    bench = Bench().start()
    bench.run(0.3)
    bench.offer(np.full(15, 0.8), age=0.06)  # 0.2 m away
    x = np.array([c.action[0] for c in bench.run(0.4) if c is not None])
    assert np.abs(np.diff(x)).max() <= 0.05 + 1e-9
    np.testing.assert_allclose(x[-1], 0.8, atol=1e-9)


@pytest.mark.parametrize("quiet", ["policy", "monitor", "robot"])
def test_silence_holds_in_time_and_nobody_resumes(quiet: str) -> None:
    bench = Bench().start()
    bench.alive.discard(quiet)
    assert bench.seconds_to_hold() <= 0.18
    assert quiet in bench.gate.supervisor.reason
    bench.alive.add(quiet)
    bench.run(0.2)
    bench.offer(np.full(15, 0.9))
    assert {c.status for c in bench.run(0.3) if c} == {"hold"}
    bench.gate.enable(bench.now, bench.steady)
    assert bench.offer(np.full(15, 0.6))
    assert {c.status for c in bench.run(0.1) if c} == {"ok"}


def test_a_stop_holds_at_the_next_command() -> None:
    bench = Bench().start()
    bench.alive.discard("monitor")
    bench.gate.heartbeat("monitor", True, bench.steady)
    assert bench.seconds_to_hold() == 0
    assert bench.gate.supervisor.reason == "monitor says stop"
    with pytest.raises(Refused, match="monitor"):
        bench.gate.enable(bench.now, bench.steady)


def test_a_chunk_with_nan_is_dropped_whole_and_holds() -> None:
    bench = Bench().start()
    xs = np.full(15, 0.9)
    xs[7] = np.nan
    assert not bench.offer(xs)
    assert bench.seconds_to_hold() == 0
    assert "not finite" in bench.gate.supervisor.reason


@pytest.mark.parametrize("jump", [5.0, -5.0])
def test_a_clock_that_jumps_holds(jump: float) -> None:
    bench = Bench().start()
    bench.jump = jump
    assert bench.seconds_to_hold() == 0
    assert "clock jumped" in bench.gate.supervisor.reason
    bench.gate.enable(bench.now, bench.steady)  # the new time is as good as the old one
    bench.offer(np.full(15, 0.6))
    assert {c.status for c in bench.run(0.1) if c} == {"ok"}


def test_holding_stays_at_the_last_command_wherever_the_arm_is_measured() -> None:
    bench = Bench().start()
    last = bench.pose
    bench.gate.supervisor.hold("test")
    bench.alive |= {"stuck"}
    bench.pose = np.array([0.49, 0.48])  # it sags, or this is where it was a while ago
    held = [c.action for c in bench.run(0.2) if c]
    np.testing.assert_allclose(held, np.tile(last, (10, 1)))


def test_stale_and_future_chunks_are_refused_while_the_old_one_goes_on() -> None:
    bench = Bench().start()
    bench.run(0.7)
    bench.offer(0.9 + np.zeros(15))
    bench.run(0.1)
    assert not bench.offer(np.full(5, 0.9), age=0.6)  # over
    assert not bench.offer(np.full(15, 0.9), age=0.3)  # made from an older observation
    assert not bench.offer(np.full(15, 0.9), age=-0.5)
    assert bench.gate.refused == {"stale chunk": 2, "chunk from the future": 1}
    assert {c.status for c in bench.run(0.5) if c} == {"ok"}


def test_what_is_over_is_waited_for_not_stopped() -> None:
    bench = Bench().start()
    bench.run(2.0)
    assert bench.gate.supervisor.state is State.ARMED
    assert bench.offer(np.full(15, 0.6))
    bench.run(0.04)
    assert bench.gate.supervisor.state is State.RUNNING


def test_a_fault_has_to_be_acknowledged() -> None:
    bench = Bench().start()
    bench.gate.supervisor.fault("emergency stop")
    assert bench.seconds_to_hold() == 0
    with pytest.raises(Refused, match="disable first"):
        bench.gate.enable(bench.now, bench.steady)
    bench.gate.disable()
    bench.run(0.1)
    bench.gate.enable(bench.now, bench.steady)


def test_an_arm_that_is_stuck_is_led_by_no_more_than_the_following_error_and_held() -> None:
    bench = Bench(following_error=np.array([0.05, 0.05]), max_change=np.full(2, 0.002)).start()
    bench.alive.add("stuck")
    bench.run(1.0)
    assert bench.gate.supervisor.state is State.HOLDING
    assert bench.gate.supervisor.reason.startswith("0 is 0.05")
    assert bench.gate.supervisor.reason.endswith("away from its command, more than 0.05")
    for _ in range(5):  # nor does the lead grow when it is enabled again, and led again
        bench.gate.disable()
        bench.run(0.1)
        bench.gate.enable(bench.now, bench.steady)
        bench.offer(np.full(15, 0.9))
        bench.run(0.5)
        assert bench.gate.supervisor.state is State.HOLDING
    leads = np.array([c.action - bench.pose for c in bench.commands if c])
    assert leads[:, 0].max() == pytest.approx(0.05)
    np.testing.assert_allclose(leads[-50:, 0], leads[:, 0].max())
    pose = bench.pose
    for noise in (-0.003, 0.003, 0.0):  # a restart at the measured pose would drive back
        bench.pose = pose + noise
        np.testing.assert_allclose(bench.run(0.1)[-1].action[0], pose[0] + 0.05)  # type: ignore[union-attr]
    bench.gate.enable(bench.now, bench.steady)
    bench.offer(np.full(15, 0.4))
    bench.run(0.1)
    assert bench.gate.supervisor.state is State.RUNNING  # the way back is free


def test_an_arm_that_falls_is_told_nothing_more() -> None:
    bench = Bench(following_error=np.array([0.05, 0.05]))
    bench.run(0.1)
    bench.gate.enable(bench.now, bench.steady)
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


@pytest.mark.parametrize("stop", ["policy says stop", "emergency stop", "silence", "bad chunk"])
@pytest.mark.parametrize("age", [0.0, 0.4])
def test_a_stop_brakes_forward_within_the_acceleration_limit(stop: str, age: float) -> None:
    bench = Bench(following_error=np.full(2, 0.5), max_change=np.full(2, 0.002), max_step=np.full(2, 0.02))
    bench.run(0.1)
    bench.gate.enable(bench.now, bench.steady)
    bench.alive.add("stuck")
    was = [bench.pose] * round(age * RATE)  # a state that is so old when it comes
    for k in range(40):
        bench.offer(np.full(15, 0.95))
        bench.run(TICK)
        was.append(bench.commands[-1].action)  # type: ignore[union-attr]
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


def test_without_an_acceleration_limit_a_stop_ends_at_the_last_command() -> None:
    bench = Bench().start()
    last = bench.pose
    bench.gate.heartbeat("policy", True, bench.steady)
    np.testing.assert_allclose(bench.run(TICK)[-1].action, last)  # type: ignore[union-attr]


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
    bench, arm = Bench(following_error=np.full(2, 0.05), max_change=np.full(2, 0.002)), Droop(0.5, droop, lag)
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
            bench.gate.enable(bench.now, bench.steady)
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


def test_an_arm_that_was_moved_by_hand_takes_its_set_point_along() -> None:
    bench = Bench(following_error=np.array([0.2, 0.2])).start()
    bench.alive.add("stuck")
    last = bench.pose
    bench.pose = last - [0.03, 0.0]  # its weight
    bench.run(0.2)
    bench.gate.disable()
    bench.run(2.0)
    bench.gate.enable(bench.now, bench.steady)
    before = bench.run(TICK)[-1]
    bench.gate.disable()
    bench.run(2.0)
    bench.pose = last - [0.13, 0.0]  # by hand
    bench.run(0.1)
    bench.gate.enable(bench.now, bench.steady)
    after = bench.run(TICK)[-1]
    assert before is not None
    assert after is not None
    np.testing.assert_allclose(after.action, before.action - [0.1, 0.0])  # it does not jump back, nor sink


def test_a_drooping_arm_at_the_edge_of_the_box_is_enabled_again() -> None:
    bench = Bench(following_error=np.array([0.2, 0.2]))
    bench.pose = np.array([0.0, 0.5])
    bench.run(0.1)
    bench.gate.enable(bench.now, bench.steady)
    bench.alive.add("stuck")
    bench.run(0.1)
    bench.pose = np.array([-0.1, 0.5])
    bench.run(0.1)
    bench.gate.disable()
    bench.gate.enable(bench.now, bench.steady)
    np.testing.assert_allclose(bench.run(TICK)[-1].action, [0.0, 0.5])  # type: ignore[union-attr]


def test_a_state_is_refused_that_full_speed_makes_wrong_by_more_than_the_following_error() -> None:
    bench = Bench(following_error=np.array([0.5, 0.25]))  # at 2.5 units / s
    bench.alive.discard("robot")
    bench.run(0.1)
    assert bench.gate.measure(bench.pose, bench.steady, age=0.099)
    for _ in range(10):
        bench.run(TICK)
        assert not bench.gate.measure(bench.pose, bench.steady, age=0.11)
    with pytest.raises(Refused, match=r"no messages from robot state .*: it is 0\.11 s old, more than 0\.1 s"):
        bench.gate.enable(bench.now, bench.steady)


def test_a_robot_led_away_from_the_constants_holds_and_is_sent_nothing_until_it_is_back() -> None:
    bench = Bench(following_error=np.array([0.2, 0.2])).start()
    bench.gate.pose_error = "z: expected 0.01, found 0.21"
    assert bench.run(0.2) == [None] * 10
    assert (bench.gate.supervisor.state, bench.gate.supervisor.reason) == (State.HOLDING, bench.gate.pose_error)
    with pytest.raises(Refused, match="z: expected"):
        bench.gate.enable(bench.now, bench.steady)
    bench.gate.pose_error = ""
    last = next(c for c in reversed(bench.commands) if c is not None)
    np.testing.assert_allclose(bench.run(0.1)[-1].action, last.action)  # type: ignore[union-attr]


@pytest.mark.parametrize("first", ["stop", "cause"])
def test_a_stop_says_its_cause_whichever_is_heard_first(first: str) -> None:
    bench = Bench().start()
    cause = "no picture from /front since 0.4 s"
    if first == "cause":
        bench.gate.explain("policy", cause)
    bench.gate.heartbeat("policy", True, bench.steady)
    bench.alive.discard("policy")
    bench.run(TICK)
    bench.gate.explain("policy", cause)
    assert bench.gate.supervisor.reason == f"policy says stop: {cause}"
    with pytest.raises(Refused, match=f"cannot enable: policy says stop: {cause}"):
        bench.gate.enable(bench.now, bench.steady)
    bench.gate.explain("policy", "")
    assert bench.gate.supervisor.reason == f"policy says stop: {cause}"


def test_what_the_robot_cannot_follow_is_taken_back() -> None:
    bench = Bench(following_error=np.array([0.2, 0.2])).start()
    sent = bench.commands[-2]
    bench.gate.take_back("out of reach")
    held = bench.run(0.1)[-1]
    assert sent is not None
    assert held is not None
    np.testing.assert_allclose(held.action, sent.action)
    assert held.reason == "out of reach"


@pytest.mark.parametrize("state", ["armed", "holding", "fault"])
def test_a_held_arm_that_is_moved_by_hand_stays_where_it_was_brought(state: str) -> None:
    bench = Bench(following_error=np.array([0.05, 0.05]))
    bench.run(0.1)
    bench.gate.enable(bench.now, bench.steady)
    bench.run(0.1)
    if state == "holding":
        bench.gate.heartbeat("policy", True, bench.steady)
    elif state == "fault":
        bench.gate.supervisor.fault("emergency stop")
    bench.run(0.1)
    resets = bench.gate.setpoint_resets
    bench.pose = np.array([0.1, 0.5])
    bench.alive.add("stuck")
    command = bench.run(0.1)[-1]
    assert command is not None
    assert command.status == "hold"
    np.testing.assert_allclose(command.action, [0.1, 0.5])  # and is not pulled back when its drives are on again
    assert bench.gate.setpoint_resets == resets + 1  # what the joints are told begins anew as well


def test_enabling_after_a_hold_begins_where_the_arm_is() -> None:
    bench = Bench().start()
    bench.gate.heartbeat("policy", True, bench.steady)
    bench.run(0.1)
    resets, bench.pose = bench.gate.setpoint_resets, np.array([0.52, 0.5])
    bench.alive.add("stuck")
    bench.run(0.1)
    bench.gate.enable(bench.now, bench.steady)
    assert bench.gate.setpoint_resets > resets
    command = bench.run(TICK)[-1]
    assert command is not None
    np.testing.assert_allclose(command.action, [0.52, 0.5])


def test_a_hand_that_falls_silent_at_once_leads_no_longer_than_its_timeout() -> None:
    bench = Bench().start()
    for _ in range(100):  # the policy plays for a while after the last takeover
        bench.offer(np.full(15, 0.6))
        bench.run(0.3)
    bench.gate.teleoperate(np.array([0.5, 0.7]), bench.steady)
    bench.run(TICK)
    assert bench.gate.teleoperated
    bench.run(0.2)
    assert not bench.gate.teleoperated
    assert bench.gate.supervisor.reason == "teleoperation ended"


def test_an_arm_that_follows_late_goes_on() -> None:
    bench = Bench(following_error=np.array([0.05, 0.05])).start()
    bench.run(1.0)
    assert bench.gate.supervisor.state is State.RUNNING


@pytest.mark.parametrize(("age", "why"), [(0.7, "stale"), (-0.7, "from the future"), (np.nan, "from the future")])
def test_a_state_of_another_time_is_silence(age: float, why: str) -> None:
    bench = Bench()
    bench.alive.discard("robot")
    for _ in range(10):
        bench.run(TICK)
        bench.gate.measure(bench.pose, bench.steady, age)
    with pytest.raises(Refused, match=rf"no messages from robot state \(refused: {{'robot state {why}': 10}}\)"):
        bench.gate.enable(bench.now, bench.steady)


def test_an_old_wish_of_a_person_leads_nothing() -> None:
    bench = Bench().start()
    bench.gate.teleoperate(np.array([0.5, 0.7]), bench.steady, age=0.7)
    bench.run(TICK)
    assert not bench.gate.teleoperated
    assert bench.gate.refused == {"teleop stale": 1}


def test_a_person_goes_before_the_policy_which_does_not_come_back() -> None:
    bench = Bench().start()
    for _ in range(10):
        bench.gate.teleoperate(np.array([0.5, 0.7]), bench.steady)
        bench.offer(np.full(15, 0.9))
        bench.run(TICK)
    np.testing.assert_allclose(bench.pose, [0.5, 0.7], atol=0.05)
    assert bench.gate.teleoperated
    statuses = [c.status for c in bench.run(0.5) if c]
    assert statuses[-1] == "hold"
    assert bench.gate.supervisor.reason == "teleoperation ended"


def test_enabling_says_who_is_missing() -> None:
    bench = Bench()
    bench.alive = {"policy"}
    bench.run(0.1)
    with pytest.raises(Refused, match="monitor, robot state"):
        bench.gate.enable(bench.now, bench.steady)
    with pytest.raises(Refused, match="no time yet"):
        bench.gate.enable(0.0, bench.steady)


def test_a_gate_that_slept_reads_its_messages_before_it_blames_anybody() -> None:
    bench = Bench().start()
    bench.steady += 0.5  # the process did not run; nobody could be heard
    assert bench.gate.tick(bench.now, bench.steady).status == "ok"  # type: ignore[union-attr]
    assert {c.status for c in bench.run(0.2) if c} == {"ok"}


def test_acceleration_is_limited_on_the_way_there_and_before_the_end() -> None:
    bench = Bench(max_change=np.full(2, 0.002))
    bench.run(0.1)
    bench.gate.enable(bench.now, bench.steady)
    bench.offer(np.full(15, 0.9))
    x = np.array([0.5] + [c.action[0] for c in bench.run(1.0) if c])
    steps = np.diff(x)
    assert np.abs(np.diff(steps, prepend=0.0)).max() <= 0.002 + 1e-9
    assert x.max() <= 0.9 + 1e-9
    np.testing.assert_allclose(x[-1], 0.9, atol=1e-6)


def test_a_gate_that_nobody_enabled_sends_nothing_in_a_fault_either() -> None:
    bench = Bench()
    bench.run(0.1)
    bench.gate.supervisor.fault("emergency stop")
    assert set(bench.run(0.2)) == {None}
    bench.gate.disable()
    bench.gate.enable(bench.now, bench.steady)
    bench.gate.disable()
    bench.gate.supervisor.fault("another publisher")
    assert set(bench.run(0.2)) == {None}


def test_an_arm_outside_the_box_is_not_enabled() -> None:
    bench = Bench()
    bench.pose = np.array([1.3, 0.5])
    bench.run(0.1)
    with pytest.raises(Refused, match=r"outside the box \(0: expected 0 to 1, found 1.3\)"):
        bench.gate.enable(bench.now, bench.steady)


def test_an_arm_a_little_outside_the_box_is_brought_back_within_the_limits() -> None:
    bench = Bench(max_change=np.full(2, 0.002))
    bench.pose = np.array([1.04, 0.5])
    bench.run(0.1)
    bench.gate.enable(bench.now, bench.steady)
    x = np.array([1.04] + [c.action[0] for c in bench.run(0.5) if c])
    assert np.abs(np.diff(np.diff(x), prepend=0.0)).max() <= 0.002 + 1e-9
    assert x[-1] == pytest.approx(1.0)


def test_what_was_planned_before_enabling_is_not_played() -> None:
    bench = Bench()
    bench.run(0.1)
    bench.gate.enable(bench.now, bench.steady)
    assert not bench.offer(np.full(15, 0.9), age=0.01)
    assert bench.gate.refused == {"chunk from before enabling": 1}
    assert bench.offer(np.full(15, 0.9))


def test_enabling_again_begins_where_the_arm_was_moved_to_by_hand() -> None:
    bench = Bench().start()
    bench.gate.supervisor.hold("test")
    bench.run(0.1)
    bench.pose = moved = np.array([0.2, 0.3])
    bench.gate.measure(moved, bench.steady)
    bench.gate.enable(bench.now, bench.steady)
    for command in bench.run(0.2):
        assert command is not None
        np.testing.assert_allclose(command.action, moved)


def test_an_arm_that_stood_still_for_long_does_not_go_on_by_itself() -> None:
    bench = Bench().start()
    bench.run(2.7)  # the chunk is over after 1.5 s
    assert bench.gate.supervisor.state is State.HOLDING
    assert "no action for 1.0 s" in bench.gate.supervisor.reason
    assert not bench.offer(np.full(15, 0.6))
    bench.gate.enable(bench.now, bench.steady)
    bench.run(3.0)  # the first chunk may take its time
    assert bench.gate.supervisor.state is State.ARMED


def test_a_gate_enabled_again_is_not_led_by_the_hand_of_before() -> None:
    bench = Bench().start()
    bench.gate.teleoperate(np.array([0.5, 0.7]), bench.steady)
    bench.run(TICK)
    bench.gate.disable()
    bench.gate.enable(bench.now, bench.steady)
    assert not bench.gate.teleoperated
    assert bench.offer(np.full(15, 0.6))
    bench.run(0.1)
    assert bench.gate.supervisor.state is State.RUNNING


def test_a_robot_that_is_misplaced_elsewhere_is_not_enabled() -> None:
    bench = Bench()
    bench.run(0.1)
    bench.gate.pose_error = "the measured pose is away from the commands' constants (z: expected 0.01, found 0.4)"
    with pytest.raises(Refused, match=r"cannot enable: .*z: expected 0\.01, found 0\.4"):
        bench.gate.enable(bench.now, bench.steady)
    assert bench.run(0.1) == [None] * 5
