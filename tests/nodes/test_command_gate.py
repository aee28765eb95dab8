"""The gate as a process, over DDS: faults on one side, an independent subscriber on the robot's side."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import yaml
from geometry_msgs.msg import PoseStamped, TwistStamped
from helpers.ros import ROOT, FakeRobot, Spinning, Waiting, Witness, own_domain, wait_for
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, String, UInt64
from trajectory_msgs.msg import JointTrajectory

from vla_policy.benchmarks.ros.harness import HeldBefore
from vla_policy.graph.processes import Processes
from vla_policy.nodes import common

pytestmark = pytest.mark.dds
PERIOD = 0.02  # seconds from command to command
WITHIN = 0.2  # seconds from a fault to the hold


class Setup:
    def __init__(self, robot: FakeRobot, witness: Witness, processes: Processes) -> None:
        self.robot, self.witness, self.processes = robot, witness, processes

    def start(self) -> Setup:
        """Disabled, enabled, moving."""
        self.robot.start(self.witness)
        return self

    def refuses(self, why: str) -> None:
        """Whoever enables is refused, and told `why` once a busy computer has let all heartbeats be heard."""

        def told() -> bool:
            answer = self.robot.enable()
            assert not answer.success
            return answer.message == f"cannot enable: {why}"

        wait_for(told, "the refusal", 5.0)

    def hold(self, inject: Callable[[], object], reason: str, within: float = WITHIN) -> None:
        """A fault makes the gate hold within so many seconds, for a reason that contains `reason`.

        Time that the gate or this process waited for a processor does not count. The commands sent until the hold are
        counted as well: they need no such allowance. Where a busy computer delays heartbeats, so that the gate holds
        before the fault or for their silence, the fault is injected again.
        """
        commands, seconds = 0, 0.0

        def held() -> bool:
            nonlocal commands, seconds
            self.start()
            gate, test = self.waiting()
            inject()
            fault = time.time()
            try:
                took = self.witness.seconds_to_hold(fault)
            except HeldBefore:
                return False
            commands = sum(fault < t < fault + took for t, _ in self.witness.commands)
            seconds = took - gate.seconds() - test.seconds() - self.witness.stood_still(fault)
            return reason in self.witness.reason

        wait_for(held, f"a hold because {reason}")
        assert commands <= round(within / PERIOD)
        assert seconds <= within

    def waiting(self) -> tuple[Waiting, Waiting]:
        """Of the gate and of this process, from now on."""
        return Waiting(self.processes["command_gate"].pid), Waiting(os.getpid())


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setup]:
    with own_domain(), Processes(tmp_path_factory.mktemp("log")) as processes:
        heartbeats = ["policy/stop", "surprise_monitor/stop"]
        parameters = {"contract": "pusht_sim", "dry_run": False, "heartbeats": heartbeats, "use_sim_time": True}
        processes.start("command_gate", **parameters)
        robot, witness = FakeRobot(simulated=True), Witness()
        yield Setup(robot, witness, processes)
        assert processes.dead() == {}
        robot.close()
        witness.close()


@pytest.mark.parametrize("quiet", ["policy", "monitor", "robot"])
def test_silence_holds(running: Setup, quiet: str) -> None:
    silent = {"policy": "policy/stop", "monitor": "surprise_monitor/stop", "robot": "robot state"}[quiet]
    # The simulated robot's state comes at 10 Hz, and the contract is patient with it.
    within = WITHIN + (0.14 if quiet == "robot" else 0.0)
    running.hold(lambda: running.robot.alive.discard(quiet), f"{silent} is silent", within)
    assert not running.robot.enable().success
    running.robot.alive.add(quiet)
    time.sleep(0.3)
    running.robot.offer_motion()  # nobody armed it again
    time.sleep(0.2)
    assert running.witness.state == "holding"


def test_an_alarm_holds_and_is_not_lost_among_heartbeats(running: Setup) -> None:
    # 0.1 s, and the way of one message
    running.hold(lambda: running.robot.monitor.publish(Bool(data=True)), "surprise_monitor/stop says stop", 0.12)


def test_the_gate_repeats_the_cause_of_a_stop(running: Setup) -> None:
    cause = "no picture from /front since 0.4 s"
    with Spinning("eyes") as eyes:
        why = eyes.create_publisher(String, "surprise_monitor/stop_reason", common.LATCHED_QOS)
        why.publish(String(data=cause))
        wait_for(lambda: why.get_subscription_count() > 0, "the gate")
        running.hold(lambda: running.robot.monitor.publish(Bool(data=True)), "surprise_monitor/stop says stop")
        wait_for(lambda: running.witness.reason == f"surprise_monitor/stop says stop: {cause}", "the cause", 5.0)
        running.robot.alive.discard("monitor")
        running.robot.monitor.publish(Bool(data=True))
        with closing(common.Ticker(0.02, lambda: running.robot.monitor.publish(Bool(data=True)))):
            running.refuses(f"surprise_monitor/stop says stop: {cause}")
        why.publish(String(data=""))
        time.sleep(0.2)


def test_a_chunk_with_nan_holds(running: Setup) -> None:
    rows = np.full((15, 2), 0.3)
    rows[9, 1] = np.nan
    running.hold(lambda: running.robot.offer(rows), "not finite")


@pytest.mark.parametrize("jump", [3.0, -3.0])
def test_a_clock_that_jumps_holds(running: Setup, jump: float) -> None:
    def set_clock() -> None:
        running.robot.jump += jump

    running.hold(set_clock, "clock jumped")
    time.sleep(0.3)
    targets = np.array([target for _, target in running.witness.commands])
    np.testing.assert_allclose(targets[-10:], targets[-1:].repeat(10, axis=0), atol=1e-4)
    running.robot.jump = 0.0
    time.sleep(0.3)
    assert running.witness.state == "holding"


def test_a_storm_of_stale_chunks_moves_nothing_and_delays_nothing(running: Setup) -> None:
    stale = np.full((5, 2), 0.3)

    def second(act: Callable[[], object]) -> float:
        """The median seconds from command to command while `act` is repeated.

        It is within 5 ms of the period, and commands of at most 0.1 s are missing; time that the gate waited for a
        processor does not count.
        """
        running.start()
        (gate, _), begin = running.waiting(), time.time()
        while time.time() < begin + 1.0:
            act()
            time.sleep(0.0005)
        lost = gate.seconds() + running.witness.stood_still(begin)
        wait_for(lambda: running.witness.commands[-1][0] > begin + 1.0, "all commands of this second", 10.0)
        commands = [(t, target) for t, target in running.witness.commands if begin < t < begin + 1.0]
        gaps = np.diff([t for t, _ in commands])
        assert np.abs(np.array([x for _, (x, _) in commands]) - 0.45).max() < 0.01  # never towards the stale one
        assert np.median(gaps) < PERIOD + 0.005 + lost / len(gaps)
        assert len(commands) > (1.0 - 0.1 - lost) / PERIOD
        return float(np.median(gaps))

    def storm() -> None:
        running.robot.offer(stale, age=2.0)
        running.robot.policy.publish(Bool(data=False))

    calm = second(lambda: None)
    assert second(storm) < 1.25 * calm


def test_emergency_stop_is_a_fault_until_disabled(running: Setup) -> None:
    pressed = Bool(data=True)
    running.hold(lambda: running.robot.emergency.publish(pressed), "emergency stop")
    answer = running.robot.enable()
    assert not answer.success
    assert "disable first" in answer.message
    assert running.robot.enable(False).success
    running.refuses("emergency_stop says stop")  # it is still pressed
    running.robot.emergency.publish(Bool(data=False))
    wait_for(lambda: running.robot.enable().success, "enabling", 5.0)


def test_teleoperation_does_not_take_back_another_emergency_stop(running: Setup) -> None:
    running.start()
    with Spinning("hand") as hand:
        says = hand.create_publisher(Bool, "teleop/emergency_stop", common.HEARTBEAT_QOS)
        with closing(common.Ticker(0.02, lambda: says.publish(Bool(data=False)))):
            running.robot.emergency.publish(Bool(data=True))
            wait_for(lambda: running.witness.state == "fault", "the fault", 5.0)
            time.sleep(0.2)
            assert running.robot.enable(False).success
            running.refuses("emergency_stop says stop")


def test_an_incompatible_publisher_of_the_emergency_stop_is_a_fault(running: Setup) -> None:
    running.start()
    with Spinning("rival") as rival:
        rival.create_publisher(Bool, "emergency_stop", common.IMAGE_QOS)
        wait_for(lambda: running.witness.state == "fault", "the fault", 10.0)
        assert running.witness.reason == "emergency_stop: a publisher of it is not reliable or sends no Bool"


def test_a_second_policy_holds_and_nothing_is_enabled_beside_it(running: Setup) -> None:
    refusal = "/policy/action_chunk: expected one publisher, found 2"

    def held() -> bool:
        running.start()
        with Spinning("rival") as rival:
            rival.create_publisher(JointTrajectory, "policy/action_chunk", common.COMMAND_QOS)
            wait_for(lambda: running.witness.state == "holding", "the hold", 10.0)
            wait_for(lambda: running.robot.enable().message.startswith(refusal), "the refusal")
            assert not running.robot.enable().success
        return running.witness.reason.startswith(refusal)  # a busy computer may have made it hold before

    wait_for(held, "a hold for the second policy")


def test_teleoperation_takes_over_and_the_policy_does_not_come_back(running: Setup) -> None:
    hand = np.array([0.5, 0.1])

    def led() -> bool:
        """Whether the arm is where the hand wants it; a busy computer that makes the gate hold before is forgiven."""
        if running.witness.state != "running":
            running.start()
        target = JointState(name=["x", "y"], position=hand.tolist())
        target.header.stamp = common.stamp(running.robot.now())
        running.robot.teleop.publish(target)
        running.robot.offer(np.full((15, 2), 0.3))
        time.sleep(0.015)
        return np.allclose(running.robot.pose, hand, atol=1e-3)

    running.start()
    wait_for(led, "the arm at the hand's target")
    wait_for(lambda: running.witness.state == "holding", "the hold after teleoperation")
    running.robot.offer(np.full((15, 2), 0.3))
    time.sleep(0.2)
    np.testing.assert_allclose(running.robot.pose, hand, atol=1e-3)


@pytest.mark.parametrize("names", [("x", "z"), ("x",)])
def test_a_chunk_of_other_channels_is_a_fault(running: Setup, names: tuple[str, ...]) -> None:
    running.start()
    running.robot.offer(np.full((15, len(names)), 0.3), names=names)
    wait_for(lambda: running.witness.state == "fault", "the fault", 5.0)
    assert f"expected the channels ['x', 'y'], found {list(names)}" in running.witness.reason


def test_a_second_publisher_of_commands_is_a_fault(running: Setup) -> None:
    running.start()
    with Spinning("rival") as rival:
        wait_for(lambda: "rival" in running.robot.get_node_names(), "the rival's name")
        rival.create_publisher(PoseStamped, "/pusht_sim/target_pose", common.COMMAND_QOS)
        wait_for(lambda: running.witness.state == "fault", "the fault", 10.0)
        assert running.witness.reason.startswith("/pusht_sim/target_pose: expected no other publisher, found 1 (from ")
        wait_for(lambda: "/rival" in running.witness.reason, "its name")


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"contract": "nowhere"}, "expected a .yaml file or one of"),
        ({"dry_run": "perhaps"}, "parameter 'dry_run': expected a bool, found 'perhaps'"),
        (
            {"dry_rnu": True},
            "command_gate: expected the parameters ['contract', 'dry_run', 'heartbeats'], found 'dry_rnu'",
        ),
        ({"heartbeats": "policy/stop"}, "parameter 'heartbeats': expected a list, found 'policy/stop'"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, parameters: dict, message: str) -> None:
    with own_domain(), Processes(tmp_path) as processes:
        assert processes.start("command_gate", **parameters).wait(60) == 2
        output = (tmp_path / "command_gate.log").read_text()
    assert output.startswith("error: ")
    assert message in output
    assert "Traceback" not in output


def test_every_engagement_has_a_number_of_its_own(running: Setup) -> None:
    numbers: list[int] = []
    with Spinning("listener") as listener:
        listener.create_subscription(
            UInt64, "command_gate/engagement", lambda m: numbers.append(m.data), common.LATCHED_QOS
        )
        running.start()
        wait_for(lambda: listener.count_publishers("command_gate/engagement") and numbers, "the engagement so far")
        for _ in range(2):
            seen = len(numbers)
            assert running.robot.enable(False).success
            wait_for(lambda: running.robot.enable().success, "enabling")
            wait_for(lambda seen=seen: len(numbers) > seen, "its number")  # type: ignore[misc]
    assert len(set(numbers)) == len(numbers)


def test_a_dry_run_sends_nothing_to_the_robot(tmp_path: Path) -> None:
    with own_domain(1), Processes(tmp_path) as processes, FakeRobot() as robot, Witness() as witness:
        processes.start("command_gate", heartbeats=["policy/stop"])  # a dry run unless told otherwise
        executed: list[JointState] = []
        dry: list[Bool] = []
        robot.create_subscription(JointState, "command/executed", executed.append, 10)
        robot.create_subscription(Bool, "command_gate/dry_run", dry.append, common.LATCHED_QOS)
        wait_for(lambda: robot.enable().success, "enabling")
        wait_for(lambda: len(executed) > 10, "commands that are not sent")
        wait_for(lambda: bool(dry) and dry[-1].data, "the gate's word that it is a dry run")
        assert witness.commands == []
        assert robot.count_publishers("/pusht_sim/target_pose") == 0


def test_an_emergency_stop_pressed_before_the_gate_started_is_received(tmp_path: Path) -> None:
    with own_domain(1), Processes(tmp_path) as processes, Witness() as witness, Spinning("button") as button:
        latched = button.create_publisher(Bool, "emergency_stop", common.LATCHED_QOS)
        latched.publish(Bool(data=True))  # once, and never again
        processes.start("command_gate", heartbeats=[""])
        wait_for(lambda: witness.state == "fault", "the fault")
        assert witness.reason == "emergency stop"
    assert "incompatible" not in (tmp_path / "command_gate.log").read_text()


def test_an_emergency_stop_that_the_contract_expects_may_not_be_silent(tmp_path: Path) -> None:
    data = yaml.safe_load((ROOT / "config" / "pusht_sim.yaml").read_text())
    data["timeouts"]["emergency_stop"] = 0.3
    (tmp_path / "supervised.yaml").write_text(yaml.safe_dump(data))
    with own_domain(1), Processes(tmp_path) as processes, FakeRobot() as robot, Witness() as witness:
        processes.start("command_gate", contract=str(tmp_path / "supervised.yaml"), heartbeats=["policy/stop"])
        wait_for(lambda: robot.enable().message == "cannot enable: no messages from emergency_stop", "the refusal")
        button = common.Ticker(0.05, lambda: robot.emergency.publish(Bool(data=False)))
        wait_for(lambda: robot.enable().success, "enabling")
        button.close()
        wait_for(lambda: witness.state == "holding", "the hold", 5.0)
        assert witness.reason.startswith("emergency_stop is silent")


def test_a_velocity_controlled_robot_stops_when_held_disabled_or_abandoned(tmp_path: Path) -> None:
    data = yaml.safe_load((ROOT / "config" / "pusht_sim.yaml").read_text())
    data["action"] |= {"topic": "/twist", "type": "geometry_msgs/msg/TwistStamped", "constants": {}}
    (tmp_path / "twist.yaml").write_text(yaml.safe_dump(data))
    with own_domain(1), Processes(tmp_path) as processes, FakeRobot() as robot:
        gate = processes.start("command_gate", contract=str(tmp_path / "twist.yaml"), dry_run=False)
        speeds: list[float] = []
        robot.create_subscription(TwistStamped, "/twist", lambda m: speeds.append(m.twist.linear.y), 50)

        def move() -> None:
            robot.alive.add("robot")
            offered = 0.0

            def moving() -> bool:
                nonlocal offered
                if time.time() > offered + 2.0:  # again: a busy computer makes the gate hold
                    robot.enable(False)
                    wait_for(lambda: robot.enable().success, "enabling")
                    speeds.clear()
                    offered = time.time()
                    robot.offer_motion()
                return any(speeds)

            wait_for(moving, "velocities")

        wait_for(lambda: robot.enable(False).success, "the gate")
        move()
        robot.alive.discard("robot")  # its last pose is further from the held one by the second
        wait_for(lambda: len(speeds) > 40 and not any(speeds[-10:]), "the hold", 5.0)
        for stop in (lambda: robot.enable(False), gate.terminate):
            move()
            stop()
            wait_for(lambda: speeds[-1] == 0, "a last velocity of zero", 5.0)
