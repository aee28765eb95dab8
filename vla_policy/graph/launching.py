"""Shared by the launch files. The launch packages are imported where used: they are not available as wheels."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from vla_policy.robot.contract import POSE, Contract, find_config
from vla_policy.utils.starter import environment

SIM = "/pusht_sim"  # namespace of the simulated arm, transforms included
TRANSFORMS = [("/tf", "tf"), ("/tf_static", "tf_static")]
WITH_LAUNCH = "setpriv --pdeathsig TERM"  # ends other packages' nodes if the launch is killed; see starter.py


def parameter(name: str, kind: type = str) -> Any:
    """A launch argument as a node's parameter of this type, whatever it looks like."""
    from launch.substitutions import LaunchConfiguration
    from launch_ros.parameter_descriptions import ParameterValue

    return ParameterValue(LaunchConfiguration(name), value_type=kind)


def node(kind: Any, name: str, parameters: dict[str, Any], files: Sequence[str] = (), **more: Any) -> Any:
    """One of this package's nodes, a `Node` or `LifecycleNode`, which ends with the launch; `files` have more of its
    parameters, in YAML.
    """
    return kind(
        package="vla_policy",
        executable=f"{name}_node",
        name=name,
        namespace="",
        output="screen",
        parameters=[parameters, *files],
        additional_env=environment(),
        **more,
    )


def entities(arguments: Mapping[str, tuple[str, str]], nodes: Callable[..., list[Any]]) -> list[Any]:
    """Of a launch description: `arguments` with their defaults and explanations, and what `nodes(context)` returns."""
    from launch.actions import DeclareLaunchArgument, OpaqueFunction

    declared = [
        DeclareLaunchArgument(name, default_value=value, description=what) for name, (value, what) in arguments.items()
    ]
    return [*declared, OpaqueFunction(function=nodes)]


def watched(context: Any) -> bool:
    """Whether a calibrated monitor is to run; `RuntimeError` unless it knows the chunks that it would watch."""
    from launch.substitutions import LaunchConfiguration

    calibration, server, checkpoint, chunking = (
        LaunchConfiguration(name).perform(context) for name in ("calibration", "server", "checkpoint", "chunking")
    )
    if calibration and chunking != "async":
        raise RuntimeError(f"chunking: expected async, for which the monitor was calibrated, found {chunking!r}")
    if calibration and server and not checkpoint:
        raise RuntimeError(f"checkpoint: expected the policy of {server}, which is to be watched, found none")
    return bool(calibration)


def served() -> dict[str, Any]:
    """The policy's parameters for chunks that a server computes."""
    return {"server": parameter("server"), "jpeg": parameter("jpeg", int)}


def flag(context: Any, name: str, default: bool = False) -> bool:
    """A boolean launch argument; empty means the default."""
    from launch.substitutions import LaunchConfiguration

    text = LaunchConfiguration(name).perform(context).lower()
    if text not in ("", "true", "false"):
        raise RuntimeError(f"{name}: expected true, false or nothing, found {text!r}")
    return text == "true" if text else default


def installed(package: str) -> bool:
    """Whether this ROS package is installed."""
    from ament_index_python.packages import PackageNotFoundError, get_package_prefix

    try:
        get_package_prefix(package)
    except (PackageNotFoundError, OSError):  # the latter where no workspace is sourced
        return False
    return True


def require(package: str, argument: str) -> None:
    """`RuntimeError` if a launch argument needs a ROS package that is not installed."""
    if not installed(package):
        raise RuntimeError(f"{argument}: expected {package} to be installed, found no such package")


def without_gate(_event: Any, context: Any) -> list[Any]:
    """End the launch when the gate's process has ended, for `on_exit`, unless the launch is ending already."""
    from launch.actions import Shutdown

    return [] if context.is_shutdown else [Shutdown(reason="the command gate has ended")]


def gamepad() -> list[Any]:
    """The gamepad driver node."""
    require("joy", "joy")
    return [_node("joy", "joy_node", "")]


def robot_state_publisher(urdf: Path, namespace: str = "") -> list[Any]:
    """The robot_state_publisher node, where it is installed."""
    if not installed("robot_state_publisher"):
        return []
    description = {"robot_description": urdf.read_text(encoding="utf-8")}
    return [_node("robot_state_publisher", "robot_state_publisher", namespace, parameters=[description])]


def camera_transform(frame_id: str, camera: str, extrinsics: np.ndarray, namespace: str) -> list[Any]:
    """A static transform publisher for a camera; `extrinsics` (4, 4) maps frame coordinates to the camera's."""
    if not installed("tf2_ros"):
        return []
    pose = np.linalg.inv(extrinsics)
    values = [*pose[:3, 3], *Rotation.from_matrix(pose[:3, :3]).as_quat()]
    names = ("x", "y", "z", "qx", "qy", "qz", "qw")
    words = [word for name, value in zip(names, values, strict=True) for word in (f"--{name}", f"{value:.9f}")]
    words += ["--frame-id", frame_id, "--child-frame-id", camera]
    return [_node("tf2_ros", "static_transform_publisher", namespace, arguments=words)]


def rviz(contract: Contract, namespace: str = "") -> list[Any]:
    """RViz with the package's view, remapped to the contract's topics."""
    require("rviz2", "rviz")
    topics = [(f"{SIM}/robot_description", f"{namespace}/robot_description")]
    topics += [
        (f"{SIM}/camera/image_raw", contract.stream(camera).source.topic) for camera in contract.interface.cameras[:1]
    ]
    poses = [output.topic for output in contract.command.outputs if output.type == POSE]
    topics += [(f"{SIM}/target_pose", topic) for topic in poses[:1]]
    arguments = ["-d", str(find_config("pusht", ".rviz", "rviz")), "-f", contract.command.frame_id]
    return [_node("rviz2", "rviz2", namespace, arguments=arguments, topics=topics)]


def _node(package: str, executable: str, namespace: str, topics: Sequence[tuple[str, str]] = (), **more: Any) -> Any:
    from launch_ros.actions import Node

    remappings = [*TRANSFORMS, *((before, after) for before, after in topics if before != after)]
    return Node(
        package=package,
        executable=executable,
        namespace=namespace,
        remappings=remappings if namespace else remappings[len(TRANSFORMS) :],
        output="screen",
        prefix=WITH_LAUNCH if shutil.which("setpriv") else None,
        **more,
    )
