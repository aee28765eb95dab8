"""The live page as a node beside the graph: it shows what is said there, and speaks for whoever leads."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, Float64, String
from std_srvs.srv import SetBool, Trigger
from trajectory_msgs.msg import JointTrajectory

from vla_policy.interfaces import STATE, ActionChunk, DataError, Failure, Refused
from vla_policy.nodes import common
from vla_policy.nodes.hand import Hand
from vla_policy.nodes.perception import listen
from vla_policy.robot.contract import SIMULATED, Stream, load_contract
from vla_policy.robot.messages import Reader, chunk_of, decode, seconds
from vla_policy.runtime import Timing
from vla_policy.utils.files import finite
from vla_policy.utils.options import options
from vla_policy.web.live import Live
from vla_policy.web.options import LiveConfig
from vla_policy.web.robot import HELD, Picture, jpeg
from vla_policy.web.security import TOKEN, new_token
from vla_policy.web.server import Server
from vla_policy.web.welcome import welcome

ANSWER = 5.0  # seconds until a service counts as silent
STALE = 1.0  # seconds after which a state, a command or a chunk is no longer shown
SILENT = 3.0  # seconds without diagnostics, which come every second, after which a node counts as gone
SCORES = 50  # of the monitor that a new state repeats, so that a slow page misses none
SERVICES: Mapping[str, tuple[type, str]] = {
    "enable": (SetBool, "command_gate/enable"),
    "start": (Trigger, "recorder/start_episode"),
    "end": (SetBool, "recorder/end_episode"),
    "discard": (Trigger, "recorder/discard_episode"),
    "reset": (Trigger, "pusht_sim/reset"),
}


class LiveNode(Node):
    """Serves the live page at `host` and `port`, and its emergency stop on `web/emergency_stop`.

    With `control` it takes the place of `teleop`: the gate accepts the targets of one node.
    """

    def __init__(self, given: LiveConfig | None = None) -> None:
        super().__init__("web")
        meanings = {option.key: option.meaning for option in options(LiveConfig.__module__, LiveConfig.__name__)}
        defaults = asdict(given or LiveConfig())
        bounds = {"scale": (0.0, 1.0), "port": (0, 65535)}
        chosen = LiveConfig(
            **{key: common.parameter(self, key, defaults[key], meanings[key], bounds.get(key)) for key in defaults}
        )
        self._contract = load_contract(chosen.contract)
        self._control = chosen.control
        self._stopped, self._presses = False, 0  # presses of the stop
        token = new_token()
        self._cameras = [View(self._contract.stream(key)) for key in self._contract.interface.cameras]
        self._hand = Hand(self, self._contract, chosen.scale) if chosen.control else None
        self._said: dict[str, str] = {"gate": "", "recorder": "", "task": self._contract.task}
        self._values: dict[str, tuple[float, list[float]]] = {}  # of state and command, with their time
        self._chunk: ActionChunk | None = None
        self._scores: deque[float] = deque(maxlen=SCORES)
        self._scored, self._coverage = 0, float("nan")
        self._reported: dict[str, tuple[float, dict[str, str]]] = {}  # of every node, with its time
        self._drawn = Timing(300)
        self._live = Live(self, token, chosen.control)
        self._connect()
        self._server = Server(self._live.app, chosen.host, chosen.port)
        self._diagnostics = common.Diagnostics(self, self._report)
        shown = "" if TOKEN in os.environ else token  # whoever chose it knows it
        for line in welcome(self._server.url, self._server.fingerprint, shown):
            print(line, flush=True)

    def close(self) -> None:
        self._server.close()

    def _connect(self) -> None:
        for number, view in enumerate(self._cameras):
            source = view.stream.source
            self.create_subscription(
                common.message_class(source.type), source.topic, partial(self._on_picture, number), common.IMAGE_QOS
            )
        self._reader = Reader([self._contract.stream(STATE)])
        listen(self, self._reader, self._on_state)
        self.create_subscription(JointState, "command/executed", self._on_command, 10)
        self.create_subscription(JointTrajectory, "policy/action_chunk", self._on_chunk, common.COMMAND_QOS)
        self.create_subscription(Float64, "surprise_monitor/surprise", self._on_surprise, 50)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 50)
        for name, topic in (("gate", "command_gate/state"), ("recorder", "recorder/status")):
            self.create_subscription(String, topic, partial(self._on_text, name), common.LATCHED_QOS)
        common.subscribe_with_latched(self, String, "task", partial(self._on_text, "task"), common.COMMAND_QOS)
        self._emergency = self.create_publisher(Bool, "web/emergency_stop", common.HEARTBEAT_QOS)
        self._beat = common.every(self, 1.0 / common.HEARTBEAT_RATE, self._publish_stop)
        self._watch = common.every(self, 1.0, self._require_server)
        services = dict(SERVICES)
        if self._contract.robot_type == SIMULATED:
            self.create_subscription(Float64, "pusht_sim/coverage", self._on_coverage, 10)
        else:
            del services["reset"]
        if self._control:
            self._task = self.create_publisher(String, "task", common.LATCHED_QOS)
            self._offered = {name: self.create_client(*service) for name, service in services.items()}

    # What the page asks, from the server's thread

    def about(self) -> Mapping[str, Any]:
        pointing, interface = self._contract.pointing, self._contract.interface
        state = interface.observations[STATE]
        return {
            "name": self._contract.name,
            "control": self._control,
            "simulated": self._contract.robot_type == SIMULATED,
            "cameras": [
                {"name": view.name, "shape": view.stream.feature.shape[:2], "points": view.is_of(pointing)}
                for view in self._cameras
            ],
            "state": _channels(state.names, state.units, state.shape[0]),
            "pointed": [] if pointing is None else list(pointing.channels),
            "action": _channels(interface.action.names, interface.action.units, interface.action.shape[0]),
            "low": self._contract.command.low.tolist(),
            "high": self._contract.command.high.tolist(),
        }

    def status(self) -> Mapping[str, Any]:
        reports = self._reports()
        gate, _, reason = self._said["gate"].partition(": ") if "command_gate" in reports else ("", "", "")
        arm, monitor = reports.get("command_gate", {}), reports.get("surprise_monitor")
        scores = {"n": self._scored, "scores": list(self._scores)}
        found = {
            "gate": gate,
            "reason": reason,
            "stopped": self._stopped,
            "dry_run": arm.get("dry_run") == "True",
            "recorder": (self._said["recorder"] or "ready") if "recorder" in reports else "",
            "task": self._said["task"],
            "state": self._recent("state"),
            "command": self._recent("command"),
            "silent": [common.steady() > view.seen + self._contract.timeouts.camera for view in self._cameras],
            "chunk": self._drawable(),
            "surprise": None if monitor is None else {**scores, "threshold": monitor.get("threshold", "")},
            "latency": _latencies(reports),
            "coverage": self._coverage,
        }
        shown: Mapping[str, Any] = finite(found)
        return shown

    def picture(self, camera: int, after: int) -> Picture | None:
        try:
            return self._cameras[camera].picture(after)
        except DataError as error:
            self.get_logger().warning(str(error), throttle_duration_sec=1.0)
            return None

    def drawn(self, stamp: float) -> None:
        self._drawn.add(common.now(self) - stamp)

    def stop(self) -> bool:
        self._presses += 1
        if self._stopped:
            return False
        self._stopped = True
        self._publish_stop()
        self.let_go()
        return True

    async def request(self, name: str, value: Any) -> str:
        if name == "instruct":
            self._task.publish(String(data=value))
            return f"the instruction is {value!r}"
        if name == "clear":
            return await self._clear()
        if name == "enable" and value and self._stopped:
            raise Refused("the page's stop is pressed: clear it first")
        return await self._call(name, value)

    async def _clear(self) -> str:
        """Disables the gate, which acknowledges a fault, and takes the stop back; the arm stays where it is."""
        presses = self._presses
        await self._call("enable", False)
        if self._presses != presses:
            raise Refused("stop was pressed again meanwhile")
        self._stopped = False
        self._publish_stop()
        return "cleared; enable when it is safe"

    async def _call(self, name: str, value: bool | None) -> str:
        if name not in self._offered:
            raise Refused(f"{name}: this robot has no such service")
        client = self._offered[name]
        kind, service = SERVICES[name]
        if not client.service_is_ready():
            raise Refused(f"{service}: nobody offers it; is its node running?")
        answered, loop = asyncio.Event(), asyncio.get_running_loop()
        future = client.call_async(kind.Request() if value is None else kind.Request(data=value))
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(answered.set))
        try:
            await asyncio.wait_for(answered.wait(), ANSWER)
        except TimeoutError:
            raise Refused(f"{service}: no answer within {ANSWER:g} s") from None
        if not future.result().success:
            raise Refused(future.result().message)
        return str(future.result().message)

    def point(self, u: float, v: float) -> None:
        pointing = self._contract.pointing
        if pointing is None or self._hand is None:
            raise Refused("the contract has no pointing: use the stick")
        view = next(view for view in self._cameras if view.is_of(pointing))
        height, width = view.stream.feature.shape[:2]
        place = pointing.place(np.array([u * width, v * height]))
        blind = common.steady() > view.seen + self._contract.timeouts.camera
        if place is None or blind:  # None: above the horizon
            self._hand.let_go()
            return
        names = self._contract.interface.action.names
        goal = np.full(len(names), np.nan)
        goal[[names.index(name) for name in pointing.channels]] = place
        self._hand.point(goal, HELD)

    def push(self, direction: np.ndarray) -> None:
        if self._hand is None or len(direction) > len(self._contract.interface.action.names):
            raise Refused(f"expected {len(self._contract.interface.action.names)} channels, found {len(direction)}")
        self._hand.push(direction, HELD)

    def let_go(self) -> None:
        if self._hand is not None:
            self._hand.let_go()

    def log(self, text: str) -> None:
        self.get_logger().info(text)

    # What the graph says

    def _on_picture(self, number: int, message: Any) -> None:
        self._cameras[number].put(message)
        self._live.wake()

    def _on_state(self, topic: str, message: Any) -> None:
        try:
            for sample in self._reader.read(topic, message, seconds(message.header.stamp)):
                self._values["state"] = common.steady(), sample.value.tolist()
        except DataError as error:
            self.get_logger().warning(str(error), throttle_duration_sec=1.0)

    def _on_command(self, message: JointState) -> None:
        if list(message.name) == list(self._contract.interface.action.names):
            self._values["command"] = common.steady(), list(message.position)

    def _on_chunk(self, message: JointTrajectory) -> None:
        try:
            self._chunk = chunk_of(message, self._contract.interface.action.names)
        except DataError as error:  # the gate refuses it too
            self.get_logger().warning(str(error), throttle_duration_sec=1.0)

    def _on_surprise(self, message: Float64) -> None:
        self._scores.append(message.data)
        self._scored += 1

    def _on_coverage(self, message: Float64) -> None:
        self._coverage = message.data

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            values = {pair.key: pair.value for pair in status.values}
            self._reported[status.name.lstrip("/")] = common.steady(), values

    def _on_text(self, name: str, message: String) -> None:
        self._said[name] = message.data

    def _publish_stop(self) -> None:
        self._emergency.publish(Bool(data=self._stopped))

    def _require_server(self) -> None:
        if not self._server.alive:
            raise Failure("web: expected the server to run, found that it has ended")

    def _report(self) -> tuple[bytes, str, dict[str, Any]]:
        pages = len(self._live.sessions)
        level = common.Diagnostics.WARN if self._stopped else common.Diagnostics.OK
        text = "stop is pressed" if self._stopped else f"{pages} pages"
        values = {"url": self._server.url, "fingerprint": self._server.fingerprint, "pages": pages}
        return level, text, {**values, **common.flat("stamp_to_canvas_ms", self._drawn.summary())}

    def _reports(self) -> dict[str, dict[str, str]]:
        """What the nodes that live have reported of themselves."""
        since = common.steady() - SILENT
        return {name: values for name, (t, values) in list(self._reported.items()) if t > since}

    def _recent(self, name: str) -> list[float] | None:
        t, values = self._values.get(name, (-np.inf, []))
        return values if common.steady() < t + STALE else None

    def _drawable(self) -> dict[str, Any] | None:
        """The chunk's way through the pointing camera's picture, parts of its size, and the row that is due."""
        chunk, pointing = self._chunk, self._contract.pointing
        if chunk is None or pointing is None:
            return None
        due = (common.now(self) - chunk.t_obs) / chunk.dt
        if due > len(chunk.actions) + STALE / chunk.dt:
            return None
        names = self._contract.interface.action.names
        places = chunk.actions[:, [names.index(name) for name in pointing.channels]]
        view = next(view for view in self._cameras if view.is_of(pointing))
        height, width = view.stream.feature.shape[:2]
        return {"way": (pointing.pixels(places) / [width, height]).round(4).tolist(), "due": due}


class View:
    """The newest picture of one camera; made to JPEG once for all pages, when one asks for it."""

    def __init__(self, stream: Stream) -> None:
        self.stream, self.name = stream, stream.key.rpartition(".")[2]
        self.seen = -np.inf  # steady clock
        self._message: tuple[int, Any] = (0, None)
        self._made: Picture | None = None
        self._lock = threading.Lock()

    def is_of(self, pointing: Any) -> bool:
        """Whether this camera is calibrated."""
        return pointing is not None and pointing.camera == self.stream.key

    def put(self, message: Any) -> None:
        self.seen = common.steady()
        self._message = self._message[0] + 1, message

    def picture(self, after: int) -> Picture | None:
        """The newest one unless its serial is `after`; `DataError` for one that does not fit the contract."""
        serial, message = self._message
        if message is None or serial == after:
            return None
        with self._lock:
            if self._made is None or self._made.serial != serial:
                self._made = Picture(serial, seconds(message.header.stamp), jpeg(decode(message, self.stream)))
            return self._made


def _channels(names: Sequence[str], units: Sequence[str], number: int) -> list[dict[str, str]]:
    names = names or [str(k) for k in range(number)]
    return [{"name": name, "unit": unit} for name, unit in zip(names, units or [""] * number, strict=True)]


def _latencies(reports: Mapping[str, Mapping[str, str]]) -> list[dict[str, Any]]:
    """The percentiles that the nodes report, in milliseconds."""
    found = []
    for node, values in sorted(reports.items()):
        for key in values:
            name, _, which = key.rpartition(".")
            if which == "p50" and name.endswith("_ms"):
                numbers = {p: values.get(f"{name}.{p}", "") for p in ("p50", "p95", "p99")}
                found.append({"node": node, "name": name.removesuffix("_ms").replace("_", " "), **numbers})
    return found


def main() -> None:
    common.run(LiveNode)


if __name__ == "__main__":
    main()
