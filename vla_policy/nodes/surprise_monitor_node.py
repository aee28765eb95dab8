"""The surprise monitor as a lifecycle node: observations and commands in, surprise scores and a stop heartbeat out."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64, String, UInt64
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from vla_policy.interfaces import ActionChunk, DataError, InputError
from vla_policy.monitoring import Surprise
from vla_policy.nodes import common
from vla_policy.nodes.lifecycle import ModelNode
from vla_policy.nodes.model import SHIPPED, robot_interface, share_process, shipped_policy
from vla_policy.nodes.perception import Perception
from vla_policy.robot.contract import load_contract
from vla_policy.robot.messages import chunk_of, seconds
from vla_policy.runtime import Period, Periods, Timing, Worker


class SurpriseMonitorNode(ModelNode):
    """Scores every control period in a thread; after an alarm it requests a stop until `~/reset` or a disabled gate.

    While the gate executes chunks, a monitor that cannot score (gaps in images or commands) counts as late.
    """

    def __init__(self) -> None:
        self._worker: Worker | None = None
        self._update, self._surprised = Timing(), ""
        self._score, self._threshold = float("nan"), float("nan")
        self._gate_state, self._engagement = "", 0
        super().__init__("surprise_monitor")
        self._calibration = common.parameter(self, "calibration", "", "folder of a calibrated monitor")
        self._checkpoint = common.parameter(self, "checkpoint", "", f"the monitored policy; empty: {SHIPPED}")
        self._contract = common.parameter(self, "contract", "pusht_sim", "robot contract: name or file")
        self._threads = common.parameter(self, "threads", 1, "of torch on a CPU", (1, 256))

    def load(self) -> None:
        if not self._calibration:
            raise InputError("surprise_monitor: parameter 'calibration': expected a folder, found none")
        contract = load_contract(self._contract)
        share_process(self._threads)
        checkpoint = self._checkpoint or shipped_policy()
        interface = robot_interface(contract, checkpoint)
        self._task, self._names = contract.task, list(contract.interface.action.names)
        from vla_policy.world_model import load_monitor  # needs torch

        self._monitor = load_monitor(self._calibration, checkpoint, interface)
        self._periods = Periods(1.0 / interface.fps, 1.0 / contract.command.rate)
        self._chunk: ActionChunk | None = None
        self._lock = threading.Lock()  # the monitor runs in the worker's thread
        self.perception = Perception(self, contract, interface.observations, self._on_sample)
        self._worker = Worker(self._score_periods, self._on_surprises, self.broken)
        self._surprise = self.create_lifecycle_publisher(Float64, "~/surprise", 10)
        self._inputs = [
            self.create_subscription(JointState, "command/executed", self._on_command, 10),
            self.create_subscription(String, "command_gate/state", self._on_gate, common.LATCHED_QOS),
            self.create_subscription(UInt64, "command_gate/engagement", self._on_engagement, common.LATCHED_QOS),
            self.create_subscription(JointTrajectory, "policy/action_chunk", self._on_chunk, common.COMMAND_QOS),
        ]
        self._reset = self.create_service(Trigger, "~/reset", self._on_reset)

    def begin(self) -> None:
        self._clear()

    def free(self) -> None:
        if self._worker is not None:
            self._worker.close()
            self._worker = None
            self.destroy_publisher(self._surprise)
            for subscription in self._inputs:
                self.destroy_subscription(subscription)
            self.destroy_service(self._reset)

    def problem(self) -> str:
        return super().problem() or self._surprised

    def values(self) -> dict[str, Any]:
        scores = {"surprise": self._score, "threshold": self._threshold}
        return {**scores, **common.flat("update_ms", self._update.summary())}

    def _clear(self) -> None:
        with self._lock:
            self._monitor.reset()
            self._surprised = ""
        self._periods.clear()
        if self.perception is not None:
            self.perception.buffer.clear(common.now(self))

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._clear()
        response.success = True
        return response

    def _on_gate(self, message: String) -> None:
        self._gate_state = message.data.partition(":")[0]
        if self._gate_state == "idle":
            self._clear()

    def _on_engagement(self, message: UInt64) -> None:
        if message.data != self._engagement:  # the last one is sent again after an interruption
            self._engagement = message.data
            self._clear()

    def _on_command(self, message: JointState) -> None:
        self._periods.command(seconds(message.header.stamp), np.array(message.position))
        self._ask()

    def _on_chunk(self, message: JointTrajectory) -> None:
        try:
            self._chunk = chunk_of(message, self._names)
        except DataError as error:  # the gate rejects it; this node continues
            self.get_logger().warning(str(error))

    def _on_sample(self) -> None:
        observation = None if self.perception is None else self.perception.buffer.newest(self._task)
        if observation is not None:
            self._periods.observe(observation)
            self._ask()

    def _ask(self) -> None:
        if self.active and self._worker is not None and not self._worker.busy and (periods := self._periods.take()):
            self._worker.ask((periods, self._chunk))

    def _score_periods(self, request: tuple[list[Period], ActionChunk | None]) -> list[Surprise]:
        periods, chunk = request
        begin = common.steady()
        with self._lock:
            surprises = [self._monitor.update(period.observation, period.command, chunk) for period in periods]
        self._update.add((common.steady() - begin) / len(periods))
        return surprises

    def _on_surprises(self, surprises: list[Surprise]) -> None:
        for surprise in surprises:
            if surprise.score > -np.inf or self._gate_state != "running":
                self.answered()
            self._score, self._threshold = surprise.score, surprise.threshold
            self._surprise.publish(Float64(data=float(surprise.score)))
            if surprise.is_surprised and not self._surprised:
                self._surprised = f"surprise {surprise.score:.3g} is above {surprise.threshold:.3g}"
                self.beat()  # at once


def main() -> None:
    common.run(SurpriseMonitorNode)


if __name__ == "__main__":
    main()
