"""PyBullet without its start-up message: `from sim.bullet import pb`."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
from collections.abc import Iterator

__all__ = ["pb"]


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """PyBullet prints through the C library, which Python's redirects do not affect."""
    saved = {}
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.flush()
    for descriptor in (1, 2):
        with contextlib.suppress(OSError):  # a service may run with it closed
            saved[descriptor] = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
    with open(os.devnull, "w") as nowhere:
        for descriptor in saved:
            os.dup2(nowhere.fileno(), descriptor)
    try:
        yield
    finally:
        for descriptor, copy in saved.items():
            os.dup2(copy, descriptor)
            os.close(copy)


with _silence():
    import pybullet as pb
