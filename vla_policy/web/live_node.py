"""The live page as a node beside the graph: it shows what is said there, and speaks for whoever leads."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from rclpy.node import Node
from std_msgs.msg import Bool, String
from std_srvs.srv import SetBool, Trigger

from vla_policy.interfaces import STATE, DataError, InputError, Refused
from vla_policy.nodes import common
from vla_policy.nodes.hand import Hand
from vla_policy.robot.contract import SIMULATED, load_contract
from vla_policy.runtime import Timing
from vla_policy.utils.files import finite
from vla_policy.utils.options import options
from vla_policy.web.heard import Heard
from vla_policy.web.live import Live
from vla_policy.web.options import LiveConfig
from vla_policy.web.robot import HELD, Picture
from vla_policy.web.security import TOKEN, new_token
from vla_policy.web.server import Server
from vla_policy.web.welcome import tell

ANSWER = 5.0  # seconds until a service counts as silent
DISCOVERY = 2.0  # seconds in which a page that runs already is found
STOP = "web/emergency_stop"
SERVICES: Mapping[str, tuple[Any, str]] = {
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
        self._require_no_other()
        self._hand = Hand(self, self._contract, chosen.scale) if chosen.control else None
        self._drawn = Timing(300)
        self._live = Live(self, token, chosen.control)
        self._heard = Heard(self, self._contract, self._live.wake)
        self._connect()
        self._server = Server(self._live.app, chosen.host, chosen.port)
        self._diagnostics = common.Diagnostics(self, self._report)
        shown = "" if TOKEN in os.environ else token  # whoever chose it knows it
        print(tell(self._server.url, self._server.fingerprint, shown), flush=True)

    def close(self) -> None:
        self._server.close()

    def _require_no_other(self) -> None:
        """The gate stops the arm where two speak for one emergency stop."""
        end = common.steady() + DISCOVERY
        while common.steady() < end:
            if others := common.endpoints(self.get_publishers_info_by_topic(self.resolve_topic_name(STOP))):
                raise InputError(f"{STOP}: expected no other page of this graph, found {', '.join(others)}")
            time.sleep(0.05)

    def _connect(self) -> None:
        self._emergency = self.create_publisher(Bool, STOP, common.HEARTBEAT_QOS)
        self._beat = common.every(self, 1.0 / common.HEARTBEAT_RATE, self._publish_stop)
        self._watch = common.every(self, 1.0, lambda: self._server.require_alive())  # which starts later
        names = SERVICES if self._control else ["enable"]  # which clearing the stop needs
        self._offered = {name: self.create_client(*SERVICES[name]) for name in names}
        if self._control:
            self._task = self.create_publisher(String, "task", common.LATCHED_QOS)

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
                for view in self._heard.views
            ],
            "state": _channels(state.names, state.units, state.shape[0]),
            "pointed": [] if pointing is None else list(pointing.channels),
            "action": _channels(interface.action.names, interface.action.units, interface.action.shape[0]),
            "low": self._contract.command.low.tolist(),
            "high": self._contract.command.high.tolist(),
        }

    def status(self) -> Mapping[str, Any]:
        shown: Mapping[str, Any] = finite({**self._heard.status(), "stopped": self._stopped})
        return shown

    def picture(self, camera: int, after: int) -> Picture | None:
        try:
            return self._heard.views[camera].picture(after)
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
        if name == "enable" and value:
            self._require_no_stop()
        return await self._call(name, value)

    async def _clear(self) -> str:
        """Disables the gate, which acknowledges a fault, and takes the stop back; the arm stays where it is."""
        if not self._stopped:
            raise Refused("the page's stop is not pressed")
        presses, self._stopped = self._presses, False
        self._publish_stop()  # before the fault is acknowledged, which another heartbeat would raise again
        try:
            await self._call("enable", False)
        except Refused:
            self._stopped = True
            raise
        if self._presses != presses:
            raise Refused("stop was pressed again meanwhile")
        return "cleared; enable when it is safe"

    async def _call(self, name: str, value: bool | None) -> str:
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
        self._require_no_stop()
        pointing = self._contract.pointing
        if pointing is None or self._hand is None:
            raise Refused("the contract has no pointing: use the stick")
        view = self._heard.pointed
        place = pointing.place(view.pixel(u, v))
        if place is None or view.silent:  # None: above the horizon
            self._hand.let_go()
            return
        names = self._contract.interface.action.names
        goal = np.full(len(names), np.nan)
        goal[[names.index(name) for name in pointing.channels]] = place
        self._hand.point(goal, HELD)

    def push(self, direction: np.ndarray) -> None:
        self._require_no_stop()
        if self._hand is None or len(direction) > len(self._contract.interface.action.names):
            raise Refused(f"expected {len(self._contract.interface.action.names)} channels, found {len(direction)}")
        self._hand.push(direction, HELD)

    def _require_no_stop(self) -> None:
        """While it is pressed nobody leads, and no intervention is recorded."""
        if self._stopped:
            raise Refused("the page's stop is pressed: clear it first")

    def let_go(self) -> None:
        if self._hand is not None:
            self._hand.let_go()

    def log(self, text: str) -> None:
        self.get_logger().info(text)

    def _publish_stop(self) -> None:
        self._emergency.publish(Bool(data=self._stopped))

    def _report(self) -> tuple[bytes, str, dict[str, Any]]:
        pages = len(self._live.sessions)
        level = common.Diagnostics.WARN if self._stopped else common.Diagnostics.OK
        text = "stop is pressed" if self._stopped else f"{pages} pages"
        values = {"url": self._server.url, "fingerprint": self._server.fingerprint, "pages": pages}
        return level, text, {**values, **common.flat("stamp_to_canvas_ms", self._drawn.summary())}


def _channels(names: Sequence[str], units: Sequence[str], number: int) -> list[dict[str, str]]:
    names = names or [str(k) for k in range(number)]
    return [{"name": name, "unit": unit} for name, unit in zip(names, units or [""] * number, strict=True)]


def main() -> None:
    common.run(LiveNode)


if __name__ == "__main__":
    main()
