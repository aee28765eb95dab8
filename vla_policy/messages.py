"""What ROS messages say, as arrays. Read by their attributes: live messages and those of a bag look alike."""

from __future__ import annotations

from typing import Any

import numpy as np

from vla_policy.contract import ARRAY, IMAGE, JOINT_STATE, POSE, POSE_FIELDS, TRAJECTORY, CommandSpec, Stream
from vla_policy.interfaces import STATE, InputError
from vla_policy.kinematics import Kinematics

_CHANNELS = {"rgb8": (0, 1, 2), "bgr8": (2, 1, 0), "rgba8": (0, 1, 2), "bgra8": (2, 1, 0), "mono8": (0, 0, 0)}
_BYTES = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1}


def seconds(stamp: Any) -> float:
    """A `builtin_interfaces/Time` or `Duration` in seconds."""
    return float(stamp.sec + 1e-9 * stamp.nanosec)


def decode(message: Any, stream: Stream) -> np.ndarray:
    """The feature of a stream: an image (H, W, 3) uint8 RGB or a vector (D,) float32.

    `InputError` names the stream and what does not fit: encoding, size, a joint the robot does not have.
    """
    if stream.type == IMAGE:
        return _image(message, stream)
    if stream.kinematics is not None:
        return tip(joints(message, stream.kinematics, stream.topic), stream.fields, stream.kinematics)
    if stream.type == JOINT_STATE:
        return _by_name(message.name, message.position, stream.fields, stream.topic)
    return _pose_fields(message, stream.fields)


def joints(message: Any, kinematics: Kinematics, topic: str) -> np.ndarray:
    """The joints (n,) of a JointState, in the kinematics' order; `InputError` if it lacks one."""
    return _by_name(message.name, message.position, kinematics.joints, topic)


def tip(joints: np.ndarray, wanted: tuple[str, ...], kinematics: Kinematics) -> np.ndarray:
    """Fields of the tip's pose where the joints (n,) are."""
    pose = dict(zip(POSE_FIELDS, kinematics.pose(joints), strict=True))
    return np.array([pose[name] for name in wanted], np.float32)


def require_frame(message: Any, stream: Stream, frame_id: str) -> None:
    """`InputError` if a pose is of another frame than the commands', where they have one."""
    if stream.type == POSE and frame_id and message.header.frame_id != frame_id:
        raise InputError(
            f"{stream.topic}: frame_id: expected the commands' {frame_id!r}, found {message.header.frame_id!r}"
        )


# What is off when the arm is enabled the first command removes at once, at whatever speed the arm's controller allows.
CONSTANT_TOLERANCE = {"x": 0.005, "y": 0.005, "z": 0.005}  # metres
TURN_TOLERANCE = 0.03  # of a quaternion's numbers, about 3 degrees
SLACK = 4.0  # times as far may be an arm that follows its commands: by its weight, or because it moves


def away_from_constants(message: Any, spec: CommandSpec, following: bool = False) -> str:
    """Which constants of the commanded poses the measured one is far from; "" if none, or if it is no pose.

    `following`: the constants were commanded already, so that the next command removes no difference at once.
    """
    wanted = np.array(list(spec.constants.values()))
    if spec.kinematics is not None:
        found = tip(joints(message, spec.kinematics, STATE), tuple(spec.constants), spec.kinematics).astype(float)
    elif spec.type == POSE and hasattr(message, "pose"):
        found = _pose_fields(message, tuple(spec.constants)).astype(float)
    else:
        return ""
    turning = np.array([name.startswith("q") for name in spec.constants], bool)
    if turning.any() and np.dot(found[turning], wanted[turning]) < 0:
        found[turning] *= -1  # a quaternion and its negative are the same orientation
    most = np.array([CONSTANT_TOLERANCE.get(name, TURN_TOLERANCE) for name in spec.constants])
    near = np.abs(found - wanted) <= most * (SLACK if following else 1.0)  # no number is near either
    names = np.array(list(spec.constants))[~near]
    told = [f"{n}: expected {spec.constants[n]:g}, found {found[list(spec.constants).index(n)]:.3g}" for n in names]
    return f"the measured pose is away from the commands' constants ({'; '.join(told)})" if told else ""


def decode_command(message: Any, spec: CommandSpec) -> np.ndarray:
    """The action (D,) float32 of a robot's command message; `InputError` if it lacks a channel."""
    if spec.type == POSE:
        return _pose_fields(message, spec.fields)
    names = spec.fields if spec.inverse is None else spec.inverse.joints
    if spec.type == ARRAY:
        values = np.asarray(message.data, np.float32)
        if values.shape != (len(names),):
            raise InputError(f"{spec.topic}: expected {len(names)} numbers, found {len(values)}")
        return values if spec.inverse is None else tip(values, spec.fields, spec.inverse)
    if spec.type == TRAJECTORY and len(message.points):
        values = _by_name(message.joint_names, message.points[-1].positions, names, spec.topic)
        return values if spec.inverse is None else tip(values, spec.fields, spec.inverse)
    raise InputError(f"{spec.topic}: expected absolute targets, found a {spec.type} without any")


def _image(message: Any, stream: Stream) -> np.ndarray:
    height, width, _ = stream.feature.shape
    if message.encoding not in _CHANNELS:
        raise InputError(f"{stream.topic}: encoding: expected one of {list(_CHANNELS)}, found {message.encoding!r}")
    if (message.height, message.width) != (height, width):
        found = f"{message.height} x {message.width}"
        raise InputError(f"{stream.topic}: expected {height} x {width} pixels, found {found}")
    depth = _BYTES[message.encoding]
    data = np.frombuffer(message.data, np.uint8)
    if len(data) != height * message.step or message.step < width * depth:
        raise InputError(
            f"{stream.topic}: expected {height} rows of {width * depth} bytes or more, found {len(data)} bytes in rows "
            f"of {message.step}"
        )
    rows = data.reshape(height, message.step)[:, : width * depth].reshape(height, width, depth)
    return np.ascontiguousarray(rows[..., _CHANNELS[message.encoding]])


def _by_name(names: Any, values: Any, wanted: tuple[str, ...], topic: str) -> np.ndarray:
    found = dict(zip(names, values, strict=False))
    missing = [name for name in wanted if name not in found]
    if missing:
        raise InputError(f"{topic}: expected the joints {missing}, found {sorted(found)}")
    return np.array([found[name] for name in wanted], np.float32)


def _pose_fields(message: Any, wanted: tuple[str, ...]) -> np.ndarray:
    p, q = message.pose.position, message.pose.orientation
    values = {"x": p.x, "y": p.y, "z": p.z, "qx": q.x, "qy": q.y, "qz": q.z, "qw": q.w}
    return np.array([values[name] for name in wanted], np.float32)
