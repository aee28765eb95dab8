"""Lets nodes end with the launch that started them: a launch that fails or is killed leaves its processes running."""

from __future__ import annotations

import os
import select

STARTER = "VLA_POLICY_STARTER"  # the environment variable with the launch's process id


def environment() -> dict[str, str]:
    """Environment variables for nodes that are to end with this process, the launch."""
    return {STARTER: str(os.getpid())}


class Starter:
    """The launch that started this process, if any; a process of `ros2 run`, for instance, has none.

    It is tracked by its process id rather than as the parent: a terminal or a debugger may be in between.
    """

    def __init__(self) -> None:
        self._process, self._gone = -1, False
        if STARTER in os.environ:
            try:
                self._process = os.pidfd_open(int(os.environ[STARTER]))
            except ProcessLookupError:
                self._gone = True

    def gone(self) -> bool:
        """Whether there was a launch that has ended."""
        return self._gone or (self._process >= 0 and bool(select.select([self._process], [], [], 0)[0]))
