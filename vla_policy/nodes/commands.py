"""Encoding of an action (D,) as the command message that a controller expects."""

from __future__ import annotations

from typing import Any

import numpy as np

from vla_policy.nodes.common import duration, message_class, stamp
from vla_policy.robot.contract import ARRAY, POSE, POSE_FIELDS, TRAJECTORY, TWIST, Output

_POSE_PLACES = dict(
    zip(POSE_FIELDS, [("position", a) for a in "xyz"] + [("orientation", a) for a in "xyzw"], strict=True)
)


AHEAD = 3  # command periods; with 2, messages that are 4 ms late make a spline exceed the acceleration limit twofold


def encode(
    spec: Output, action: np.ndarray, velocity: np.ndarray, measured: np.ndarray | None, t: float, period: float
) -> Any:
    """An output's message for its part `action` (n,) of the action, stamped `t` seconds.

    The part is in the message's units (`Output.part`), or joint positions (n,) from inverse kinematics; `velocity`
    (n,) is that of the commands. Velocity controllers get the velocity that takes the robot from `measured` (n,) to
    the target within `period` (a control period, seconds), within the speed limit; without `measured`, `velocity`.
    """
    message = message_class(spec.type)()
    if spec.type == ARRAY:
        message.data = action.tolist()
        return message
    message.header.stamp, message.header.frame_id = stamp(t), spec.frame_id
    if spec.type == POSE:
        for field, value in zip(POSE_FIELDS, pose(spec, action).tolist(), strict=True):
            part, axis = _POSE_PLACES[field]
            setattr(getattr(message.pose, part), axis, value)
    elif spec.type == TRAJECTORY:
        message.header.stamp = stamp(0.0)  # "now": a start in the past would be joined without a ramp
        message.joint_names = list(spec.joints)
        message.points = _points(spec, action, velocity)
    else:
        if measured is not None:
            velocity = np.clip((action - measured) / period, -spec.speed, spec.speed)
        for field, value in zip(spec.fields, velocity.tolist(), strict=True):
            setattr(message.twist.linear, field, value)
    return message


def _points(spec: Output, action: np.ndarray, velocity: np.ndarray) -> list[Any]:
    """The next trajectory point with its velocity, and the point where the robot comes to rest if nothing follows.

    Zero velocity at every point would make a controller's splines stop at each command; joint_trajectory_controller
    rejects a non-zero velocity at the last point.
    """
    brake = 1.0 / spec.rate
    if spec.acceleration is not None:  # unknown for joints found by inverse kinematics
        speed = np.abs(velocity) if spec.inverse is None else spec.speed
        brake = max(brake, float(np.max(speed / spec.acceleration)))
    rest = action + velocity * brake / 2
    if spec.inverse is None:
        rest = np.clip(rest, np.minimum(spec.low, action), np.maximum(spec.high, action))
    point = message_class("trajectory_msgs/msg/JointTrajectoryPoint")
    times = duration(AHEAD / spec.rate), duration(AHEAD / spec.rate + brake)
    return [
        point(positions=action.tolist(), velocities=velocity.tolist(), time_from_start=times[0]),
        point(positions=rest.tolist(), velocities=[0.0] * len(action), time_from_start=times[1]),
    ]


def pose(spec: Output, action: np.ndarray) -> np.ndarray:
    """The full pose (7,) of an output's part (n,) of an action, completed by the contract's constants."""
    values = {**spec.constants, **dict(zip(spec.fields, action.tolist(), strict=True))}
    return np.array([values[field] for field in POSE_FIELDS])


def standstill(spec: Output, t: float) -> Any | None:
    """The message, stamped `t` seconds, that stops a velocity-controlled robot; None for position targets."""
    still = np.zeros(len(spec.fields))
    return encode(spec, still, still, None, t, 1.0) if spec.type == TWIST else None
