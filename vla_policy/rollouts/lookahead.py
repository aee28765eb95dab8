"""What would happen: proposals that are tried in the simulator itself before one of them is played.

Every proposal is played by a fork of this process, which has the physics engine's solver, the gate and all random
generators in its memory: what it sees is to the bit what would be seen. Restoring a saved state in one process is not:
PyBullet rebuilds its contacts, and from touching bodies two futures part within a few steps.
"""

from __future__ import annotations

import os
import traceback
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn, Protocol

import numpy as np

from vla_policy.interfaces import ACTION, ActionChunk, Failure, Future, Objective


@dataclass(frozen=True, kw_only=True)
class Proposals(ActionChunk):
    """A chunk that is not decided yet: the one of `candidates` (K, T, D) whose future `objective` prefers.

    `actions` is the first of them.
    """

    candidates: np.ndarray
    objective: Objective


class Episode(Protocol):
    """What an `EpisodeRunner` has for this."""

    seen: Mapping[str, np.ndarray]

    def answer(self, chunk: ActionChunk) -> None: ...

    def step(self) -> object: ...

    def close_eyes(self) -> None: ...


def best_of(proposals: Proposals, episode: Episode) -> ActionChunk:
    """The chunk that leads to the best of the futures that it has in the simulator, with that future."""
    future = foresee(episode, proposals)
    scores = proposals.objective({**future, ACTION: proposals.candidates})
    if not np.isfinite(scores).all():
        raise Failure(f"planner: expected finite scores of what was simulated, found {scores}")
    best = int(np.argmax(scores))
    chosen = {key: np.vstack([episode.seen[key], values[best]]) for key, values in future.items()}
    return ActionChunk(proposals.candidates[best], proposals.t_obs, proposals.dt, chosen)


def foresee(episode: Episode, proposals: Proposals) -> Future:
    """The vectors (K, T, D) by key that would be seen after each row of each candidate; the episode is unchanged."""
    keys = [key for key, value in episode.seen.items() if np.ndim(value) == 1]
    chunks = [ActionChunk(rows, proposals.t_obs, proposals.dt) for rows in proposals.candidates]
    cores, found = len(os.sched_getaffinity(0)), []
    for first in range(0, len(chunks), cores):  # as many processes at a time as there are cores
        started = [_start(episode, chunk, keys) for chunk in chunks[first : first + cores]]
        found += [_finish(*child) for child in started]
    sizes = [len(episode.seen[key]) for key in keys]
    futures = np.stack(found).reshape(len(chunks), -1, sum(sizes))
    return dict(zip(keys, np.split(futures, np.cumsum(sizes)[:-1], axis=-1), strict=True))


def _start(episode: Episode, chunk: ActionChunk, keys: Sequence[str]) -> tuple[int, int]:
    """A fork that plays a chunk, and the end of the pipe from which what it sees can be read."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():  # Python 3.12 warns where torch has threads; the child uses none of them
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        _live(episode, chunk, keys, writing)
    os.close(writing)
    return child, reading


def _live(episode: Episode, chunk: ActionChunk, keys: Sequence[str], writing: int) -> NoReturn:
    """Play a chunk, write what is seen (T, D) as float64, and end this process without cleaning up its parent's."""
    status = 1
    try:
        episode.close_eyes()
        episode.answer(chunk)
        rows, ended = [], False
        for _ in chunk.actions:
            ended = ended or episode.step() is not None  # at the end the last state stays
            rows.append(np.concatenate([episode.seen[key] for key in keys]))
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(np.array(rows, np.float64).tobytes())
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _finish(child: int, reading: int) -> np.ndarray:
    """Everything that a child saw, flat; `Failure` if it did not come to its end."""
    with os.fdopen(reading, "rb") as pipe:
        seen = np.frombuffer(pipe.read(), np.float64)
    _, status = os.waitpid(child, 0)
    if status:
        raise Failure(f"planner: expected a simulated future of each proposal, found exit status {status} of one")
    return seen
