"""What would happen: proposals that are tried in the simulator itself before one of them is played.

Every proposal is played by a fork of this process, which has the physics engine's solver, the gate and all random
generators in its memory: what it sees is to the bit what would be seen. Restoring a saved state in one process is not:
PyBullet rebuilds its contacts, and from touching bodies two futures part within a few steps.
"""

from __future__ import annotations

import os
import signal
import traceback
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO, NoReturn, Protocol

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
        found += _lived(episode, chunks[first : first + cores], keys)
    sizes = [len(episode.seen[key]) for key in keys]
    futures = np.stack(found).reshape(len(chunks), -1, sum(sizes))
    return dict(zip(keys, np.split(futures, np.cumsum(sizes)[:-1], axis=-1), strict=True))


def _lived(episode: Episode, chunks: Sequence[ActionChunk], keys: Sequence[str]) -> list[np.ndarray]:
    """Everything that is seen in the future of each chunk, flat, all at once; no process of them is left."""
    started: list[tuple[int, BinaryIO]] = []
    found = []
    try:
        for chunk in chunks:
            started.append(_start(episode, chunk, keys))
        for _, pipe in started:
            found.append(np.frombuffer(pipe.read(), np.float64))
    except OSError as error:
        raise Failure(f"planner: expected to start a process for each proposal, found {error}") from None
    finally:
        codes = [_ended(*child) for child in started]
    if failed := [code for code in codes if code]:
        raise Failure(f"planner: expected a simulated future of each proposal, found exit status {failed[0]} of one")
    return found


def _start(episode: Episode, chunk: ActionChunk, keys: Sequence[str]) -> tuple[int, BinaryIO]:
    """A fork that plays a chunk, and the end of the pipe from which what it sees can be read."""
    reading, writing = os.pipe()
    try:
        with warnings.catch_warnings():  # Python 3.12 warns where torch has threads; the child uses none of them
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
    except OSError:
        os.close(reading)
        os.close(writing)
        raise
    if child == 0:
        _live(episode, chunk, keys, writing)
    os.close(writing)
    return child, os.fdopen(reading, "rb")


def _live(episode: Episode, chunk: ActionChunk, keys: Sequence[str], writing: int) -> NoReturn:
    """Play a chunk, write what is seen (T, D) as float64, and end this process without cleaning up its parent's."""
    status = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's process decides on Ctrl-C
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


def _ended(child: int, pipe: BinaryIO) -> int:
    """The exit code of a child, which ends at the latest when nobody reads any more."""
    pipe.close()
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)
