"""The policy's node with a server: whatever becomes of that, the node goes on, says stop, and recovers by itself."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.ros import Sensors, activate, own_domain, spinning, wait_for
from helpers.serving import INTERFACE, Sway, listening, process, served, serving
from rclpy.lifecycle import TransitionCallbackReturn

from vla_policy.interfaces import ActionChunk, InputError
from vla_policy.nodes import policy_node
from vla_policy.nodes.model import served_policy
from vla_policy.robot.contract import load_contract
from vla_policy.serving.server import PolicyServer

pytestmark = pytest.mark.dds


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Any]:
    with process(tmp_path / "server.log") as server:
        yield server


def test_a_stalled_and_a_killed_server_are_a_silent_policy(server: Any) -> None:
    address = f"ws://127.0.0.1:{server.port}"
    with own_domain(2), spinning(policy_node.PolicyNode, f"server:={address}") as node, closing(Sensors()) as robot:
        activate(node)
        wait_for(lambda: robot.stops[-3:] == [False] * 3, "leave to move")
        robot.tell("push it")
        wait_for(lambda: node.values()["instruction"] == "push it", "an instruction")
        wait_for(lambda: node.problem() == "", "chunks for it")

        server.process.send_signal(signal.SIGSTOP)
        wait_for(lambda: robot.stops[-3:] == [True] * 3, "stop")
        assert "no answer of the model" in node.problem()
        robot.tell("sing")  # the node listens meanwhile, and does not wait for the server to read it
        wait_for(lambda: node.values()["instruction"] == "sing", "an instruction")
        seen = len(robot.stops)
        wait_for(lambda: len(robot.stops) > seen + 10, "heartbeats")
        assert all(robot.stops[seen:])
        server.process.send_signal(signal.SIGCONT)
        wait_for(lambda: node.problem() == "cannot read 'sing'", "the server's opinion")
        robot.tell("push it")
        wait_for(lambda: node.problem() == "", "chunks for it")
        wait_for(lambda: robot.stops[-3:] == [False] * 3, "leave to move")

        server.process.kill()
        wait_for(lambda: robot.stops[-3:] == [True] * 3, "stop")
        wait_for(lambda: node.problem().startswith(f"server {address}: "), "the reason")
        server.process.wait()
        server.start()
        wait_for(lambda: robot.stops[-3:] == [False] * 3, "leave to move")


def test_what_the_robot_does_not_provide_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    contract = load_contract("pusht_sim")
    faster = replace(INTERFACE, fps=20)
    with (
        serving(interface=faster) as address,
        pytest.raises(InputError, match=rf"server {address} and robot contract pusht_sim do not fit: fps"),
    ):
        served_policy(contract, address, 0, "")
    with own_domain(2), spinning(policy_node.PolicyNode, f"server:={address}") as node:
        assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
        assert address in node.error  # nobody is there any more
        with serving(Sway(), port=int(address.rpartition(":")[2])):
            assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS


def test_a_configuration_that_fails_afterwards_leaves_the_server() -> None:
    class Broken(Sway):
        def predict(self, histories: Any, generator: Any) -> list[ActionChunk]:
            raise ZeroDivisionError("no more memory")

    server = PolicyServer(Broken(), served(Broken()))
    with (
        listening(server) as address,
        own_domain(2),
        spinning(policy_node.PolicyNode, f"server:={address}") as node,
    ):
        assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
        assert "no more memory" in node.error
        wait_for(lambda: not server._clients, "the end of the connection", 10.0)
