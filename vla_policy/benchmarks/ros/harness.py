"""Test harness for a graph: a fake robot with injectable faults, and a witness of the commands.

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
from rclpy.client import Client
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

PATIENCE = 60.0  # seconds; generous, for a busy computer
ANSWER = 5.0  # seconds without a response after which a service is asked again
HELD = 1e-4  # metres by which commands may differ while the arm is held
SETTLED = 0.5  # seconds of a hold that are observed
START = np.array([0.45, 0.0])  # metres
HOLDS = ("holding", "fault")


class HeldBefore(RuntimeError):
    """The arm was held before the fault: nothing was measured."""


def wait_for(condition: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
    """Wait for `condition`; `TimeoutError` naming `what` after `patience` seconds."""
    end = time.monotonic() + patience
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: expected within {patience:g} s, found nothing")
        time.sleep(0.005)


def steal_time() -> float:
    """CPU steal time of this virtual machine in seconds, summed over processors; 0 where it is not reported."""
    return float(getattr(psutil.cpu_times(), "steal", 0.0))


class Spinning(Node):
    """A node whose callbacks run in their own thread."""

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
    """Records every command that reaches the robot, and the gate's states.

    Times are the middleware's receive times, on the clock of `time.time`, independent of the gate's stamps and of this
    process's callbacks. The middleware's threads run with real-time priority where permitted, as those of a robot's
    driver do, so that the gate's delays are measured and not the witness's.
    """

    def __init__(self) -> None:
        common.request_realtime()  # the node's threads inherit it
        try:
            super().__init__("witness")
        finally:
            common.drop_realtime()  # for processes that this thread starts later
        self.commands: list[tuple[float, np.ndarray]] = []  # when received, target
        self.gate_states: list[tuple[float, str, str]] = [(0.0, "", "")]  # receive time, state, reason
        self.stalls: list[tuple[float, float]] = []  # end and length of intervals without this process being scheduled
        self.steal_times: list[tuple[float, float]] = []  # receive time, cumulative CPU steal time
        self.seen = 0.0  # receive time of the last image
        self.event = 0.0  # stamp of the first image that shows the simulation's last disturbance
        subscribe: Any = self.create_subscription  # its type hints lack callbacks with message info
        subscribe(PoseStamped, "/pusht_sim/target_pose", self._on_command, common.HEARTBEAT_QOS)
        subscribe(String, "command_gate/state", self._on_state, common.LATCHED_QOS)
        subscribe(Image, "/pusht_sim/camera/image_raw", self._on_image, common.IMAGE_QOS)
        self.create_subscription(Header, "/pusht_sim/event", self._on_event, 10)
        self._closing = threading.Event()
        threading.Thread(target=self._watch_stalls, daemon=True).start()

    @property
    def state(self) -> str:
        return self.gate_states[-1][1]

    @property
    def reason(self) -> str:
        return self.gate_states[-1][2]

    def close(self) -> None:
        self._closing.set()
        super().close()

    def forget(self) -> None:
        """Discard what was recorded."""
        self.commands.clear()
        self.stalls.clear()
        self.steal_times.clear()
        del self.gate_states[:-1]

    def seconds_to_hold(self, fault: float, patience: float = 5.0) -> float:
        """From the time of a fault until the gate reports a hold and the target stays constant.

        `TimeoutError` if the gate does not hold within `patience` seconds, `HeldBefore` if it held before the fault.
        """
        wait_for(lambda: self.state in HOLDS, "the gate's hold", patience)
        if next((state for t, state, _ in reversed(self.gate_states) if t <= fault), "") in HOLDS:
            raise HeldBefore
        held = next(t for t, state, _ in self.gate_states if t > fault and state in HOLDS)
        wait_for(lambda: self.commands and self.commands[-1][0] > held + SETTLED, "commands while holding", 5.0)
        after = [(t, target) for t, target in self.commands if t > fault]
        moving = [k for k, (_, target) in enumerate(after) if np.abs(target - after[-1][1]).max() > HELD]
        still = after[moving[-1] + 1][0] if moving else fault
        return max(held, still) - fault

    def intervals(self, since: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Receive times of commands, intervals to the previous one, and whether the gate held; while it was enabled."""
        times = np.array([t for t, _ in self.commands if t > since])
        states = list(self.gate_states)
        changes = np.array([t for t, _, _ in states])
        before = np.searchsorted(changes, times[:-1], "right") - 1  # the last state before either command
        after = np.searchsorted(changes, times[1:], "right") - 1
        pairs = zip(before, after, strict=True)
        enabled = np.array([all(states[k][1] != "idle" for k in range(b, a + 1)) for b, a in pairs], bool)
        held = np.array([states[k][1] in HOLDS for k in after], bool)
        return times[1:][enabled], np.diff(times)[enabled], held[enabled]

    def stood_still(self, since: float) -> float:
        """The longest time since then that this process was not scheduled, in seconds: a measure of load."""
        return max((length for t, length in self.stalls if t > since), default=0.0)

    def steal_per_interval(self, ends: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """CPU steal time in seconds, summed over processors, in each interval between commands."""
        if not len(ends):
            return np.zeros(0)
        times, seconds = np.array(self.steal_times).T
        until = seconds[np.searchsorted(times, ends, "right") - 1]
        return until - seconds[np.searchsorted(times, ends - lengths, "right") - 1]

    def moved(self, since: float) -> float:
        """The range of the targets since then, in metres."""
        targets = np.array([target for t, target in self.commands if t > since])
        return float(np.ptp(targets, axis=0).max()) if len(targets) else 0.0

    def _on_command(self, message: PoseStamped, info: Any) -> None:
        received, p = 1e-9 * info["received_timestamp"], message.pose.position
        self.steal_times.append((received, steal_time()))
        self.commands.append((received, np.array([p.x, p.y])))

    def _on_image(self, message: Image, info: Any) -> None:
        self.seen = 1e-9 * info["received_timestamp"]

    def _on_event(self, message: Header) -> None:
        self.event = seconds(message.stamp)

    def _on_state(self, message: String, info: Any) -> None:
        state, _, reason = message.data.partition(": ")
        self.gate_states.append((1e-9 * info["received_timestamp"], state, reason))

    def _watch_stalls(self) -> None:
        last = time.time()
        while not self._closing.wait(0.005):
            now = time.time()
            if now - last > 0.02:
                self.stalls.append((now, now - last - 0.005))
            last = now


def answer(client: Client, request: Any, whose: str) -> Any:
    """The response of `whose` service, which is asked again where it answers before it knows the client: Fast DDS drops
    that answer.
    """
    wait_for(client.service_is_ready, f"{whose}'s service")
    asked = [(time.monotonic(), client.call_async(request))]

    def answered() -> bool:
        if time.monotonic() > asked[-1][0] + ANSWER:
            asked.append((time.monotonic(), client.call_async(request)))
        return any(future.done() for _, future in asked)

    wait_for(answered, f"{whose}'s answer")
    return next(future.result() for _, future in asked if future.done())


class FakeRobot(Spinning):
    """A robot that follows commands instantly. Its state and the heartbeats of policy and monitor are published at
    50 Hz while they are in `alive`; with `simulated` it also publishes the clock, offset by `jump`.
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
        """Its clock in seconds."""
        return time.time() + self.jump

    def enable(self, wanted: bool = True) -> SetBool.Response:
        """Arm or disarm the gate and return its response."""
        return answer(self._enable, SetBool.Request(data=wanted), "the gate")

    def start(self, witness: Witness) -> None:
        """Restore all publishers, re-enable the gate and get the arm moving."""
        self.alive = {"robot", "policy", "monitor"}
        self.emergency.publish(Bool(data=False))
        self._arm(witness)
        begin, offered = time.time(), 0.0

        def moving() -> bool:
            nonlocal begin, offered
            if witness.state in HOLDS:  # a busy computer stopped it
                self._arm(witness)
                begin, offered = time.time(), 0.0
            if time.time() > offered + 0.5:  # retry: the gate refuses chunks ahead of its clock, which may lag
                offered = time.time()
                self.offer_motion()
            return witness.state == "running" and witness.moved(begin) > 0.01

        wait_for(moving, "a moving arm")

    def _arm(self, witness: Witness) -> None:
        """Disable and enable the gate, with the arm at its start."""

        def armed() -> bool:
            self.enable(False)  # acknowledges a fault
            witness.forget()
            self.pose = START.copy()
            time.sleep(0.1)  # for the gate to receive state and heartbeats
            return bool(self.enable().success)

        wait_for(armed, "enabling")
        wait_for(lambda: any(state == "armed" for _, state, _ in witness.gate_states[1:]), "the armed gate")

    def offer(self, rows: np.ndarray, age: float = 0.0, names: tuple[str, ...] = ("x", "y")) -> None:
        """Publish a chunk of these rows, stamped `age` seconds ago."""
        self.chunks.publish(chunk_message(ActionChunk(rows, self.now() - age, 0.1), names, "base_link"))

    def offer_motion(self, speed: float = 0.1) -> None:
        """Publish a chunk that moves along y for its whole length, away from the nearer side of the workspace.

        The gate keeps its set-point through an enabling, so that chunks of one direction would end at that side.
        """
        direction = -1.0 if self.pose[1] > START[1] else 1.0
        steps = direction * speed * 0.1 * np.arange(1, 16)
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
