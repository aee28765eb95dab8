"""What a graph says, as the state that the page shows."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64, String
from trajectory_msgs.msg import JointTrajectory

from vla_policy.interfaces import STATE, ActionChunk, DataError
from vla_policy.nodes import common
from vla_policy.nodes.perception import listen
from vla_policy.robot.contract import SIMULATED, Contract
from vla_policy.robot.messages import Reader, chunk_of, seconds
from vla_policy.web.view import View

STALE = 1.0  # seconds after which a state, a command or a chunk is no longer shown
SILENT = 3.0  # seconds without diagnostics, which come every second, after which a node counts as gone
SCORES = 50  # of the monitor that a new state repeats, so that a slow page misses none


class Heard:
    """Listens with `node`; `views` are the contract's cameras, and `on_picture` is called after each picture."""

    def __init__(self, node: Node, contract: Contract, on_picture: Callable[[], None]) -> None:
        self._node, self._contract, self._on_new_picture = node, contract, on_picture
        self._names = list(contract.interface.action.names)
        self.views = [View(contract.stream(key), contract.timeouts.camera) for key in contract.interface.cameras]
        self._texts = {"gate": "", "recorder": "", "task": contract.task}
        self._vectors: dict[str, tuple[float, list[float]]] = {}  # of state and command, with their time
        self._chunk: ActionChunk | None = None
        self._scores: deque[float] = deque(maxlen=SCORES)
        self._scored, self._coverage = 0, float("nan")
        self._reports: dict[str, tuple[float, dict[str, str]]] = {}  # of every node, with its time
        self._subscribe()

    def _subscribe(self) -> None:
        node = self._node
        for view in self.views:
            source, on_picture = view.stream.source, partial(self._on_picture, view)
            node.create_subscription(common.message_class(source.type), source.topic, on_picture, common.IMAGE_QOS)
        self._reader = Reader([self._contract.stream(STATE)])
        listen(node, self._reader, self._on_state)
        node.create_subscription(JointState, "command/executed", self._on_command, 10)
        node.create_subscription(JointTrajectory, "policy/action_chunk", self._on_chunk, common.COMMAND_QOS)
        node.create_subscription(Float64, "surprise_monitor/surprise", self._on_surprise, 50)
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 50)
        for name, topic in (("gate", "command_gate/state"), ("recorder", "recorder/status")):
            node.create_subscription(String, topic, partial(self._on_text, name), common.LATCHED_QOS)
        common.subscribe_with_latched(node, String, "task", partial(self._on_text, "task"), common.COMMAND_QOS)
        if self._contract.robot_type == SIMULATED:
            node.create_subscription(Float64, "pusht_sim/coverage", self._on_coverage, 10)

    @property
    def pointed(self) -> View:
        """The camera of the contract's `pointing`, where there is one."""
        return next(view for view in self.views if view.is_of(self._contract.pointing))

    def status(self) -> dict[str, Any]:
        """What is so now; of nodes that are gone nothing."""
        since = common.steady() - SILENT
        reports = {name: values for name, (t, values) in list(self._reports.items()) if t > since}
        gate, _, reason = self._texts["gate"].partition(": ") if "command_gate" in reports else ("", "", "")
        return {
            "gate": gate,
            "reason": reason,
            "dry_run": reports.get("command_gate", {}).get("dry_run") == "True",
            "recorder": (self._texts["recorder"] or "ready") if "recorder" in reports else "",
            "task": self._texts["task"],
            "state": self._recent("state"),
            "command": self._recent("command"),
            "silent": [view.silent for view in self.views],
            "chunk": self._drawable(),
            "surprise": self._surprise(reports["surprise_monitor"]) if "surprise_monitor" in reports else None,
            "latency": _latencies(reports),
            "coverage": self._coverage,
        }

    def _recent(self, name: str) -> list[float] | None:
        t, values = self._vectors.get(name, (-np.inf, []))
        return values if common.steady() < t + STALE else None

    def _drawable(self) -> dict[str, Any] | None:
        """The chunk's way through the pointing camera's picture, in parts of its size, and the row that is due."""
        chunk, pointing = self._chunk, self._contract.pointing
        if chunk is None or pointing is None:
            return None
        due = (common.now(self._node) - chunk.t_obs) / chunk.dt
        if due > len(chunk.actions) + STALE / chunk.dt:
            return None
        places = chunk.actions[:, [self._names.index(name) for name in pointing.channels]]
        return {"way": self.pointed.parts(pointing.pixels(places)).round(4).tolist(), "due": due}

    def _surprise(self, report: Mapping[str, str]) -> dict[str, Any]:
        return {"n": self._scored, "scores": list(self._scores), "threshold": report.get("threshold", "")}

    def _on_picture(self, view: View, message: Any) -> None:
        view.put(message)
        self._on_new_picture()

    def _on_state(self, topic: str, message: Any) -> None:
        try:
            for sample in self._reader.read(topic, message, seconds(message.header.stamp)):
                self._vectors["state"] = common.steady(), sample.value.tolist()
        except DataError as error:
            self._node.get_logger().warning(str(error), throttle_duration_sec=1.0)

    def _on_command(self, message: JointState) -> None:
        if list(message.name) == self._names:
            self._vectors["command"] = common.steady(), list(message.position)

    def _on_chunk(self, message: JointTrajectory) -> None:
        try:
            self._chunk = chunk_of(message, self._names)
        except DataError as error:  # the gate refuses it too
            self._node.get_logger().warning(str(error), throttle_duration_sec=1.0)

    def _on_surprise(self, message: Float64) -> None:
        self._scores.append(message.data)
        self._scored += 1

    def _on_coverage(self, message: Float64) -> None:
        self._coverage = message.data

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            values = {pair.key: pair.value for pair in status.values}
            self._reports[status.name.lstrip("/")] = common.steady(), values

    def _on_text(self, name: str, message: String) -> None:
        self._texts[name] = message.data


def _latencies(reports: Mapping[str, Mapping[str, str]]) -> list[dict[str, str]]:
    """The percentiles that the nodes report, in milliseconds."""
    found = []
    for node, values in sorted(reports.items()):
        for key in values:
            name, _, which = key.rpartition(".")
            if which == "p50" and name.endswith("_ms"):
                numbers = {p: values.get(f"{name}.{p}", "") for p in ("p50", "p95", "p99")}
                found.append({"node": node, "name": name.removesuffix("_ms").replace("_", " "), **numbers})
    return found
