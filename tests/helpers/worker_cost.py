"""What a simulation worker costs, told by the environment in it. Imports nothing that the worker does not need."""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium


class Reporting(gymnasium.Wrapper):
    """Writes into `out` when an episode ends: the modules of its process, the CPU seconds that it took to start, and
    its resident MB.
    """

    def __init__(self, env_factory: Callable[[], gymnasium.Env], out: Path) -> None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        self._out, self._cpu = out, used.ru_utime + used.ru_stime
        super().__init__(env_factory())

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        stepped = self.env.step(action)
        if stepped[2] or stepped[3]:
            resident = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
            found = {"modules": sorted(sys.modules), "cpu_seconds": self._cpu, "resident_mb": resident}
            self._out.write_text(json.dumps(found))
        return stepped
