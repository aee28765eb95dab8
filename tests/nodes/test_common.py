"""What the nodes share."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("rclpy")

BROKEN = """
from rclpy.node import Node
from vla_policy.nodes import common

class Broken(Node):
    def __init__(self):
        super().__init__("broken")
        self.ticker = common.Ticker(0.01, self.tick)

    def tick(self):
        raise RuntimeError("the tick broke")

common.run(Broken)
"""


def test_a_tick_that_raises_ends_the_process() -> None:
    result = subprocess.run([sys.executable, "-c", BROKEN], capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert "RuntimeError: the tick broke" in result.stderr
    assert "Traceback" in result.stderr
