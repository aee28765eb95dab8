"""Commands in the message types that robots take: adapters from an action (D,) to what a controller expects."""

from __future__ import annotations

from typing import Any

import numpy as np

from vla_policy.nodes.common import duration, message_class, stamp
from vla_policy.robot.contract import ARRAY, POSE, POSE_FIELDS, TRAJECTORY, TWIST, Output

_POSE_PLACES = dict(
    zip(POSE_FIELDS, [("position", a) for a in "xyz"] + [("orientation", a) for a in "xyzw"], strict=True)
)


AHEAD = 3  # periods of commands; with 2, messages that come 4 ms late cost a spline twice the acceleration limit


def encode(
    spec: Output, action: np.ndarray, velocity: np.ndarray, measured: np.ndarray | None, t: float, period: float
) -> Any:
    """An output's message that makes the robot go to its part `action` (n,) of the action, stamped `t` seconds.

    The part is in the message's units (`Output.part`), or joints (n,) if those lead the tip, and `velocity` (n,) is
    that of the commands. `measured` (n,) is where the robot is and `period` a control period in seconds: velocity
    controllers are told to be there after one, no faster than the speed limit. None: they are told `velocity`.
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
        message.points = _points(spec, action, velocity)
    else:
        if measured is not None:
            velocity = np.clip((action - measured) / period, -spec.speed, spec.speed)
        for field, value in zip(spec.fields, velocity.tolist(), strict=True):
            setattr(message.twist.linear, field, value)
    return message


def _points(spec: Output, action: np.ndarray, velocity: np.ndarray) -> list[Any]:
    """The next point of the path, passed at the path's velocity, and where the robot comes to rest if nothing follows.

    With a velocity of zero at every point a controller's splines would stop and go between two commands; a last one
    that is not zero is refused by joint_trajectory_controller.
    """
    brake = 1.0 / spec.rate
    if spec.acceleration is not None:  # that of joints which lead a tip is not known; they brake as long as it may
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
    """The whole pose (7,) that an output's part (n,) of an action means, with what the contract holds constant."""
    values = {**spec.constants, **dict(zip(spec.fields, action.tolist(), strict=True))}
    return np.array([values[field] for field in POSE_FIELDS])


def standstill(spec: Output, t: float) -> Any | None:
    """What stops a robot that goes on with its last command, stamped `t` seconds; None where commands are targets."""
    still = np.zeros(len(spec.fields))
    return encode(spec, still, still, None, t, 1.0) if spec.type == TWIST else None
