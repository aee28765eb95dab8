"""A draft in a process of its own, which drafts ahead while the target is at work."""

from __future__ import annotations

import logging
import multiprocessing
import signal
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch

from vla_policy.interfaces import Failure, InputError
from vla_policy.speculation.acceptance import Draft
from vla_policy.speculation.decoder import OpenDecoder
from vla_policy.speculation.drafter import DrafterConfig, LocalDrafter, Proposal, Task

log = logging.getLogger(__name__)
PATIENCE = 2.0  # seconds for an answer; a draft that takes longer than the target's own tokens is of no use
START = 60.0  # seconds for the first one: libraries and a GPU are set up in a model's first pass


class DraftProcess:
    """A `Drafter` in a spawned process with one thread of torch.

    `load` is picklable and returns the draft model there; what it refuses with `InputError` is raised here. A process
    that dies, fails or stands still is given up with a warning, once: from then on there are no drafts, and a decoder
    goes on without. It stands still if an answer takes more than `patience` seconds, or `start` until the first draft.
    The process ends with this object.
    """

    def __init__(
        self,
        load: Callable[[], OpenDecoder],
        config: DrafterConfig,
        patience: float = PATIENCE,
        start: float = START,
    ) -> None:
        context = multiprocessing.get_context("spawn")
        connection, theirs = context.Pipe()
        self._connection: Connection | None = connection
        self._process = context.Process(target=_serve, args=(theirs, load, config), daemon=True, name="draft")
        self._process.start()
        theirs.close()  # so that the death of the process ends the stream
        self.patience, self._start = patience, start
        self._started = False
        try:
            problem = connection.recv()  # loading takes as long as it takes
        except (EOFError, OSError):
            problem = "it died"
        if problem is not None:
            self.close()
            if isinstance(problem, InputError):
                raise problem
            raise Failure(f"draft: its process could not load it: {_last_line(problem)}")

    @property
    def pid(self) -> int | None:
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether there are still drafts."""
        return self._connection is not None

    def begin(self, task: Task) -> None:
        # A prompt with pictures may be more than the stream holds: it is sent when the process is known to read.
        if self._ask(None) is not None and self._connection is not None:
            with suppress(OSError):  # the next question finds out
                self._connection.send(task)

    def propose(self, position: int, token: int) -> Proposal | None:
        answer = self._ask((position, token))
        if answer is None:
            return None
        self._started = True
        tokens, rows, ready = answer
        return Proposal(Draft(tokens, None if rows is None else torch.from_numpy(rows)), ready)

    def close(self) -> None:
        """End the process."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._process.join(timeout=2)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _ask(self, message: Any) -> Any:
        """The process's answer; None if there is none any more."""
        if self._connection is None:
            return None
        with suppress(OSError):  # what a process said before it ended is still to be read
            self._connection.send(message)
        patience = self.patience if self._started else max(self.patience, self._start)
        try:
            answered = self._connection.poll(patience)
            answer = self._connection.recv() if answered else f"no answer for {patience:g} s"
        except (EOFError, OSError):
            answer = "it died"
        if isinstance(answer, str):
            log.warning("draft process %s: %s; decoding goes on without drafts", self.pid, _last_line(answer))
            self._process.kill()
            self.close()
            return None
        return answer


def _last_line(text: str) -> str:
    return text.strip().splitlines()[-1]


def _serve(connection: Connection, load: Callable[[], OpenDecoder], config: DrafterConfig) -> None:
    """The process's main loop, until the connection is closed: None asks whether it reads, a `Task` begins a sequence,
    an outcome asks for a draft; while no message is there, the next drafts are prepared. An answer that is a text says
    what failed.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    torch.set_num_threads(1)
    try:
        try:
            drafter = LocalDrafter(load(), config)
        except InputError as error:
            connection.send(error)
            return
        connection.send(None)
        while True:
            message = connection.recv()
            if message is None:
                connection.send(True)
            elif isinstance(message, Task):
                drafter.begin(message)
                drafter.prepare_first()
            else:
                draft, ready = drafter.propose(*message)
                rows: np.ndarray | None = None if draft.chances is None else draft.chances.numpy()
                connection.send((draft.tokens, rows, ready))  # tensors would travel through shared memory
                drafter.prepare(connection.poll)
    except (EOFError, OSError):
        pass
    except Exception:
        connection.send(traceback.format_exc())
