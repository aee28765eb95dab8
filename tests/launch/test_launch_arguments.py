"""What launch files start, without `launch`: its classes are stand-ins that keep what they were made with."""

from __future__ import annotations

import os
import runpy
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from scipy.spatial.transform import Rotation

from sim.config import PushTConfig
from vla_policy.graph import launching
from vla_policy.interfaces import InputError
from vla_policy.robot.contract import load_contract

ROOT = Path(__file__).parents[2]
ROS = ("robot_state_publisher", "tf2_ros", "rviz2")


class Argument:
    """A LaunchConfiguration: its value is in the context."""

    def __init__(self, name: str) -> None:
        self.name = name

    def perform(self, context: dict[str, str]) -> str:
        return context[self.name]


def _made(*args: Any, **kwargs: Any) -> SimpleNamespace:
    return SimpleNamespace(**kwargs)


CLASSES = {
    "launch": {"LaunchDescription": _made},
    "launch.actions": {"DeclareLaunchArgument": _made, "OpaqueFunction": _made, "Shutdown": _made},
    "launch.conditions": {"IfCondition": _made},
    "launch.substitutions": {"LaunchConfiguration": Argument},
    "launch_ros": {},
    "launch_ros.actions": {"Node": _made, "LifecycleNode": _made},
    "launch_ros.parameter_descriptions": {"ParameterValue": _made},
}


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The nodes that a launch file starts with these arguments, by executable; `found` are the packages there are."""
    for name, classes in CLASSES.items():
        module = ModuleType(name)
        vars(module).update(classes)
        monkeypatch.setitem(sys.modules, name, module)

    def start(file: str, found: tuple[str, ...] = (), **chosen: str) -> dict[str, SimpleNamespace]:
        monkeypatch.setattr(launching, "installed", lambda package: package in found)
        monkeypatch.setattr(launching.shutil, "which", lambda name: f"/usr/bin/{name}")
        launch = runpy.run_path(str(ROOT / "launch" / f"{file}.launch.py"))
        context = {name: value for name, (value, _) in launch["ARGUMENTS"].items()} | chosen
        return {node.executable: node for node in launch["nodes"](context)}

    return start


def test_collecting_sends_commands_to_a_real_arm_only_if_asked(launched: Any) -> None:
    def started(**chosen: str) -> tuple[bool, bool]:
        nodes = launched("collect", **chosen)
        return nodes["command_gate_node"].parameters[0]["dry_run"], "pusht_sim_node" in nodes

    assert started() == (False, True)
    assert started(contract="xarm6") == (True, False)
    assert started(contract="xarm6", dry_run="false") == (False, False)
    with pytest.raises(InputError, match="expected the simulated"):
        started(contract="xarm6", sim="true")
    assert "teleop_node" in launched("collect")
    assert "teleop_node" not in launched("collect", teleop="false")


def test_the_simulated_arm_is_described_where_ros_is_installed_and_below_its_name(launched: Any) -> None:
    assert "robot_state_publisher" not in launched("pusht")
    nodes = launched("pusht", ROS, rviz="true")
    publisher, camera, rviz = (nodes[name] for name in ("robot_state_publisher", "static_transform_publisher", "rviz2"))
    assert all(node.namespace == "/pusht_sim" for node in (publisher, camera, rviz))
    assert all(("/tf", "tf") in node.remappings for node in (publisher, camera, rviz))
    links = ElementTree.fromstring(publisher.parameters[0]["robot_description"]).findall("link")
    assert {"base_link", "link_base", "pusher"} <= {link.get("name") for link in links}
    given = dict(zip(camera.arguments[::2], camera.arguments[1::2], strict=True))
    config = PushTConfig().cameras["top"]
    np.testing.assert_allclose([float(given[f"--{axis}"]) for axis in "xyz"], config.position, atol=1e-6)
    forward = Rotation.from_quat([float(given[f"--q{axis}"]) for axis in "xyzw"]).apply([0, 0, 1])
    aim = np.array(config.target) - config.position
    np.testing.assert_allclose(forward, aim / np.linalg.norm(aim), atol=1e-6)  # an optical frame: z looks
    assert "rviz2" not in launched("pusht", ROS)


def test_a_real_arms_own_description_is_left_alone(launched: Any) -> None:
    assert "robot_state_publisher" not in launched("robot", ROS)
    nodes = launched("robot", ROS, urdf="xarm6_pusher", rviz="true")
    assert nodes["robot_state_publisher"].remappings == []
    renamed = dict(nodes["rviz2"].remappings)
    assert renamed["/pusht_sim/camera/image_raw"] == "/camera/color/image_square"
    assert renamed["/pusht_sim/target_pose"] == "/target_pose"
    assert renamed["/pusht_sim/robot_description"] == "/robot_description"
    assert nodes["rviz2"].arguments[-2:] == ["-f", "link_base"]


def test_what_cannot_be_shown_is_refused(launched: Any) -> None:
    with pytest.raises(RuntimeError, match="urdf: expected robot_state_publisher to be installed, found no such"):
        launched("robot", urdf="xarm6_pusher")
    with pytest.raises(RuntimeError, match="rviz: expected rviz2 to be installed, found no such package"):
        launched("pusht", rviz="true")
    with pytest.raises(RuntimeError, match="rviz: expected true, false or nothing, found 'perhaps'"):
        launched("robot", rviz="perhaps")


def test_needs_are_looked_for_before_anything_is_started(launched: Any) -> None:
    with pytest.raises(RuntimeError, match="joy: expected joy to be installed, found no such package"):
        launched("robot", joy="true", dry_run="false")
    with pytest.raises(RuntimeError, match="joy: expected joy to be installed, found no such package"):
        launched("collect", joy="true")
    with pytest.raises(InputError, match="found 'nowhere'"):
        launched("robot", contract="nowhere")
    assert "joy_node" not in launched("collect")  # which goes on without
    assert "joy_node" in launched("collect", ("joy",))
    assert "joy_node" not in launched("collect", ("joy",), joy="false")
    assert {"joy_node", "teleop_node"} <= set(launched("robot", ("joy",), joy="true"))


@pytest.mark.parametrize("file", ["pusht", "robot"])
def test_a_server_takes_the_place_of_a_checkpoint_unless_a_monitor_has_to_know_it(launched: Any, file: str) -> None:
    policy = launched(file, server="ws://gpu:8765")["policy_node"].parameters[0]
    assert {"server", "jpeg", "checkpoint"} <= set(policy)
    watched = {"server": "ws://gpu:8765", "calibration": "checkpoints/pusht_monitor"}
    with pytest.raises(RuntimeError, match="checkpoint: expected the policy of ws://gpu:8765, which is to be watched"):
        launched(file, **watched)
    assert "surprise_monitor_node" in launched(file, checkpoint="checkpoints/pusht_image", **watched)
    assert "surprise_monitor_node" in launched(file, calibration="checkpoints/pusht_monitor")
    with pytest.raises(
        RuntimeError, match="chunking: expected async, for which the monitor was calibrated, found 'rtc'"
    ):
        launched(file, calibration="checkpoints/pusht_monitor", chunking="rtc")


@pytest.mark.parametrize("file", ["collect", "pusht", "robot"])
def test_nodes_end_with_their_launch_and_that_with_the_gate(launched: Any, file: str) -> None:
    for name, node in launched(file, (*ROS, "joy")).items():
        if node.package == "vla_policy":
            assert node.additional_env == {"VLA_POLICY_STARTER": str(os.getpid())}
        else:
            assert node.prefix == "setpriv --pdeathsig TERM"
        assert hasattr(node, "on_exit") == (name == "command_gate_node")
    gate = launched(file)["command_gate_node"]
    assert [end.reason for end in gate.on_exit(None, SimpleNamespace(is_shutdown=False))] == [
        "the command gate has ended"
    ]
    assert gate.on_exit(None, SimpleNamespace(is_shutdown=True)) == []


def test_the_view_shows_what_the_simulation_sends() -> None:
    view = yaml.safe_load((ROOT / "rviz" / "pusht.rviz").read_text())["Visualization Manager"]
    contract = load_contract(ROOT / "config" / "pusht_sim.yaml")
    assert view["Global Options"]["Fixed Frame"] == contract.command.frame_id
    shown = {display["Class"].rpartition("/")[2]: display for display in view["Displays"]}
    assert {"Image", "RobotModel", "TF", "Pose"} <= set(shown)
    assert shown["Image"]["Topic"]["Value"] == contract.stream("observation.images.top").source.topic
    assert shown["Image"]["Topic"]["Reliability Policy"] == "Best Effort"  # as pictures are sent
    assert shown["Pose"]["Topic"]["Value"] == contract.command.outputs[0].topic
    assert shown["RobotModel"]["Description Topic"]["Durability Policy"] == "Transient Local"


def test_packages_are_looked_for_without_harm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("ament_index_python")
    for prefixes in ("", str(tmp_path)):
        monkeypatch.setenv("AMENT_PREFIX_PATH", prefixes)
        assert not launching.installed("rviz2")
    (tmp_path / "share" / "ament_index" / "resource_index" / "packages").mkdir(parents=True)
    (tmp_path / "share" / "ament_index" / "resource_index" / "packages" / "rviz2").touch()
    assert launching.installed("rviz2")


def test_a_file_has_more_parameters_of_the_policy(launched: Any) -> None:
    assert len(launched("robot")["policy_node"].parameters) == 1
    assert launched("robot", policy_params="planner.yaml")["policy_node"].parameters[1] == "planner.yaml"
