"""The monitor's node around a monitor that is surprised when told so."""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import rclpy
from geometry_msgs.msg import PoseStamped
from helpers.ros import Spinning, Waiting, activate, image_message, own_domain, pose_message, spinning, wait_for
from rclpy.lifecycle import TransitionCallbackReturn
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Bool, String, UInt64

from vla_policy.nodes import common, surprise_monitor_node
from vla_policy.robot.contract import load_contract
from vla_policy.runtime import worker

pytestmark = pytest.mark.dds
INTERFACE = load_contract("pusht_sim").interface


def unanswered(problem: str) -> float:
    """Seconds; a busy computer lets some pass before the test asks."""
    found = re.fullmatch(r"no answer of the model for (.*) s", problem)
    assert found, problem
    return float(found[1])


class FakeMonitor:
    def __init__(self) -> None:
        self.seen: list[tuple[float, np.ndarray | None]] = []
        self.surprised, self.resets, self.score = False, 0, 3.5

    def reset(self) -> None:
        self.resets += 1

    def paired(self) -> list[tuple[float, np.ndarray]]:
        """All but beginnings and what followed a gap."""
        return [(t, command) for t, command in self.seen if command is not None]

    def update(self, observation, command, chunk=None) -> SimpleNamespace:
        observation.check(INTERFACE)
        self.seen.append((observation.t, command))
        return SimpleNamespace(score=self.score, threshold=1.0, is_surprised=self.surprised, since=None)


class Robot(Spinning):
    def __init__(self) -> None:
        super().__init__("robot")
        self.stops: list[bool] = []
        self.reasons: list[str] = []
        self._image = self.create_publisher(Image, "/pusht_sim/camera/image_raw", common.IMAGE_QOS)
        self._pose = self.create_publisher(PoseStamped, "/pusht_sim/ee_pose", common.STATE_QOS)
        self._executed = self.create_publisher(JointState, "command/executed", 10)
        self.gate = self.create_publisher(String, "command_gate/state", common.LATCHED_QOS)
        self.engagement = self.create_publisher(UInt64, "command_gate/engagement", common.LATCHED_QOS)
        self.create_subscription(Bool, "surprise_monitor/stop", lambda m: self.stops.append(m.data), 50)
        why = "surprise_monitor/stop_reason"
        self.create_subscription(String, why, lambda m: self.reasons.append(m.data), common.LATCHED_QOS)
        self._ticker = common.Ticker(0.1, self._live)

    def close(self) -> None:
        self._ticker.close()
        super().close()

    def _live(self) -> None:
        """The command says for which observation it was the last."""
        now = time.time()
        executed = JointState(name=["x", "y"], position=[now % 1000, 0.0])
        executed.header.stamp = common.stamp(now - 0.02)
        self._executed.publish(executed)
        time.sleep(0.02)
        self._pose.publish(pose_message(np.zeros(2), now))
        self._image.publish(image_message(np.zeros((96, 96, 3), np.uint8), now))


@pytest.fixture
def monitor(monkeypatch: pytest.MonkeyPatch) -> FakeMonitor:
    fake, module = FakeMonitor(), ModuleType("world_model")
    module.load_monitor = lambda folder, policy_folder, interface: fake  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vla_policy.world_model", module)
    monkeypatch.setattr(surprise_monitor_node, "robot_interface", lambda *_: INTERFACE)
    return fake


@pytest.fixture
def running(monitor: FakeMonitor) -> Iterator[tuple]:
    made = spinning(surprise_monitor_node.SurpriseMonitorNode, "calibration:=somewhere")
    with own_domain(1), made as node, closing(Robot()) as robot:
        activate(node)
        yield node, robot


