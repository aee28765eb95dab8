"""Processes that are killed in the middle of their work with files."""

import itertools
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import numpy as np
from helpers.bimanual import TASK, bimanual_episode, bimanual_interface

from vla_policy.data import LeRobotWriter
from vla_policy.data.writing.compact import compact

CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate"}


def killed(operation: int, work: Callable[..., object], *args: Any) -> bool:
    """Whether work(*args), in a process of its own, was killed just before it changed files for the nth time.

    Counted are the changes that Python makes; libraries write to temporary files that Python renames.
    """
    process = _context().Process(target=_work_and_die, args=(operation, work, args))
    process.start()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def kill_after(seconds: float, work: Callable[[Path, Event], None], root: Path) -> None:
    """Run work(root, ready) in a process, and kill it so many seconds after it has set `ready`."""
    context = _context()
    ready = context.Event()
    process = context.Process(target=work, args=(root, ready))
    process.start()
    while not ready.wait(1.0):
        assert process.is_alive()
    time.sleep(seconds)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def write_episodes(root: Path, ready: Event) -> None:
    """Append episode after episode."""
    writer = LeRobotWriter(root, bimanual_interface())
    ready.set()
    for i in itertools.count(writer.num_episodes):
        writer.add_episode(*numbered_episode(i), TASK)


def compact_repeatedly(root: Path, ready: Event) -> None:
    ready.set()
    while True:
        compact(root, video_mb=0.05)


def numbered_episode(i: int) -> tuple[dict, dict]:
    """Always the same for a number."""
    return bimanual_episode(np.random.default_rng(i), 10 + i % 5)


def _context() -> ForkServerContext:
    """Processes of it need no time for imports."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["helpers.kill"])
    return context


def _work_and_die(operation: int, work: Callable[..., object], args: tuple) -> None:
    left = operation

    def count(event: str, details: tuple) -> None:
        nonlocal left
        if event in CHANGES or (event == "open" and details[2] & (os.O_WRONLY | os.O_RDWR)):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    work(*args)
    os._exit(0)
