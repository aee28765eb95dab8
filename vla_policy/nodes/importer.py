"""Imports finished bags into a dataset, one at a time, in low-priority processes."""

from __future__ import annotations

import os
import queue
import subprocess
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

from vla_policy.utils.processes import console_script, dying_with

LEFT_OUT = 1  # exit status of an import that skipped a bag


class Importer:
    """A thread that runs `vla-dataset import-bag` on each queued bag or folder of bags.

    `report(text, problem)` is called with each line of its output. After an import that failed as a whole (full disk,
    another writer) the next one covers all of `bags`. Imports end with this process.
    """

    def __init__(self, bags: Path, dataset: Path, contract: Path, report: Callable[[str, bool], None]) -> None:
        self._bags, self._dataset, self._contract, self._report = bags, dataset, contract, report
        self._queue: queue.Queue[Path | None] = queue.Queue()
        self.failed, self.last_message = False, ""
        self._thread = threading.Thread(target=self._run, name="import", daemon=True)
        self._thread.start()

    def put(self, path: Path) -> None:
        self._queue.put(path)

    def close(self) -> None:
        """Wait until everything is imported."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        repeat = False
        while (path := self._queue.get()) is not None:
            status = self._import(self._bags if repeat else path)
            self.failed, repeat = status != 0, status not in (0, LEFT_OUT)

    def _import(self, path: Path) -> int:
        words = ["import-bag", str(path), str(self._dataset), f"contract={self._contract}"]
        command = [*console_script("vla-dataset"), *words]
        start = partial(_behind, dying_with(os.getpid()))
        done = subprocess.run(command, capture_output=True, text=True, process_group=0, preexec_fn=start)
        lines = done.stdout.strip().splitlines()
        if done.returncode not in (0, LEFT_OUT):
            why = [f"status {done.returncode}", *done.stderr.strip().splitlines()][-1]
            lines.append(f"the import failed and is repeated after the next episode or start: {why}")
        for line in lines:
            self.last_message = line
            self._report(line, done.returncode != 0)
        return done.returncode


def _behind(also: Callable[[], None]) -> None:
    also()
    os.nice(19)
