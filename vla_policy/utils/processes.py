"""Processes that end with the one that started them, and console scripts to start as processes."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1


_LIBC = ctypes.CDLL(None)  # loaded here: a forked child should not


def dying_with(parent: int) -> Callable[[], None]:
    """A `preexec_fn` that has the kernel terminate the new process when `parent`, the process that starts it, ends."""

    def ask() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # until it runs its own program, the parent's handler is in place
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it had ended before the kernel was asked
            os.kill(os.getpid(), signal.SIGTERM)

    return ask


def console_script(name: str) -> list[str]:
    """The command that runs an installed console script, which ROS 2 installs outside PATH."""
    run = f"from importlib.metadata import entry_points; entry_points(group='console_scripts')[{name!r}].load()()"
    return [sys.executable, "-c", run]
