"""The only publisher of commands to the robot: executes chunks within limits and holds when an input times out."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.duration import Duration
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, String, UInt64
from std_srvs.srv import SetBool
from trajectory_msgs.msg import JointTrajectory

from vla_policy.interfaces import STATE, ActionChunk, DataError, Refused
from vla_policy.nodes import common
from vla_policy.nodes.commands import encode, pose, standstill
from vla_policy.nodes.controller import Controller
from vla_policy.nodes.perception import listen
from vla_policy.robot.contract import load_contract
from vla_policy.robot.kinematics import JointTargets, NoSolution
from vla_policy.robot.messages import Reader, away_from_constants, chunk_of, is_from, joints, seconds, tip
from vla_policy.runtime import Command, Gate, State, Timing, gate_config
from vla_policy.runtime.contract import EMERGENCY_STOP

PUBLISHERS_EVERY = 10  # ticks between two checks for other publishers
ACKNOWLEDGEMENT_TIMEOUT = 0.5  # seconds to wait at shutdown until the robot has received the last command
EMERGENCY_STOPS = (EMERGENCY_STOP, "teleop/emergency_stop", "web/emergency_stop")


class CommandGateNode(Node):
    """`runtime.Gate` between the policy, teleoperation and the robot. Disabled until `~/enable` is called with true.

    It runs with real-time priority where the user is permitted to, so that no other process delays a command.
    """

    def __init__(self) -> None:
        self._realtime = common.request_realtime()  # before there are threads, which inherit it
        super().__init__("command_gate")
        self._contract = load_contract(common.parameter(self, "contract", "pusht_sim", "robot contract: name or file"))
        self._dry_run = common.parameter(self, "dry_run", True, "send nothing to the robot, only command/executed")
        heartbeats = common.parameter(
            self, "heartbeats", ["policy/stop"], "Bool topics: the arm holds while one is true or silent"
        )
        heartbeats = list(filter(None, heartbeats))  # ROS parameters cannot be an empty list
        self._gate = Gate(gate_config(self._contract, heartbeats, self._dry_run))
        self._names = list(self._contract.interface.action.names)
        self._period = 1.0 / self._contract.interface.fps
        self._latency, self._jitter = Timing(), Timing()
        self._lock = threading.Lock()  # ticks run in their own thread
        self._ticks, self._last_tick = 0, 0.0
        self._last_chunk: ActionChunk | None = None
        self._status: tuple[State, str] | None = None
        self._rival: str | None = None  # the fault that was reported for another publisher of commands
        self._connect(heartbeats)

    def _connect(self, heartbeats: list[str]) -> None:
        command, state = self._contract.command, self._contract.stream(STATE)
        self._setpoint_resets = 0
        self._joints = None
        if command.ik_output is not None and command.ik_output.inverse is not None:
            self._joints = JointTargets(command.ik_output.inverse, command.rate, followed=not self._dry_run)
        # Reentrant: the arm can be disabled while a controller is being queried before enabling.
        reentrant, self._requests = ReentrantCallbackGroup(), 0
        self._robot, self._controllers = [], []  # one an output
        for output in () if self._dry_run else command.outputs:
            publisher = self.create_publisher(common.message_class(output.type), output.topic, common.COMMAND_QOS)
            self._robot.append(publisher)
            self._controllers.append(Controller(self, publisher, output, reentrant))
        self._executed = self.create_publisher(JointState, "command/executed", 10)
        self._state = self.create_publisher(String, "~/state", common.LATCHED_QOS)
        self._engagement = self.create_publisher(UInt64, "~/engagement", common.LATCHED_QOS)
        self._is_dry = self.create_publisher(Bool, "~/dry_run", common.LATCHED_QOS)
        self._is_dry.publish(Bool(data=self._dry_run))
        self._reader = Reader([state])
        self._constant_errors: dict[str, str] = {}  # by the output's topic
        listen(self, self._reader, self._on_state)
        self.create_subscription(JointTrajectory, "policy/action_chunk", self._on_chunk, common.COMMAND_QOS)
        self.create_subscription(JointState, "teleop/target", self._on_teleop, common.COMMAND_QOS)
        for name in EMERGENCY_STOPS:
            incompatible = partial(self._on_incompatible_publisher, name)
            events = SubscriptionEventCallbacks(incompatible_qos=incompatible, incompatible_type=incompatible)
            on_stop = partial(self._on_emergency_stop, name)
            common.subscribe_with_latched(self, Bool, name, on_stop, common.HEARTBEAT_QOS, events)
        single = ["policy/action_chunk", "teleop/target", *heartbeats, *EMERGENCY_STOPS]
        self._most_publishers = Counter(source.topic for source in state.sources) + Counter(single)
        for name in heartbeats:
            self.create_subscription(Bool, name, partial(self._on_heartbeat, name), common.HEARTBEAT_QOS)
            self.create_subscription(String, f"{name}_reason", partial(self._on_reason, name), common.LATCHED_QOS)
        self.create_service(SetBool, "~/enable", self._on_enable, callback_group=reentrant)
        self._diagnostics = common.Diagnostics(self, self._report)
        self._ticker = common.Ticker(1.0 / command.rate, self._tick)

    def close(self) -> None:
        self._ticker.close()
        self._send_standstill()
        for publisher in self._robot:
            publisher.wait_for_all_acked(Duration(seconds=ACKNOWLEDGEMENT_TIMEOUT))  # else lost when the process ends

    @contextmanager
    def _gated(self) -> Iterator[Gate]:
        """The gate under its lock. Messages that do not match the contract are a fault."""
        with self._lock:
            try:
                yield self._gate
            except DataError as error:
                self._gate.supervisor.fault(str(error))

    def _age(self, message: Any) -> float:
        return common.now(self) - seconds(message.header.stamp)

    def _on_state(self, topic: str, message: Any) -> None:
        with self._gated() as gate:
            samples = self._reader.read(topic, message, seconds(message.header.stamp))
            now = common.now(self)
            taken = [
                gate.measure(sample.value.astype(float), common.steady(), now - sample.stamp) for sample in samples
            ]
            sources = [source for source in self._contract.stream(STATE).sources if is_from(message, topic, source)]
            for output in self._contract.command.outputs:
                if any(set(output.channels) & set(source.channels) for source in sources):
                    self._constant_errors[output.topic] = away_from_constants(message, output, gate.following)
            gate.pose_error = "; ".join(filter(None, self._constant_errors.values()))
            if self._joints is not None and any(taken) and any(source.kinematics is not None for source in sources):
                self._joints.measure(joints(message, self._joints.kinematics, topic))

    def _on_chunk(self, message: JointTrajectory) -> None:
        with self._gated() as gate:
            gate.offer(chunk_of(message, self._names), common.now(self))

    def _on_teleop(self, message: JointState) -> None:
        with self._gated() as gate:
            if list(message.name) != self._names:
                raise DataError(f"teleop/target: expected {self._names}, found {list(message.name)}")
            gate.teleoperate(np.array(message.position), common.steady(), self._age(message))

    def _on_heartbeat(self, name: str, message: Bool) -> None:
        with self._gated() as gate:
            gate.heartbeat(name, message.data, common.steady())

    def _on_reason(self, name: str, message: String) -> None:
        with self._gated() as gate:
            gate.explain(name, message.data)

    def _on_emergency_stop(self, name: str, message: Bool) -> None:
        with self._gated() as gate:
            gate.heartbeat(name, message.data, common.steady())
            if message.data:
                gate.supervisor.fault("emergency stop")

    def _on_incompatible_publisher(self, name: str, event: Any) -> None:
        """An emergency stop whose messages cannot be received is a fault."""
        with self._lock:
            self._gate.supervisor.fault(f"{name}: a publisher of it is not reliable or sends no Bool")

    async def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._requests += 1
        number, obstacle = self._requests, ""
        if request.data:
            obstacle = "; ".join(filter(None, [await controller.obstacle() for controller in self._controllers]))
        with self._lock:
            try:
                if request.data:
                    if obstacle or number != self._requests:
                        raise Refused(f"cannot enable: {obstacle or 'another request came meanwhile'}")
                    self._require_singles()
                    if self._gate.enable(common.now(self), common.steady()):
                        self._engagement.publish(UInt64(data=time.time_ns()))  # another one, also after a restart
                else:
                    self._gate.disable()
                    self._send_standstill()
                response.success, response.message = True, str(self._gate.supervisor.state)
            except Refused as error:
                response.success, response.message = False, str(error)
            self._publish_status()
        return response

    def _tick(self) -> None:
        with self._lock:
            self._send_due_command()

    def _send_due_command(self) -> None:
        steady, now = common.steady(), common.now(self)
        if self._last_tick:
            self._jitter.add(abs(steady - self._last_tick - 1.0 / self._contract.command.rate))
        self._last_tick = steady
        if self._ticks % PUBLISHERS_EVERY == 0:
            self._check_publishers()
        self._ticks += 1
        command = self._gate.tick(now, steady)
        if command is not None:
            self._send(command, now)
        self._publish_status()

    def _check_publishers(self) -> None:
        for publisher in self._robot:
            topic = publisher.topic_name
            if (count := self.count_publishers(topic)) > 1:
                found = f"{count - 1}{self._publishers_of(topic)}"
                reason = f"{topic}: expected no other publisher, found {found}"
                supervisor = self._gate.supervisor
                if supervisor.reason == self._rival:  # names become known after the publishers
                    supervisor.reason = reason
                supervisor.fault(reason)
                self._rival = reason
        try:
            self._require_singles()
        except Refused as error:
            self._gate.supervisor.hold(str(error))

    def _require_singles(self) -> None:
        """`Refused` if a topic of targets, heartbeats or the state has more publishers than expected."""
        for name, most in self._most_publishers.items():
            topic = self.resolve_topic_name(name)
            if (count := self.count_publishers(topic)) > most:
                expected = "one publisher" if most == 1 else f"{most} publishers"
                found = f"{count}{self._publishers_of(topic)}"
                raise Refused(f"{topic}: expected {expected}, found {found}; a killed one counts for some seconds")

    def _publishers_of(self, topic: str) -> str:
        return f" (from {', '.join(common.endpoints(self.get_publishers_info_by_topic(topic)))})"

    def _send(self, command: Command, now: float) -> None:
        spec, action, target = self._contract.command, command.action.copy(), None
        if self._joints is not None and spec.ik_output is not None:
            if self._setpoint_resets != self._gate.setpoint_resets:
                self._joints.reset()
                self._setpoint_resets = self._gate.setpoint_resets
            target = self._follow(self._joints, pose(spec.ik_output, spec.ik_output.part(action)))
            action[list(spec.ik_output.channels)] = tip(target, spec.ik_output.fields, self._joints.kinematics)
        # A velocity computed towards the held pose would run away if the measured one is stale: holding only brakes.
        measured = None if command.status == "hold" else self._gate.measured
        for output, publisher in zip(spec.outputs, self._robot, strict=False):  # none in a dry run
            part, velocity = output.part(command.action), output.velocity(self._gate.velocity)
            if self._joints is not None and target is not None and output is spec.ik_output:
                part, velocity = target, self._joints.velocity
            here = None if measured is None else output.part(measured)
            publisher.publish(encode(output, part, velocity, here, now, self._period))
        executed = JointState(name=self._names, position=action.tolist())
        executed.header.stamp, executed.header.frame_id = common.stamp(now), spec.frame_id
        self._executed.publish(executed)
        chunk = self._gate.chunk
        if chunk is not self._last_chunk and chunk is not None and command.status != "hold":
            self._latency.add(now - chunk.t_obs)
        self._last_chunk = chunk

    def _follow(self, targets: JointTargets, pose: np.ndarray) -> np.ndarray:
        """The joints (n,) on the way to a tip pose (7,). Without a solution the gate holds at the last joints."""
        try:
            return targets.follow(pose)
        except NoSolution as error:
            self._gate.take_back(str(error))
            return targets.hold()

    def _send_standstill(self) -> None:
        """Stop outputs whose last command persists (velocities)."""
        for output, publisher in zip(self._contract.command.outputs, self._robot, strict=False):
            message = standstill(output, common.now(self))
            if message is not None:
                publisher.publish(message)

    def _publish_status(self) -> None:
        """Publish state and reason whenever they change."""
        status = (self._gate.supervisor.state, self._gate.supervisor.reason)
        if status != self._status:
            self._status = status
            text = ": ".join(filter(None, map(str, status)))
            self._state.publish(String(data=text))
            if status[1]:
                self.get_logger().warning(text)
            self._diagnostics.publish()

    def _report(self) -> tuple[bytes, str, dict[str, Any]]:
        state, reason = self._gate.supervisor.state, self._gate.supervisor.reason
        level = {State.HOLDING: common.Diagnostics.WARN, State.FAULT: common.Diagnostics.ERROR}
        values = {
            "state": state,
            "reason": reason,
            "dry_run": self._dry_run,
            "realtime": self._realtime,
            "teleoperated": self._gate.teleoperated,
            **common.flat("observation_to_command_ms", self._latency.summary()),
            **common.flat("jitter_ms", self._jitter.summary()),
            **common.flat("refused", self._gate.refused),
        }
        return level.get(state, common.Diagnostics.OK), reason or str(state), values


def main() -> None:
    common.run(CommandGateNode)


if __name__ == "__main__":
    main()
