"""A policy's server in a thread of this process, and policies to serve."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from helpers.small_diffusion import pusht_interface

from vla_policy.interfaces import IMAGES, STATE, ActionChunk, Interface, Observation
from vla_policy.serving import PolicyServer, Served

TOP = IMAGES + "top"
INTERFACE = pusht_interface().select([STATE, TOP])
ROWS = 6


class Drift:
    """Goes from the state in a random direction; reads what begins with "push"."""

    interface, n_obs_steps, n_action_steps = INTERFACE, 2, 4

    def __init__(self) -> None:
        self.asked: list[list[Sequence[Observation]]] = []

    def predict(self, histories: Sequence[Sequence[Observation]], generator: np.random.Generator) -> list[ActionChunk]:
        self.asked.append(list(histories))
        return [
            ActionChunk(history[-1].values[STATE] + generator.normal(size=(ROWS, 2)), history[-1].t, 0.1)
            for history in histories
        ]

    def unreadable(self, instruction: str) -> str:
        return "" if instruction.startswith("push") else f"cannot read {instruction!r}"


def served(policy: Any, **changes: Any) -> Served:
    known = Served("drift", "0123", policy.interface, policy.n_obs_steps, policy.n_action_steps, ROWS, reads=True)
    return replace(known, **changes)


def history(t: float = 1.0, interface: Interface = INTERFACE, task: str = "push", seed: int = 0) -> list[Observation]:
    rng = np.random.default_rng(seed)
    return [
        Observation(
            {
                key: rng.integers(0, 256, feature.shape, np.uint8)
                if feature.dtype == "image"
                else rng.random(feature.shape, np.float32)
                for key, feature in interface.observations.items()
            },
            task,
            t + 0.1 * k,
        )
        for k in range(2)
    ]


@contextmanager
def listening(server: PolicyServer, port: int = 0, context: ssl.SSLContext | None = None) -> Iterator[str]:
    """The address of `server` on the loopback while it serves."""
    loop, ready, address = asyncio.new_event_loop(), threading.Event(), ""
    done: asyncio.Event

    async def serve() -> None:
        nonlocal address, done
        done = asyncio.Event()
        async with server.listening("127.0.0.1", port, context) as chosen:
            address = f"{'ws' if context is None else 'wss'}://127.0.0.1:{chosen}"
            ready.set()
            await done.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield address
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join(10)
        assert not thread.is_alive()
        loop.close()


@contextmanager
def serving(policy: Any = None, token: str | None = None, **changes: Any) -> Iterator[tuple[str, Any]]:
    """The address of a server of `policy`, and the policy."""
    policy = policy or Drift()
    server = PolicyServer(policy, served(policy, **changes), policy.unreadable, token)
    with listening(server) as address:
        yield address, policy
