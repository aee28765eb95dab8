"""Whether anybody takes the commands is asked before the arm is enabled, and whether they are the right joints."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from helpers.ros import FakeRobot, Spinning, own_domain, wait_for
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.parameter import Parameter
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import SetBool
from trajectory_msgs.msg import JointTrajectory

from vla_policy.graph.processes import Processes
from vla_policy.nodes import common
from vla_policy.nodes import controller as controller_module
from vla_policy.nodes.controller import Controller
from vla_policy.robot.contract import ARRAY, TRAJECTORY, Output, load_contract

pytestmark = pytest.mark.dds
TOPIC = "/arm_controller/joint_trajectory"


def contract(folder: Path, kind: str = TRAJECTORY, topic: str = TOPIC) -> Path:
    """Of an arm whose two joints are the channels."""
    state = {"topic": "/joint_states", "type": "sensor_msgs/msg/JointState", "fields": ["j1", "j2"]}
    channels = {"names": ["j1", "j2"], "units": ["rad", "rad"], "fields": ["j1", "j2"]}
    action = {
        "topic": topic,
        "type": kind,
        "frame_id": "base_link",
        "rate": 50,
        "low": [-1.0, -1.0],
        "high": [1.0, 1.0],
    }
    path = folder / "two_joints.yaml"
    data = {
        "robot_type": "two_joints",
        "task": "Reach.",
        "fps": 10,
        "frame": "joints",
        "observations": {"observation.state": state | channels},
        "action": action | channels | {"speed": [0.5, 0.5]},
    }
    path.write_text(yaml.safe_dump(data))
    return path


def command(folder: Path, kind: str = TRAJECTORY, topic: str = TOPIC) -> Output:
    return load_contract(contract(folder, kind, topic)).command.outputs[0]


@contextmanager
def asking(spec: Output) -> Iterator[tuple[Spinning, Controller]]:
    with own_domain(1), Spinning("gate") as node:
        publisher = node.create_publisher(common.message_class(spec.type), spec.topic, common.COMMAND_QOS)
        yield node, Controller(node, publisher, spec, ReentrantCallbackGroup())


def told(node: Spinning, controller: Controller) -> str:
    asked = node.executor.create_task(controller.obstacle)
    wait_for(asked.done, "the controller's obstacle", 10.0)
    return asked.result()


def arm_controller(joints: list[str]) -> Spinning:
    node = Spinning("arm_controller")
    node.declare_parameter("joints", joints)
    return node


def test_commands_without_a_subscriber_are_refused(tmp_path: Path) -> None:
    with asking(command(tmp_path)) as (node, controller):
        expected = f"{TOPIC}: expected a subscriber of trajectory_msgs/msg/JointTrajectory, found "
        assert told(node, controller) == f"{expected}none; does the controller run?"
        with Spinning("other") as other:
            other.create_subscription(JointTrajectory, TOPIC, lambda _: None, common.LATCHED_QOS)  # asks for more
            deaf = f"{expected}only /other, of another type or quality of service"
            wait_for(lambda: told(node, controller) == deaf, "the name of who cannot hear")
            other.create_subscription(JointTrajectory, TOPIC, lambda _: None, common.COMMAND_QOS)
            wait_for(lambda: told(node, controller) == "", "somebody who listens and has no joints to compare")


@pytest.mark.parametrize(
    ("kind", "topic", "joints", "fits"),
    [
        (TRAJECTORY, TOPIC, ["j2", "j1"], True),
        (TRAJECTORY, TOPIC, ["j1", "j3"], False),
        (TRAJECTORY, TOPIC, ["j1", "j2", "j3"], False),
        (ARRAY, "/arm_controller/commands", ["j1", "j2"], True),
        (ARRAY, "/arm_controller/commands", ["j2", "j1"], False),  # nothing names the numbers
    ],
)
def test_a_controller_of_other_joints_is_refused(
    tmp_path: Path, kind: str, topic: str, joints: list[str], fits: bool
) -> None:
    message = JointTrajectory if kind == TRAJECTORY else Float64MultiArray
    with asking(command(tmp_path, kind, topic)) as (node, controller), arm_controller(joints) as arm:
        arm.create_subscription(message, topic, lambda _: None, common.COMMAND_QOS)
        expected = "" if fits else f"/arm_controller: expected a controller of ['j1', 'j2'], found one of {joints}"
        wait_for(lambda: controller._client.service_is_ready(), "the controller's parameters")
        wait_for(lambda: told(node, controller) == expected, f"{expected!r}")


def test_a_controller_that_does_not_answer_is_not_waited_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(controller_module, "ANSWER", 0.2)
    with asking(command(tmp_path)) as (node, controller):
        silent = Spinning("arm_controller")
        silent.declare_parameter("joints", ["other"])
        silent.create_subscription(JointTrajectory, TOPIC, lambda _: None, common.COMMAND_QOS)
        wait_for(lambda: controller._client.service_is_ready(), "the controller's parameters")
        wait_for(lambda: told(node, controller), "its other joints")
        silent._spinner.shutdown(0)  # its service is there, and nobody answers
        assert told(node, controller) == ""
        silent.close()


def test_the_gate_is_enabled_only_with_a_controller_of_its_joints(tmp_path: Path) -> None:
    with own_domain(1), Processes(tmp_path) as processes, FakeRobot() as robot, arm_controller(["j1", "j3"]) as arm:
        processes.start("command_gate", contract=str(contract(tmp_path)), dry_run=False)
        states = arm.create_publisher(JointState, "/joint_states", common.STATE_QOS)

        def live() -> None:
            state = JointState(name=["j1", "j2"], position=[0.0, 0.0])
            state.header.stamp = common.stamp(time.time())
            states.publish(state)

        ticker = common.Ticker(0.02, live)
        expected = "cannot enable: /arm_controller/joint_trajectory: expected a subscriber of"
        wait_for(lambda: robot.enable().message.startswith(expected), "the refusal while nobody listens")
        commands: list[JointTrajectory] = []
        arm.create_subscription(JointTrajectory, TOPIC, commands.append, common.COMMAND_QOS)
        expected = "cannot enable: /arm_controller: expected a controller of ['j1', 'j2'], found one of ['j1', 'j3']"
        wait_for(lambda: robot.enable().message == expected, "the refusal of other joints")
        assert commands == []
        arm.set_parameters([Parameter("joints", value=["j2", "j1"])])
        wait_for(lambda: robot.enable().success, "enabling")
        wait_for(lambda: commands, "commands")
        ticker.close()


def test_disabling_overtakes_an_enabling_that_waits_for_the_controller(tmp_path: Path) -> None:
    with own_domain(1), Processes(tmp_path) as processes, FakeRobot() as robot, arm_controller(["j1", "j2"]) as arm:
        processes.start("command_gate", contract=str(contract(tmp_path)), dry_run=False)
        arm.create_subscription(JointTrajectory, TOPIC, lambda _: None, common.COMMAND_QOS)
        heard = "cannot enable: no messages from"
        wait_for(lambda: robot.enable().message.startswith(heard), "a gate that knows the controller")
        arm._spinner.shutdown(0)  # from now on it leaves questions unanswered

        def overtaken() -> bool:
            asked = robot._enable.call_async(SetBool.Request(data=True))
            assert robot.enable(False).success
            wait_for(asked.done, "the gate's answer")
            return asked.result().message == "cannot enable: another request came meanwhile"

        wait_for(overtaken, "the refusal")
