"""What the nodes share."""

from __future__ import annotations

import subprocess
import sys
import time

import psutil
import pytest
from helpers.ros import Spinning, own_domain, wait_for
from std_msgs.msg import String

from vla_policy.nodes import common

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


ENDED = """
from rclpy.node import Node
from vla_policy.interfaces import Failure, InputError
from vla_policy.nodes import common

def make():
    raise {error}

common.run(make)
"""


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        ("InputError('expected a contract, found none')", 2, "expected a contract, found none"),
        ("FileNotFoundError(2, 'No such file', 'a.yaml')", 2, "[Errno 2] No such file: 'a.yaml'"),
        ("Failure('the arm is gone')", 1, "the arm is gone"),
        ("OSError(28, 'No space left on device')", 1, "[Errno 28] No space left on device"),
    ],
)
def test_a_mistake_ends_a_node_with_status_2_and_a_failure_with_status_1(error: str, status: int, line: str) -> None:
    program = [sys.executable, "-c", ENDED.format(error=error)]
    result = subprocess.run(program, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stderr) == (status, f"error: {line}\n")


@pytest.mark.dds
def test_latched_and_volatile_publishers_are_both_received() -> None:
    with own_domain(1), Spinning("desk") as desk, Spinning("robot") as robot:
        desk.create_publisher(String, "latched", common.LATCHED_QOS).publish(String(data="before"))
        heard: list[str] = []
        for topic in ("latched", "plain"):
            keep = lambda message: heard.append(message.data)  # noqa: E731
            common.subscribe_with_latched(robot, String, topic, keep, common.COMMAND_QOS)
        wait_for(lambda: heard == ["before"], "what was said before")
        plain = desk.create_publisher(String, "plain", common.COMMAND_QOS)  # as that of `ros2 topic pub`
        wait_for(plain.get_subscription_count, "the subscription")
        plain.publish(String(data="now"))
        wait_for(lambda: heard == ["before", "now"], "what is said now")


SLEEPER = """
import os, sys
from rclpy.node import Node
from vla_policy.nodes import common

common.run(lambda: Node("sleeper"))
"""
LAUNCHER = """
import subprocess, sys, time
from vla_policy.utils.starter import environment
import os
node = subprocess.Popen([sys.executable, "-c", sys.argv[1]], env=os.environ | environment())
print(node.pid, flush=True)
time.sleep(float(sys.argv[2]))
os._exit(1)
"""


@pytest.mark.dds
@pytest.mark.parametrize("seconds", [0.0, 600.0])
def test_a_node_ends_with_its_launch_even_one_that_ends_before_the_node_runs(seconds: float) -> None:
    words = [sys.executable, "-c", LAUNCHER, SLEEPER, str(seconds)]
    with own_domain(1), subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as launch:
        assert launch.stdout is not None
        node = psutil.Process(int(launch.stdout.readline()))
        if seconds:
            wait_for(lambda: node.num_threads() > 3, "the running node")
            launch.kill()
        wait_for(lambda: not node.is_running() or node.status() == psutil.STATUS_ZOMBIE, "the end of the node")


@pytest.mark.dds
def test_a_node_that_no_launch_started_stays() -> None:
    launcher = LAUNCHER.replace("| environment()", "")
    words = [sys.executable, "-c", launcher, SLEEPER, "0"]
    with own_domain(1), subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as launch:
        assert launch.stdout is not None
        node = psutil.Process(int(launch.stdout.readline()))
        launch.wait(60)
        try:
            wait_for(lambda: node.num_threads() > 3, "the running node")
            time.sleep(1.0)
            assert node.is_running()
        finally:
            node.terminate()


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
