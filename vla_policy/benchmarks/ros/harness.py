"""The other side of a graph, for tests and benchmarks: a robot that can be told to fail, and a witness of its commands.

For a gate with the contract `pusht_sim` and the heartbeats policy/stop and surprise_monitor/stop.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Self

import numpy as np
import psutil
import rclpy
from geometry_msgs.msg import PoseStamped
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Bool, Header, String
from std_srvs.srv import SetBool
from trajectory_msgs.msg import JointTrajectory

from vla_policy.interfaces import ActionChunk
from vla_policy.nodes import common
from vla_policy.nodes.chunks import chunk_message
from vla_policy.robot.messages import seconds

PATIENCE = 60.0  # seconds, for what takes its time on a busy computer
HELD = 1e-4  # metres that commands may differ by while the arm is held
SETTLED = 0.5  # seconds of a hold that are watched
START = np.array([0.45, 0.0])  # metres
HOLDS = ("holding", "fault")


class HeldBefore(RuntimeError):
    """The arm stood still before the fault came, so that it says nothing about the fault."""


def wait_for(condition: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
    """Until `condition`; `TimeoutError` naming `what` after `patience` seconds."""
    end = time.monotonic() + patience
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: expected within {patience:g} s, found nothing")
        time.sleep(0.005)


def stolen() -> float:
    """Seconds of all processors that the host of this virtual computer gave to others; 0 where nothing tells them."""
    return float(getattr(psutil.cpu_times(), "steal", 0.0))


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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._spinner.shutdown(0)
        self._spin_thread.join(2)
        context = self.context
        self.destroy_node()
        rclpy.try_shutdown(context=context)


class Witness(Spinning):
    """Writes down every command that reaches the robot, and what the gate says it is doing.

    Times are those of reception, taken by the middleware on the clock of `time.time`: neither the gate's stamps nor
    this process's own callbacks have a part in them. The middleware's threads run before ordinary ones where the user
    may ask for that, as those of a robot's driver do, so that it is the gate that is timed and not their own waiting.
    """

    def __init__(self) -> None:
        common.ask_for_realtime()  # the node's threads inherit it
        try:
            super().__init__("witness")
        finally:
            common.give_up_realtime()  # but the processes that this thread starts later shall not
        self.commands: list[tuple[float, np.ndarray]] = []  # when received, target
        self.said: list[tuple[float, str, str]] = [(0.0, "", "")]  # when received, state of the gate, reason
        self.stalls: list[tuple[float, float]] = []  # end and length of this process's standstills
        self.stolen: list[tuple[float, float]] = []  # when received, seconds of all processors the host gave to others
        self.seen = 0.0  # when the last picture was received
        self.event = 0.0  # stamp of the first picture that shows the last disturbance of the simulation
        subscribe: Any = self.create_subscription  # whose hints know no callback with information about a message
        subscribe(PoseStamped, "/pusht_sim/target_pose", self._on_command, common.HEARTBEAT_QOS)
        subscribe(String, "command_gate/state", self._on_state, common.LATCHED_QOS)
        subscribe(Image, "/pusht_sim/camera/image_raw", self._on_image, common.IMAGE_QOS)
        self.create_subscription(Header, "/pusht_sim/event", self._on_event, 10)
        self._closing = threading.Event()
        threading.Thread(target=self._feel, daemon=True).start()

    @property
    def state(self) -> str:
        return self.said[-1][1]

    @property
    def reason(self) -> str:
        return self.said[-1][2]

    def close(self) -> None:
        self._closing.set()
        super().close()

    def forget(self) -> None:
        """Begin anew: what was before does not count, and need not be looked through."""
        self.commands.clear()
        self.stalls.clear()
        self.stolen.clear()
        del self.said[:-1]

    def seconds_to_hold(self, fault: float, patience: float = 5.0) -> float:
        """From the time of a fault until the gate says that it holds and the target stays where it is.

        `TimeoutError` if the gate does not hold within `patience` seconds, `HeldBefore` if it did before the fault.
        """
        wait_for(lambda: self.state in HOLDS, "the gate's hold", patience)
        if next((state for t, state, _ in reversed(self.said) if t <= fault), "") in HOLDS:
            raise HeldBefore
        held = next(t for t, state, _ in self.said if t > fault and state in HOLDS)
        wait_for(lambda: self.commands and self.commands[-1][0] > held + SETTLED, "commands while holding", 5.0)
        after = [(t, target) for t, target in self.commands if t > fault]
        moving = [k for k, (_, target) in enumerate(after) if np.abs(target - after[-1][1]).max() > HELD]
        still = after[moving[-1] + 1][0] if moving else fault
        return max(held, still) - fault

    def intervals(self, since: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """When commands were received, seconds since the one before, whether the gate held; while it was enabled."""
        times = np.array([t for t, _ in self.commands if t > since])
        said = list(self.said)
        changes = np.array([t for t, _, _ in said])
        before = np.searchsorted(changes, times[:-1], "right") - 1  # what was said last before either command
        after = np.searchsorted(changes, times[1:], "right") - 1
        pairs = zip(before, after, strict=True)
        enabled = np.array([all(said[k][1] != "idle" for k in range(b, a + 1)) for b, a in pairs], bool)
        held = np.array([said[k][1] in HOLDS for k in after], bool)
        return times[1:][enabled], np.diff(times)[enabled], held[enabled]

    def stood_still(self, since: float) -> float:
        """The longest time since then that this process was not run, in seconds: how busy the computer was."""
        return max((length for t, length in self.stalls if t > since), default=0.0)

    def taken(self, ends: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Seconds of all processors that a virtual computer's host gave to others in each interval between commands."""
        if not len(ends):
            return np.zeros(0)
        times, seconds = np.array(self.stolen).T
        until = seconds[np.searchsorted(times, ends, "right") - 1]
        return until - seconds[np.searchsorted(times, ends - lengths, "right") - 1]

    def moved(self, since: float) -> float:
        """How far apart the targets since then are, in metres."""
        targets = np.array([target for t, target in self.commands if t > since])
        return float(np.ptp(targets, axis=0).max()) if len(targets) else 0.0

    def _on_command(self, message: PoseStamped, info: Any) -> None:
        received, p = 1e-9 * info["received_timestamp"], message.pose.position
        self.stolen.append((received, stolen()))
        self.commands.append((received, np.array([p.x, p.y])))

    def _on_image(self, message: Image, info: Any) -> None:
        self.seen = 1e-9 * info["received_timestamp"]

    def _on_event(self, message: Header) -> None:
        self.event = seconds(message.stamp)

    def _on_state(self, message: String, info: Any) -> None:
        state, _, reason = message.data.partition(": ")
        self.said.append((1e-9 * info["received_timestamp"], state, reason))

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
        self.pose = START.copy()
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
        self._arm(witness)
        begin, offered = time.time(), 0.0

        def moving() -> bool:
            nonlocal begin, offered
            if witness.state in HOLDS:  # a busy computer stopped it
                self._arm(witness)
                begin, offered = time.time(), 0.0
            if time.time() > offered + 0.5:  # again: the gate refuses chunks ahead of its clock, which may lag
                offered = time.time()
                self.offer_motion()
            return witness.state == "running" and witness.moved(begin) > 0.01

        wait_for(moving, "a moving arm")

    def _arm(self, witness: Witness) -> None:
        """The gate disabled and enabled again, where the arm began."""

        def armed() -> bool:
            self.enable(False)  # acknowledges a fault
            witness.forget()
            self.pose = START.copy()
            time.sleep(0.1)  # the gate hears of all
            return bool(self.enable().success)

        wait_for(armed, "enabling")
        wait_for(lambda: any(state == "armed" for _, state, _ in witness.said[1:]), "the armed gate")

    def offer(self, rows: np.ndarray, age: float = 0.0, names: tuple[str, ...] = ("x", "y")) -> None:
        """A chunk of these rows, made `age` seconds ago."""
        self.chunks.publish(chunk_message(ActionChunk(rows, self.now() - age, 0.1), names, "base_link"))

    def offer_motion(self, speed: float = 0.1) -> None:
        """A chunk that moves along y for its whole length."""
        steps = speed * 0.1 * np.arange(1, 16)
        self.offer(np.stack([np.full(15, self.pose[0]), self.pose[1] + steps], axis=1))

    def publish_state(self) -> None:
        self._state.publish(pose_message(self.pose, self.now()))

    def _live(self) -> None:
        if self._clock_publisher is not None:
            self._clock_publisher.publish(Clock(clock=common.stamp(self.now())))
        if "robot" in self.alive:
            self.publish_state()
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
