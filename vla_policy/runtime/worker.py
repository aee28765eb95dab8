"""Slow work in a thread of its own, so that whoever asks for it goes on with what is due."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

PATIENCE = 3.0  # seconds; a node whose model hangs ends all the same, before it would be killed
Question = TypeVar("Question")
Answer = TypeVar("Answer")


class Worker(Generic[Question, Answer]):
    """Does one piece of `work` at a time; `on_answer` and `on_error` are called in the worker's thread.

    `ask` never waits. What comes while another question is being answered is refused: its answer would be late, and a
    newer question will be there by then.
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
        """Begin to answer; False if another question is being answered."""
        if self._busy.is_set():
            return False
        self._busy.set()
        self._questions.put((question,))
        return True

    def close(self) -> None:
        """End the thread after the answer in progress; one that takes longer than `PATIENCE` is never heard of."""
        self._questions.put(None)
        self._thread.join(PATIENCE)
        self._on_answer = lambda _: None
        self._on_error = lambda _: None

    def _run(self) -> None:
        while (question := self._questions.get()) is not None:
            try:
                answer = self._work(*question)
                self._on_answer(answer)  # looked up only now: `close` may have taken it away
            except Exception as error:  # whatever it is, the arm has to hear of it
                self._on_error(error)
            finally:
                self._busy.clear()
