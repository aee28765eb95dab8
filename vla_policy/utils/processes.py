"""Processes that end with the one that started them, and console scripts to start as processes."""

from __future__ import annotations

import ctypes
import signal
import sys

_PR_SET_PDEATHSIG = 1


_LIBC = ctypes.CDLL(None)  # loaded here: a forked child should not


def die_with_parent() -> None:
    """Ask the kernel to terminate this process when its parent ends; for `preexec_fn`."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def console_script(name: str) -> list[str]:
    """The command that runs an installed console script, which ROS 2 installs outside PATH."""
    run = f"from importlib.metadata import entry_points; entry_points(group='console_scripts')[{name!r}].load()()"
    return [sys.executable, "-c", run]
