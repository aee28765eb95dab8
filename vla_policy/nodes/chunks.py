"""Action chunks as `trajectory_msgs/JointTrajectory`: stamped with t_obs, named channels, one point a row."""

from __future__ import annotations

from collections.abc import Sequence

from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from vla_policy.interfaces import ActionChunk
from vla_policy.nodes.common import duration, stamp


def chunk_message(chunk: ActionChunk, names: Sequence[str], frame: str) -> JointTrajectory:
    message = JointTrajectory(joint_names=list(names))
    message.header.stamp, message.header.frame_id = stamp(chunk.t_obs), frame
    message.points = [
        JointTrajectoryPoint(positions=row.tolist(), time_from_start=duration(k * chunk.dt))
        for k, row in enumerate(chunk.actions)
    ]
    return message
