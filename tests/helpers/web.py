"""A robot for the page without ROS, and browsers for the tests."""

from __future__ import annotations

import json
import signal
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import numpy as np
import psutil
import pytest
from websockets.sync.client import ClientConnection, connect

from vla_policy.benchmarks import browser
from vla_policy.interfaces import InputError, Refused
from vla_policy.web.live import Live
from vla_policy.web.robot import HELD, Picture, jpeg
from vla_policy.web.server import Server

TOKEN = "a-token-for-the-tests"


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 20.0, every: float = 0.005) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} did not come"
        time.sleep(every)


class PretendedRobot:
    """What a page asks of a robot, kept for the test: calls and requests, and until when a hand leads."""

    def __init__(self, channels: tuple[str, ...] = ("x", "y"), pointed: tuple[str, ...] = ("x", "y")) -> None:
        self.channels, self.pointed = channels, pointed
        self.stopped, self.answer = False, "done"
        self.calls: list[tuple[str, Any]] = []
        self.log_lines: list[str] = []
        self.held_until = 0.0
        self.delays: list[float] = []
        self.shown: dict[str, Any] = {}  # what the state has beside the usual
        self.frames = 0.0  # a second
        self._began = time.monotonic()

    def about(self) -> Mapping[str, Any]:
        channels = [{"name": name, "unit": "m"} for name in self.channels]
        size = len(channels)
        return {
            **{"name": "pretended", "control": True, "simulated": True, "state": channels, "action": channels},
            **{"pointed": list(self.pointed), "low": [-1.0] * size, "high": [1.0] * size},
            "cameras": [{"name": "top", "shape": [96, 128], "points": bool(self.pointed)}],
        }

    def status(self) -> Mapping[str, Any]:
        usual = {
            **{"gate": "fault" if self.stopped else "running", "reason": "emergency stop" if self.stopped else ""},
            **{"stopped": self.stopped, "dry_run": False, "recorder": "ready", "task": "push the block"},
            **{"state": [0.1] * len(self.channels), "command": [0.2] * len(self.channels), "silent": [False]},
            **{"chunk": {"way": [[0.2, 0.2], [0.5, 0.4], [0.8, 0.8]], "due": 1.0}, "coverage": 0.5},
            "surprise": {"n": 3, "scores": [0.1, None, 0.3], "threshold": "0.5"},
            "latency": [{"node": "policy", "name": "inference", "p50": "1", "p95": "2", "p99": "3"}],
        }
        return usual | self.shown

    def picture(self, camera: int, after: int) -> Picture | None:
        serial = int((time.monotonic() - self._began) * self.frames) + 1
        if camera != 0 or serial == after:
            return None
        pixels = np.full((96, 128, 3), (230, 226, 215), np.uint8)
        pixels[30:60, 10 + serial % 90 :][:, :20] = (40, 80, 180)
        return Picture(serial, time.time(), jpeg(pixels))

    def drawn(self, stamp: float) -> None:
        self.delays.append(time.time() - stamp)

    def stop(self) -> bool:
        was, self.stopped = self.stopped, True
        return not was

    async def request(self, name: str, value: Any) -> str:
        self.calls.append((name, value))
        if name == "start" and self.answer != "done":
            raise Refused(self.answer)
        if name == "clear":
            self.stopped = False
        return self.answer

    def point(self, u: float, v: float) -> None:
        self.calls.append(("point", (u, v)))
        self.held_until = time.monotonic() + HELD

    def push(self, direction: np.ndarray) -> None:
        if len(direction) > len(self.channels):
            raise Refused("too many channels")
        self.calls.append(("push", direction.tolist()))
        self.held_until = time.monotonic() + HELD

    def let_go(self) -> None:
        self.held_until = min(self.held_until, time.monotonic())

    def log(self, text: str) -> None:
        self.log_lines.append(text)

    @property
    def held(self) -> bool:
        return time.monotonic() < self.held_until

    def of(self, *kinds: str) -> list[Any]:
        return [value for kind, value in self.calls if kind in kinds]


@contextmanager
def live_page(robot: Any, host: str = "127.0.0.1", control: bool = True) -> Iterator[Server]:
    """The page of a robot; it ends with the test."""
    with Server(Live(robot, TOKEN, control).app, host, 0) as server:
        yield server


def talk(server: Server, **headers: str) -> ClientConnection:
    """A websocket as the page opens it."""
    origin = headers.pop("Origin", server.url.rstrip("/"))
    address = server.url.replace("http", "ws", 1) + "live"
    return connect(address, origin=origin, additional_headers=headers, open_timeout=20, close_timeout=0.5)  # type: ignore[arg-type]


def hear(socket: ClientConnection, kind: str, seconds: float = 20.0) -> dict[str, Any]:
    """The next message of this kind."""
    end = time.monotonic() + seconds
    while True:
        data = socket.recv(timeout=max(0.0, end - time.monotonic()))
        if isinstance(data, str) and (message := json.loads(data))["type"] == kind:
            found: dict[str, Any] = message
            return found


def say(socket: ClientConnection, kind: str, **fields: Any) -> None:
    socket.send(json.dumps({"type": kind, **fields}))


@contextmanager
def chromium() -> Iterator[Callable[[], Any]]:
    """Launches browsers of Playwright's; skips the test where there are none."""
    with ExitStack() as opened:
        try:
            launch = opened.enter_context(browser.chromium())
        except InputError as error:
            pytest.skip(str(error))
        yield launch


class Relay:
    """Between a browser and a server. `cut` loses all that open connections say from then on, and closes none."""

    def __init__(self, port: int) -> None:
        self._to, self._cut = port, threading.Event()
        relay = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with socket.create_connection(("127.0.0.1", relay._to)) as there:
                    cut = relay._cut
                    back = threading.Thread(target=_carry, args=(there, self.request, cut), daemon=True)
                    back.start()
                    _carry(self.request, there, cut)
                    back.join()

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads, self._server.block_on_close = True, False
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"

    def cut(self) -> None:
        self._cut.set()
        self._cut = threading.Event()

    def __enter__(self) -> Relay:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def _carry(come: socket.socket, go: socket.socket, cut: threading.Event) -> None:
    with suppress(OSError):
        while data := come.recv(1 << 16):
            if not cut.is_set():
                go.sendall(data)
        if not cut.is_set():
            go.shutdown(socket.SHUT_WR)


def browsers() -> set[psutil.Process]:
    """The processes of this test's browsers."""
    return {process for process in psutil.Process().children(recursive=True) if "chrom" in process.name()}


def kill(processes: set[psutil.Process]) -> float:
    """Kill them all; returns when, on the monotonic clock."""
    assert processes
    now = time.monotonic()
    for process in processes:
        process.send_signal(signal.SIGKILL)
    return now