def test_it_sees_what_was_done_and_stops_the_arm_until_the_gate_is_disabled(
    running: tuple, monitor: FakeMonitor
) -> None:
    _, robot = running
    wait_for(lambda: len(monitor.paired()) >= 5 and robot.stops and not robot.stops[-1], "periods without surprise")
    for t, command in monitor.paired():
        assert command[0] == pytest.approx(t % 1000, abs=1e-3)  # of the same period, not an older or newer one

    for publisher, message in ((robot.gate, String(data="idle")), (robot.engagement, UInt64(data=1))):
        resets = monitor.resets
        publisher.publish(message)
        wait_for(lambda resets=resets: monitor.resets > resets, f"{message} being heard")
    wait_for(lambda: not robot.stops[-1], "no stop")
    robot.gate.publish(String(data="running"))
    time.sleep(0.3)
    monitor.surprised, seen, busy = True, len(monitor.seen), Waiting(os.getpid())
    wait_for(lambda: len(monitor.seen) > seen, "the surprise")
    surprised = time.time()
    wait_for(lambda: robot.stops[-1], "the stop")
    assert time.time() - surprised < 0.3 + busy.seconds()  # at once
    monitor.surprised = False
    time.sleep(0.5)
    assert robot.stops[-1]  # it is over, and the arm is held all the same
    assert robot.reasons[-1] == "surprise 3.5 is above 1"

    resets = monitor.resets
    robot.gate.publish(String(data="armed"))  # a policy that is late, in the same episode
    robot.engagement.publish(UInt64(data=1))  # as DDS does after an interruption
    time.sleep(0.3)
    assert robot.stops[-1]
    assert monitor.resets == resets
    robot.gate.publish(String(data="idle"))
    wait_for(lambda: not robot.stops[-1], "the end of the stop")
    assert monitor.resets > resets
    wait_for(lambda: robot.reasons[-1] == "", "the end of its reason")

    resets = monitor.resets
    robot.engagement.publish(UInt64(data=2))
    wait_for(lambda: monitor.resets > resets, "an episode of which no state was heard")


def test_a_monitor_that_cannot_judge_stops_a_running_arm(running: tuple, monitor: FakeMonitor) -> None:
    node, robot = running
    monitor.score = -np.inf
    seen = len(monitor.seen)
    wait_for(lambda: len(monitor.seen) > seen + 15, "more than a second without judgement")
    assert not node.problem()  # nothing moves
    robot.gate.publish(String(data="running"))
    wait_for(lambda: robot.stops[-1], "the stop", 10.0)
    assert unanswered(node.problem()) >= 1.0


def test_a_monitor_that_breaks_stops_the_arm(running: tuple, monitor: FakeMonitor) -> None:
    node, robot = running
    wait_for(lambda: robot.stops and not robot.stops[-1], "a heartbeat that lets the arm move")
    monitor.update = None  # type: ignore[assignment,method-assign]
    wait_for(lambda: "not callable" in node.problem(), "the problem")  # a busy computer has silent streams before
    wait_for(lambda: robot.stops[-1], "the stop")


def test_without_a_calibration_it_is_not_configured() -> None:
    with own_domain(1):
        rclpy.init(args=[])
        node = surprise_monitor_node.SurpriseMonitorNode()
        assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
        assert node.error == "configure: surprise_monitor: parameter 'calibration': expected a folder, found none"
        node.close()
        node.destroy_node()
        rclpy.try_shutdown()


def test_a_monitor_that_hangs_stops_the_arm(running: tuple, monitor: FakeMonitor) -> None:
    node, robot = running
    wait_for(lambda: robot.stops and not robot.stops[-1], "a heartbeat that lets the arm move")
    hangs, update = threading.Event(), monitor.update

    def hang(*inputs):
        hangs.wait()
        return update(*inputs)

    monitor.update = hang  # type: ignore[method-assign]
    try:
        wait_for(lambda: robot.stops[-1], "the stop")
        assert unanswered(node.problem()) >= 1.0
    finally:
        hangs.set()
    wait_for(lambda: not robot.stops[-1], "the end of the stop")


def test_a_monitor_that_hangs_does_not_keep_its_node(
    running: tuple, monitor: FakeMonitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, _ = running
    monkeypatch.setattr(worker, "PATIENCE", 0.2)
    hangs, entered = threading.Event(), threading.Event()

    def hang(*inputs):
        entered.set()
        hangs.wait()

    monitor.update = hang  # type: ignore[method-assign]
    assert entered.wait(60)
    begin = time.monotonic()
    node.close()
    assert time.monotonic() - begin < 10.0
    hangs.set()
