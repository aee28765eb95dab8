"""How many milliseconds it adds that a server computes a chunk: of one that takes no time to compute."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from vla_policy.benchmarks.pictures import picture
from vla_policy.evaluation.success.latency import chunk_latency
from vla_policy.interfaces import IMAGES, STATE, ActionChunk, Feature, Interface, Observation
from vla_policy.serving.client import RemotePolicy
from vla_policy.serving.served import Served
from vla_policy.serving.server import PolicyServer

CAMERAS = {"one of 96 x 96": (1, 96, 96), "two of 480 x 640": (2, 480, 640)}  # count, height, width
OBSERVATIONS, PICTURES, ROWS = 2, 1, 15  # of a question and of its answer, as the shipped policies have them
STARTING = 60.0  # seconds


class Still:
    """A policy of some cameras that stays where it is, and takes no time for it."""

    n_obs_steps, n_action_steps = OBSERVATIONS, 2

    def __init__(self, count: int, height: int, width: int) -> None:
        state = Feature("float32", (2,), ("x", "y"), ("m", "m"))
        views = {f"{IMAGES}{k}": Feature("image", (height, width, 3)) for k in range(count)}
        self.interface = Interface({STATE: state, **views}, state, 10.0)
        self._rows = np.zeros((ROWS, 2))

    def predict(self, histories: Sequence[Sequence[Observation]], generator: np.random.Generator) -> list[ActionChunk]:
        return [ActionChunk(self._rows, history[-1].t, 0.1) for history in histories]

    def history(self, generator: np.random.Generator) -> list[Observation]:
        return [
            Observation({key: _seen(feature, generator) for key, feature in self.interface.observations.items()}, "", k)
            for k in range(self.n_obs_steps)
        ]


def _seen(feature: Feature, generator: np.random.Generator) -> np.ndarray:
    if feature.dtype != "image":
        return generator.random(feature.shape, np.float32)
    return picture(feature.shape[:2], generator)


def added_milliseconds(cameras: tuple[int, int, int], jpeg: int, repeats: int, warmup: int) -> dict[str, Any]:
    """`percentiles` of the time from observations to the chunk of a server in another process of this computer."""
    policy = Still(*cameras)
    generator = np.random.default_rng(0)
    histories = [policy.history(generator) for _ in range(4)]
    with _served(cameras) as address, closing(RemotePolicy(address, jpeg=jpeg)) as remote:
        return chunk_latency(remote, histories, repeats, warmup, generator)


@contextmanager
def _served(cameras: tuple[int, int, int]) -> Iterator[str]:
    """The address of such a policy in a process of its own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(cameras, theirs), daemon=True)
    process.start()
    try:
        theirs.close()
        if not ours.poll(STARTING):
            raise TimeoutError(f"server: expected within {STARTING:g} s, found none")
        yield ours.recv()
    finally:
        process.kill()
        process.join()


def _serve(cameras: tuple[int, int, int], pipe: Connection) -> None:
    policy = Still(*cameras)
    served = Served("still", "", policy.interface, OBSERVATIONS, PICTURES, policy.n_action_steps, ROWS)
    PolicyServer(policy, served).run("127.0.0.1", 0, ready=pipe.send)
