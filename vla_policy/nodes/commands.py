"""Commands in the message types that robots take: adapters from an action (D,) to what a controller expects."""

from __future__ import annotations

from typing import Any

import numpy as np

from vla_policy.contract import ARRAY, POSE, POSE_FIELDS, TRAJECTORY, TWIST, Output
from vla_policy.nodes.common import duration, message_class, stamp

_POSE_PLACES = dict(
    zip(POSE_FIELDS, [("position", a) for a in "xyz"] + [("orientation", a) for a in "xyzw"], strict=True)
)


def encode(spec: Output, action: np.ndarray, measured: np.ndarray, t: float, period: float) -> Any:
    """An output's message that makes the robot go to its part `action` (n,) of the action, stamped `t` seconds.

    The part is in the message's units (`Output.part`), or joints (n,) if those lead the tip. `measured` (n,) is where
    the robot is and `period` a control period in seconds: velocity controllers are told to be there
    after one, no faster than the speed limit.
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
        message.header.stamp = stamp(0.0)  # "now": a point of the past would be entered without a ramp
        message.joint_names = list(spec.joints)
        point = message_class("trajectory_msgs/msg/JointTrajectoryPoint")(
            positions=action.tolist(), velocities=[0.0] * len(action), time_from_start=duration(2.0 / spec.rate)
        )
        message.points = [point]
    else:
        velocity = np.clip((action - measured) / period, -spec.speed, spec.speed)
        for field, value in zip(spec.fields, velocity.tolist(), strict=True):
            setattr(message.twist.linear, field, value)
    return message


def pose(spec: Output, action: np.ndarray) -> np.ndarray:
    """The whole pose (7,) that an output's part (n,) of an action means, with what the contract holds constant."""
    values = {**spec.constants, **dict(zip(spec.fields, action.tolist(), strict=True))}
    return np.array([values[field] for field in POSE_FIELDS])


def standstill(spec: Output, t: float) -> Any | None:
    """What stops a robot that goes on with its last command, stamped `t` seconds; None where commands are targets."""
    here = np.zeros(len(spec.fields))
    return encode(spec, here, here, t, 1.0) if spec.type == TWIST else None
