"""Play as demonstrations of what came of it: hindsight goals (Andrychowicz et al. 2017, arXiv 1707.01495).

Play has no goal, but a stretch of it led the block to where it lay at its end. Told that this was the goal, it shows
how to get there, and a policy of such stretches proposes ways to goals that nobody demonstrated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from sim.geometry import pose_features, pose_from_features, relative_pose
from sim.interface import pusht_interface
from sim.objectives import corner_distance
from vla_policy.data import LeRobotDataset, LeRobotWriter
from vla_policy.interfaces import ACTION, ENVIRONMENT_STATE, GOAL_STATE, STATE, InputError

TASK = "Push the T-shaped block onto the goal."
MOVED = 0.01  # metres, mean over the block's corners: a stretch in which it stays says nothing


def hindsight(
    source: str | Path,
    out: str | Path,
    seconds: float = 6.0,
    every: float = 2.0,
    progress: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> LeRobotWriter:
    """Write the stretches of the episodes at `source` that last up to `seconds` and end every `every` seconds as
    episodes of a new dataset at `out`, of vectors alone, whose actions are the executed ones. Where `every` is less
    than `seconds`, stretches overlap: episodes held out of them share frames with those that are trained on.

    `observation.goal_state` is the block's pose seen from where it lies at the end. `InputError` if the dataset has no
    such block, or it never moves.
    """
    dataset, interface = LeRobotDataset(source), pusht_interface({}, goals=True)
    interface.select([STATE, ENVIRONMENT_STATE]).require(dataset.interface, "hindsight", f"dataset {source}")
    length, step = round(seconds * dataset.fps), round(every * dataset.fps)
    if not 1 <= step <= length:
        raise InputError(f"hindsight: expected every of a frame up to seconds {seconds:g}, found {every:g}")
    with LeRobotWriter(out, interface, robot_type="xarm6") as writer:
        if writer.num_episodes:
            raise InputError(f"{out}: expected a new folder, found a dataset of {writer.num_episodes} episodes")
        for index in progress(dataset.episodes):
            episode = dataset.episode(index)
            columns = {STATE: episode.columns[STATE], ENVIRONMENT_STATE: episode.columns[ENVIRONMENT_STATE]}
            for stretch in stretches(columns[ENVIRONMENT_STATE], length, step):
                part = {key: values[stretch] for key, values in columns.items()}
                goal = seen_from_the_end(part[ENVIRONMENT_STATE])
                writer.add_episode({**part, GOAL_STATE: goal, ACTION: episode.executed[stretch]}, {}, TASK)
        if not writer.num_episodes:
            raise InputError(f"{source}: expected a block that moves by {MOVED} m, found none")
    return writer


def stretches(block: np.ndarray, length: int, step: int) -> Iterator[slice]:
    """Of a block's poses (T, 4): up to `length` frames, ending every `step`, in which it comes to lie elsewhere."""
    for end in range(len(block), 0, -step):
        stretch = slice(max(0, end - length), end)
        first, last = block[stretch.start], pose_from_features(block[end - 1])
        if corner_distance(first, last) > MOVED:
            yield stretch


def seen_from_the_end(block: np.ndarray) -> np.ndarray:
    """Poses (T, 4) in the frame of the last one."""
    poses = pose_from_features(block)
    seen: np.ndarray = pose_features(np.array([relative_pose(pose, poses[-1]) for pose in poses])).astype(np.float32)
    return seen
