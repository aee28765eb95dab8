"""Nodes as separate processes that start and stop together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import yaml

from vla_policy.utils.processes import dying_with

ELSEWHERE = {"web": "vla_policy.web.live_node"}  # nodes that are not in vla_policy.nodes
PATIENCE = 5.0  # seconds between SIGINT and SIGKILL


class Processes:
    """Starts nodes with `python -m`; leaving the context stops them in reverse order.

    Each has its own process group, so that Ctrl-C reaches only the parent, which stops them in order. If the parent
    is killed the kernel ends them. Output goes to one file each in `log`.
    """

    def __init__(self, log: Path) -> None:
        self._log = log
        self._running: dict[str, subprocess.Popen] = {}
        self._files: list[IO[bytes]] = []
        log.mkdir(parents=True, exist_ok=True)

    def start(self, name: str, **parameters: Any) -> subprocess.Popen:
        """Start the node `vla_policy.nodes.<name>_node`, or the page, with these parameters."""
        words = [word for key, value in parameters.items() for word in ("-p", f"{key}:={_yaml(value)}")]
        output = (self._log / f"{name}.log").open("wb")
        self._files.append(output)
        process = subprocess.Popen(
            [sys.executable, "-m", ELSEWHERE.get(name, f"vla_policy.nodes.{name}_node"), "--ros-args", *words],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,
            preexec_fn=dying_with(os.getpid()),
        )
        self._running[name] = process
        return process

    def __getitem__(self, name: str) -> subprocess.Popen:
        return self._running[name]

    def dead(self) -> dict[str, int]:
        """Exit codes of ended processes, by name."""
        return {name: process.returncode for name, process in self._running.items() if process.poll() is not None}

    def last_words(self, name: str, lines: int = 3) -> str:
        """The end of a node's output."""
        text = (self._log / f"{name}.log").read_text(errors="replace").strip()
        return "\n".join(text.splitlines()[-lines:])

    def stop(self) -> None:
        """Interrupt all in reverse order, and kill those that do not stop."""
        for process in reversed(list(self._running.values())):
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        for process in self._running.values():
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for file in self._files:
            file.close()

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=1 << 20).removesuffix("...\n").strip()
