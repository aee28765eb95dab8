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


GATE = [sys.executable, "-m", "vla_policy.nodes.command_gate_node", "--ros-args"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-p", "heartbeats:=[]"], "parameter 'heartbeats': expected a list, found None"),
        (["-p", "dry_run:=maybe"], "parameter 'dry_run': expected a bool, found 'maybe'"),
        (["-p", "contract"], "Couldn't parse parameter override rule"),
        (["-r", "__node:=bad name"], "Couldn't parse remap rule"),
        (["--params-file", "/nowhere.yaml"], "Couldn't parse params file"),
    ],
)
def test_a_mistake_at_the_start_is_one_line(arguments: list[str], message: str) -> None:
    result = subprocess.run([*GATE, *arguments], capture_output=True, text=True, timeout=60)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert result.stderr.splitlines()[-1].startswith("error: ")
    assert message in result.stderr.splitlines()[-1]


MISTYPED = """
from rclpy.node import Node
from vla_policy.nodes import common

class Small(Node):
    def __init__(self):
        super().__init__("small")
        common.parameter(self, "dry_run", True, "")
        common.CRASHED.set()

common.run(Small)
"""


def test_a_mistyped_parameter_is_told() -> None:
    command = [sys.executable, "-c", MISTYPED, "--ros-args", "-p", "dry_rnu:=true"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "parameter 'dry_rnu': expected one of ['dry_run', " in result.stdout + result.stderr
