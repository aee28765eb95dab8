"""A policy asked in a thread of its own, so that whoever asks goes on with what is due."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence

import numpy as np

from vla_policy.interfaces import ActionChunk, Observation, Policy


class InferenceWorker:
    """Answers one window at a time; `on_chunk` and `on_error` are called in the worker's thread.

    `ask` never waits. A window that comes while another is being answered is refused: its answer would be late, and a
    newer observation will be there by then.
    """

    def __init__(
        self,
        policy: Policy,
        generator: np.random.Generator,
        on_chunk: Callable[[ActionChunk], None],
        on_error: Callable[[Exception], None],
    ) -> None:
        self._policy, self._generator = policy, generator
        self._on_chunk, self._on_error = on_chunk, on_error
        self._windows: queue.Queue[Sequence[Observation] | None] = queue.Queue()
        self._busy = threading.Event()
        self._thread = threading.Thread(target=self._work, name="inference", daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        return self._busy.is_set()

    def ask(self, window: Sequence[Observation]) -> bool:
        """Begin to answer this window; False if another is being answered."""
        if self._busy.is_set():
            return False
        self._busy.set()
        self._windows.put(window)
        return True

    def close(self) -> None:
        """Wait for the answer in progress and end the thread."""
        self._windows.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (window := self._windows.get()) is not None:
            try:
                self._on_chunk(self._policy.predict([window], self._generator)[0])
            except Exception as error:  # whatever it is, the arm has to hear of it
                self._on_error(error)
            finally:
                self._busy.clear()
