"""Nodes end with the launch that started them: one that fails or is killed leaves its processes, a live gate too."""

from __future__ import annotations

import os
import select

STARTER = "VLA_POLICY_STARTER"  # the environment variable with the launch's process id


def environment() -> dict[str, str]:
    """What a launch file of this package gives to its nodes, so that they end with this process."""
    return {STARTER: str(os.getpid())}


class Starter:
    """The launch that started this process; nobody where a person or another program did, with `ros2 run` for instance.

    It is watched by its process id, not as the parent: between the two may be a terminal or a debugger.
    """

    def __init__(self) -> None:
        self._process, self._gone = -1, False
        if STARTER in os.environ:
            try:
                self._process = os.pidfd_open(int(os.environ[STARTER]))
            except ProcessLookupError:
                self._gone = True

    def gone(self) -> bool:
        """Whether there was one and it has ended."""
        return self._gone or (self._process >= 0 and bool(select.select([self._process], [], [], 0)[0]))
