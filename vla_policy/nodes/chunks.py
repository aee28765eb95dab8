"""Action chunks as `trajectory_msgs/JointTrajectory`: stamped with t_obs, named channels, one point a row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from vla_policy.interfaces import ActionChunk, InputError
from vla_policy.messages import seconds
from vla_policy.nodes.common import duration, stamp


def chunk_message(chunk: ActionChunk, names: Sequence[str], frame: str) -> JointTrajectory:
    message = JointTrajectory(joint_names=list(names))
    message.header.stamp, message.header.frame_id = stamp(chunk.t_obs), frame
    message.points = [
        JointTrajectoryPoint(positions=row.tolist(), time_from_start=duration(k * chunk.dt))
        for k, row in enumerate(chunk.actions)
    ]
    return message


def chunk_of(message: JointTrajectory, names: Sequence[str]) -> ActionChunk:
    """The chunk; `InputError` for other channels, rows of another length and uneven times."""
    if list(message.joint_names) != list(names):
        raise InputError(f"action chunk: expected the channels {list(names)}, found {list(message.joint_names)}")
    if len(message.points) < 2 or any(len(point.positions) != len(names) for point in message.points):
        raise InputError(f"action chunk: expected 2 rows or more of {len(names)} numbers, found others")
    times = np.array([seconds(point.time_from_start) for point in message.points])
    dt = times[1] - times[0]
    if times[0] != 0 or not np.allclose(np.diff(times), dt, rtol=0, atol=1e-6):
        raise InputError(f"action chunk: expected rows at even times from 0 on, found {times.round(4).tolist()}")
    rows = np.array([point.positions for point in message.points])
    return ActionChunk(rows, seconds(message.header.stamp), float(dt))
