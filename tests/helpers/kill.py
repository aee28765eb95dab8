"""A process that kills itself in the middle of its work with files."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate"}


def killed(operation: int, work: Callable[..., object], *args: Any) -> bool:
    """Whether work(*args), in a process of its own, was killed just before it changed files for the nth time.

    Counted are the changes that Python makes; libraries write to temporary files that Python renames.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["helpers.bimanual", "helpers.kill", "vla_policy.data.writing.compact"])
    process = context.Process(target=_work_and_die, args=(operation, work, args))
    process.start()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


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
