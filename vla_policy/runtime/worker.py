"""Slow work in a separate thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

PATIENCE = 3.0  # seconds; a node with a blocked model exits before it would be killed
Question = TypeVar("Question")
Answer = TypeVar("Answer")


class Worker(Generic[Question, Answer]):
    """Processes one question at a time with `work`; `on_answer` and `on_error` are called in the worker's thread.

    `ask` never blocks. A question is refused while another one is being processed: its answer would be late, and a
    newer question will follow.
    """

    def __init__(
        self,
        work: Callable[[Question], Answer],
        on_answer: Callable[[Answer], Any],
        on_error: Callable[[Exception], Any],
    ) -> None:
        self._work, self._on_answer, self._on_error = work, on_answer, on_error
        self._questions: queue.Queue[tuple[Question] | None] = queue.Queue()
        self._busy = threading.Event()
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        return self._busy.is_set()

    def ask(self, question: Question) -> bool:
        """Start to process a question; False if another one is being processed."""
        if self._busy.is_set():
            return False
        self._busy.set()
        self._questions.put((question,))
        return True

    def close(self) -> None:
        """End the thread after the current question; an answer later than `PATIENCE` is discarded."""
        self._questions.put(None)
        self._thread.join(PATIENCE)
        self._on_answer = lambda _: None
        self._on_error = lambda _: None

    def _run(self) -> None:
        while (question := self._questions.get()) is not None:
            try:
                answer = self._work(*question)
                self._on_answer(answer)  # looked up now: `close` may have replaced it
            except Exception as error:  # any error must be reported, so that the arm stops
                self._on_error(error)
            finally:
                self._busy.clear()
