"""The other side of a graph, for tests and benchmarks: a robot that can be told to fail, and a witness of its commands.

For a gate with the contract `pusht_sim` and the heartbeats policy/stop and surprise_monitor/stop.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import rclpy
from geometry_msgs.msg import PoseStamped
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, String
from std_srvs.srv import SetBool
from trajectory_msgs.msg import JointTrajectory

from vla_policy.interfaces import ActionChunk
from vla_policy.messages import seconds
from vla_policy.nodes import common
from vla_policy.nodes.chunks import chunk_message

PATIENCE = 60.0  # seconds, for what takes its time on a busy computer
HELD = 1e-4  # metres that commands may differ by while the arm is held


def wait_for(condition: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
    """Until `condition`; `TimeoutError` naming `what` after `patience` seconds."""
    end = time.monotonic() + patience
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: expected within {patience:g} s, found nothing")
        time.sleep(0.005)


class Spinning(Node):
    """A node whose callbacks run in a thread of its own."""

    def __init__(self, name: str) -> None:
        context = rclpy.Context()
        rclpy.init(context=context, signal_handler_options=SignalHandlerOptions.NO)
        super().__init__(name, context=context)
        self._spinner = SingleThreadedExecutor(context=context)
        self._spinner.add_node(self)
        self._spin_thread = threading.Thread(target=self._spinner.spin, daemon=True)
        self._spin_thread.start()

    def close(self) -> None:
        self._spinner.shutdown(0)
        self._spin_thread.join(2)
        context = self.context
        self.destroy_node()
        rclpy.try_shutdown(context=context)


class Witness(Spinning):
    """Writes down every command that reaches the robot, and how long this computer stood still meanwhile."""

    def __init__(self) -> None:
        super().__init__("witness")
        self.commands: list[tuple[float, np.ndarray]] = []  # stamp, target
        self.state, self.reason = "", ""
        self.stalls: list[tuple[float, float]] = []
        self.create_subscription(PoseStamped, "/pusht_sim/target_pose", self._on_command, common.HEARTBEAT_QOS)
        self.create_subscription(String, "command_gate/state", self._on_state, common.LATCHED_QOS)
        self._closing = threading.Event()
        threading.Thread(target=self._feel, daemon=True).start()

    def close(self) -> None:
        self._closing.set()
        super().close()

    def seconds_to_hold(self, fault: float, watched: float = 0.8) -> float:
        """From the time of a fault until the command from which on the target stays where it is.

        The longest that this computer stood still in between is taken off: nothing runs then, and nothing moves.
        """
        wait_for(lambda: self.state in ("holding", "fault"), "the gate's hold", patience=5.0)
        wait_for(lambda: self.commands and self.commands[-1][0] > fault + watched, "commands while holding", 5.0)
        after = [(t, target) for t, target in self.commands if t > fault]
        last = after[-1][1]
        moving = [t for t, target in after if np.abs(target - last).max() > HELD]
        stalled = max((length for t, length in self.stalls if fault <= t <= fault + watched), default=0.0)
        return max(0.0, (max(moving) if moving else fault) - fault - stalled)

    def moved(self, since: float) -> float:
        """How far apart the targets since then are, in metres."""
        targets = np.array([target for t, target in self.commands if t > since])
        return float(np.ptp(targets, axis=0).max()) if len(targets) else 0.0

    def _on_command(self, message: PoseStamped) -> None:
        p = message.pose.position
        self.commands.append((seconds(message.header.stamp), np.array([p.x, p.y])))

    def _on_state(self, message: String) -> None:
        self.state, _, self.reason = message.data.partition(": ")

    def _feel(self) -> None:
        last = time.time()
        while not self._closing.wait(0.005):
            now = time.time()
            if now - last > 0.02:
                self.stalls.append((now, now - last - 0.005))
            last = now


class FakeRobot(Spinning):
    """Goes where it is told, at once. Its state, the policy's and the monitor's heartbeats come at 50 Hz until they are
    taken out of `alive`; with `simulated` it also is the clock, which `jump` sets.
    """

    def __init__(self, simulated: bool = False) -> None:
        super().__init__("fake_robot")
        self.alive = {"robot", "policy", "monitor"}
        self.jump = 0.0
        self.pose = np.array([0.45, 0.0])
        self._clock_publisher = self.create_publisher(Clock, "/clock", common.STATE_QOS) if simulated else None
        self._state = self.create_publisher(PoseStamped, "/pusht_sim/ee_pose", common.STATE_QOS)
        self.policy = self.create_publisher(Bool, "policy/stop", common.HEARTBEAT_QOS)
        self.monitor = self.create_publisher(Bool, "surprise_monitor/stop", common.HEARTBEAT_QOS)
        self.chunks = self.create_publisher(JointTrajectory, "policy/action_chunk", common.COMMAND_QOS)
        self.teleop = self.create_publisher(JointState, "teleop/target", common.COMMAND_QOS)
        self.emergency = self.create_publisher(Bool, "emergency_stop", common.HEARTBEAT_QOS)
        self.create_subscription(PoseStamped, "/pusht_sim/target_pose", self._on_command, common.COMMAND_QOS)
        self._enable = self.create_client(SetBool, "command_gate/enable")
        self._ticker = common.Ticker(0.02, self._live)

    def close(self) -> None:
        self._ticker.close()
        super().close()

    def now(self) -> float:
        """Its clock."""
        return time.time() + self.jump

    def enable(self, wanted: bool = True) -> SetBool.Response:
        """Arm or disarm the gate; its answer."""
        wait_for(self._enable.service_is_ready, "the gate's service")
        future = self._enable.call_async(SetBool.Request(data=wanted))
        wait_for(future.done, "the gate's answer")
        return future.result()

    def start(self, witness: Witness) -> None:
        """Everybody well, the gate disabled and enabled again, the arm moving."""
        self.alive = {"robot", "policy", "monitor"}
        self.emergency.publish(Bool(data=False))
        wait_for(lambda: self.enable(False).success, "disabling")
        self.pose = np.array([0.45, 0.0])
        time.sleep(0.1)  # the gate hears of all
        wait_for(lambda: self.enable(True).success, "enabling")
        wait_for(lambda: witness.state == "armed", "the armed gate")
        begin, offered = time.time(), 0.0

        def moving() -> bool:
            nonlocal offered
            if time.time() > offered + 0.5:  # again: the gate refuses chunks ahead of its clock, which may lag
                offered = time.time()
                self.offer_motion()
            return witness.moved(begin) > 0.01

        wait_for(moving, "a moving arm")

    def offer(self, rows: np.ndarray, age: float = 0.0, names: tuple[str, ...] = ("x", "y")) -> None:
        """A chunk of these rows, made `age` seconds ago."""
        self.chunks.publish(chunk_message(ActionChunk(rows, self.now() - age, 0.1), names, "base_link"))

    def offer_motion(self, speed: float = 0.1) -> None:
        """A chunk that moves along y for its whole length."""
        steps = speed * 0.1 * np.arange(1, 16)
        self.offer(np.stack([np.full(15, self.pose[0]), self.pose[1] + steps], axis=1))

    def _live(self) -> None:
        if self._clock_publisher is not None:
            self._clock_publisher.publish(Clock(clock=common.stamp(self.now())))
        if "robot" in self.alive:
            self._state.publish(pose_message(self.pose, self.now()))
        for name, publisher in (("policy", self.policy), ("monitor", self.monitor)):
            if name in self.alive:
                publisher.publish(Bool(data=False))

    def _on_command(self, message: PoseStamped) -> None:
        self.pose = np.array([message.pose.position.x, message.pose.position.y])


def pose_message(position: np.ndarray, t: float) -> PoseStamped:
    message = PoseStamped()
    message.header.stamp, message.header.frame_id = common.stamp(t), "base_link"
    message.pose.position.x, message.pose.position.y = map(float, position)
    message.pose.orientation.x, message.pose.orientation.w = 1.0, 0.0  # as the contract of the simulation has it
    return message
