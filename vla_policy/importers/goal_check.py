"""Checks that imported PushT demonstrations were made for the assumed goal."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sim.geometry import GOAL_POSE, coverage, pose_from_features
from vla_policy.data import LeRobotDataset
from vla_policy.data.format.findings import Finding
from vla_policy.importers.pusht import ROBOT_TYPE
from vla_policy.interfaces import ENVIRONMENT_STATE, GOAL_STATE, InputError

ELSEWHERE = "the block does not cover the goal at the end; import-pusht takes another one as goal_pose=x,y,angle"


def goal_findings(dataset: LeRobotDataset) -> Iterator[Finding]:
    """A finding for each imported episode that ends without any coverage of the goal."""
    if dataset.info.get("robot_type") != ROBOT_TYPE:
        return
    seen_from_goal = GOAL_STATE in dataset.interface.observations
    key, goal = (GOAL_STATE, np.zeros(3)) if seen_from_goal else (ENVIRONMENT_STATE, GOAL_POSE)
    for index in dataset.episodes:
        try:
            values = dataset.episode(index).columns.get(key)
        except InputError:
            continue  # reported by `inspect`
        if values is not None and values.shape[1] == 4 and coverage(pose_from_features(values[-1]), goal) == 0:
            yield Finding(index, key, ELSEWHERE)
