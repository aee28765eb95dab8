"""Policies without torch and their servers, in a thread of this process or as a process of their own."""

from __future__ import annotations

import asyncio
import os
import ssl
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vla_policy.interfaces import IMAGES, STATE, ActionChunk, Feature, Interface, Observation
from vla_policy.serving.served import Served
from vla_policy.serving.server import PolicyServer

TOP = IMAGES + "top"
XY = Feature("float32", (2,), ("x", "y"), ("m", "m"))
INTERFACE = Interface({STATE: XY, TOP: Feature("image", (96, 96, 3))}, XY, 10, "base")
ROWS = 15


class Sway:
    """Moves along y and back, with a little noise; reads what begins with "push"."""

    interface, n_obs_steps, n_action_steps = INTERFACE, 2, 6

    def __init__(self) -> None:
        self.asked: list[list[Sequence[Observation]]] = []

    def predict(self, histories: Sequence[Sequence[Observation]], generator: np.random.Generator) -> list[ActionChunk]:
        self.asked.append(list(histories))
        return [self._chunk(history, generator) for history in histories]

    def unreadable(self, instruction: str) -> str:
        return "" if instruction.lower().startswith("push") else f"cannot read {instruction!r}"

    def _chunk(self, history: Sequence[Observation], generator: np.random.Generator) -> ActionChunk:
        t = history[-1].t + 0.1 * np.arange(1, ROWS + 1)
        rows = np.stack([np.full(ROWS, 0.45), 0.1 * np.sin(t)], axis=1)
        return ActionChunk(rows + generator.normal(0, 1e-4, (ROWS, 2)), history[-1].t, 0.1)


def served(policy: Any, **changes: Any) -> Served:
    known = Served("sway", "0123", policy.interface, policy.n_obs_steps, 1, policy.n_action_steps, ROWS, reads=True)
    return replace(known, **changes)


def history(t: float = 1.0, task: str = "push", seed: int = 0) -> list[Observation]:
    rng = np.random.default_rng(seed)
    return [
        Observation({STATE: rng.random(2, np.float32), TOP: rng.integers(0, 256, (96, 96, 3), np.uint8)}, task, t + dt)
        for dt in (0.0, 0.1)
    ]


@contextmanager
def listening(server: PolicyServer, port: int = 0, context: ssl.SSLContext | None = None) -> Iterator[str]:
    """The address of `server` on the loopback while it serves in a thread."""
    loop, ready, address = asyncio.new_event_loop(), threading.Event(), ""
    done = asyncio.Event()

    async def serve() -> None:
        nonlocal address
        async with server.listening("127.0.0.1", port, context) as chosen:
            address = f"{'ws' if context is None else 'wss'}://127.0.0.1:{chosen}"
            ready.set()
            await done.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    assert ready.wait(30)
    try:
        yield address
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join(30)
        assert not thread.is_alive()
        loop.close()


@contextmanager
def serving(policy: Any = None, token: str | None = None, port: int = 0, **changes: Any) -> Iterator[str]:
    """The address of a server of `policy`."""
    policy = policy or Sway()
    with listening(PolicyServer(policy, served(policy, **changes), policy.unreadable, token), port) as address:
        yield address


@contextmanager
def process(log: Path) -> Iterator[Any]:
    """A server of `Sway` as a process that has been started."""
    from vla_policy.benchmarks.ros.server_timing import Server  # needs rclpy

    with closing(Server(COMMAND, log)) as server:
        server.start()
        yield server


COMMAND = [sys.executable, "-c", f"import sys; sys.path[:0] = {sys.path!r}; from helpers.serving import main; main()"]


def main() -> None:
    """Serve `Sway` at the port that the command line names, as vla-serve does its checkpoint."""
    port = int(sys.argv[1].removeprefix("port="))
    policy = Sway()
    server = PolicyServer(policy, served(policy), policy.unreadable)
    server.run("127.0.0.1", port, ready=lambda address: os.write(1, f"served at {address}\n".encode()))
