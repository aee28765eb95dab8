"""Processes that end with the one that started them."""

from __future__ import annotations

import ctypes
import signal

_PR_SET_PDEATHSIG = 1


_LIBC = ctypes.CDLL(None)  # loaded here: a forked child should not


def die_with_parent() -> None:
    """Let the kernel end this process when the one that started it is gone; for `preexec_fn`."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
