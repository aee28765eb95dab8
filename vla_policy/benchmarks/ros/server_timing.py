"""Time until the graph holds after a fault of the server that computes its chunks, or of the way there."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vla_policy.benchmarks.ros.fault_timing import measured, timed
from vla_policy.benchmarks.ros.graph_timing import run_until_moving
from vla_policy.benchmarks.ros.harness import Witness, wait_for
from vla_policy.benchmarks.ros.measured import Hold
from vla_policy.graph.operator import DEACTIVATE, GraphError
from vla_policy.graph.running import Graph
from vla_policy.utils.processes import dying_with

STOPS = ("policy/stop says stop",)
WHOLE = 16  # bytes of each piece that are left as they are when answers are garbled: the frame's header
STARTING = 300.0  # seconds that a server may take to load its policy, on a busy computer
READY = re.compile(r"wss?://\S+:\d+")


def free_port() -> int:
    """A port of the loopback that nobody uses now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Server:
    """A policy's server as a process: `command` and its port, which stays the same when it is started again."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self.port, self._log = free_port(), log
        self._command = [*command, f"port={self.port}"]
        log.parent.mkdir(parents=True, exist_ok=True)
        self._process: subprocess.Popen | None = None

    @property
    def process(self) -> subprocess.Popen:
        assert self._process is not None
        return self._process

    def start(self) -> None:
        """Start it, and wait until it serves."""
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                self._command, stdout=output, stderr=subprocess.STDOUT, preexec_fn=dying_with(os.getpid())
            )
        wait_for(self._is_ready, f"the policy's server, see {self._log}", STARTING)

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _is_ready(self) -> bool:
        if self.process.poll() is not None:
            raise GraphError(f"the policy's server ended: {self._log.read_text(errors='replace')[-500:]}")
        return READY.search(self._log.read_text(errors="replace")) is not None


class Relay:
    """A TCP relay to a port of the loopback, whose connections can be cut and whose answers can be garbled."""

    def __init__(self, port: int) -> None:
        self.garbled, self._cut, self._to = False, False, port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._random = np.random.default_rng(0)
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self) -> str:
        return f"ws://127.0.0.1:{self._listener.getsockname()[1]}"

    def cut(self) -> None:
        """End every connection, and let none begin until `mend`."""
        self._cut = True
        for end in self._open:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def mend(self) -> None:
        self._cut = False

    def close(self) -> None:
        self.cut()
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                near, _ = self._listener.accept()
                try:
                    far = socket.create_connection(("127.0.0.1", self._to))
                except OSError:
                    near.close()
                    continue
                self._open += [near, far]
                if self._cut:
                    self.cut()
                threading.Thread(target=self._pump, args=(near, far, False), daemon=True).start()
                threading.Thread(target=self._pump, args=(far, near, True), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, answers: bool) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                if answers and self.garbled:
                    data = data[:WHOLE] + self._random.bytes(len(data[WHOLE:]))
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@dataclass(frozen=True)
class Line:
    """The server of a graph's policy, and the relay between them."""

    server: Server
    relay: Relay


@contextmanager
def line(command: Sequence[str], log: Path) -> Iterator[Line]:
    """A server that `command` starts, with a relay to it."""
    with closing(Server(command, log)) as server, closing(Relay(server.port)) as relay:
        server.start()
        yield Line(server, relay)


class Break(NamedTuple):
    """What is done to a line, and what takes it back."""

    inject: Callable[[Line], None]
    mend: Callable[[Line], None]


def _restart(line: Line) -> None:
    line.server.process.wait()
    line.server.start()


def _garble(line: Line, garbled: bool) -> None:
    line.relay.garbled = garbled


FAULTS = {
    "server killed": Break(lambda line: line.server.process.kill(), _restart),
    "server stalled": Break(
        lambda line: line.server.process.send_signal(signal.SIGSTOP),
        lambda line: line.server.process.send_signal(signal.SIGCONT),
    ),
    "connection cut": Break(lambda line: line.relay.cut(), lambda line: line.relay.mend()),
    "garbage in place of answers": Break(partial(_garble, garbled=True), partial(_garble, garbled=False)),
}


def server_timing(
    graph: Graph,
    line: Line,
    repeats: int,
    generator: np.random.Generator,
    advance: Callable[[], None] = lambda: None,
) -> dict[str, list[Hold]]:
    """Each of `FAULTS` `repeats` times, at random times in a chunk, while the arm moves."""
    found: dict[str, list[Hold]] = {name: [] for name in FAULTS}
    with closing(Witness()) as witness:
        for _ in range(repeats):
            for name, fault in FAULTS.items():
                found[name].append(measured(partial(_fault, fault, line, graph, witness, generator), name))
                advance()
    return found


def _fault(fault: Break, line: Line, graph: Graph, witness: Witness, generator: np.random.Generator) -> Hold:
    run_until_moving(graph, witness, generator)
    begin = time.time()
    fault.inject(line)
    try:
        return timed(witness, begin)
    finally:
        fault.mend(line)
        graph.operator.change("policy", DEACTIVATE)  # what is no answer is an error until the node is activated again
        graph.bring_up("policy")
