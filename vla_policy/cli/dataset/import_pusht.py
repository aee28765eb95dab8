"""vla-dataset import-pusht: convert PushT demonstrations to a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from rich.progress import track

from vla_policy.cli.common import print_line
from vla_policy.cli.help import config_parser, parse_options
from vla_policy.interfaces import InputError

DEFAULTS = {"images": True, "codec": "h264", "goal_pose": ""}


def main(arguments: Sequence[str]) -> None:
    """Import and print the numbers of episodes and frames."""
    description = (
        "Convert PushT demonstrations (.npz, or zarr in a folder or a zip file) to a dataset; goal_pose=x,y,angle, in "
        "pixels and radians, if they were recorded with another goal than gym-pusht's 256,256,0.785."
    )
    parser = config_parser("vla-dataset import-pusht", description)
    parser.add_argument("FILE", type=Path, help="the demonstrations")
    parser.add_argument("OUT", type=Path, help="folder of the dataset")
    parsed, chosen = parse_options(parser, arguments, DEFAULTS)

    from sim import TASK, geometry
    from vla_policy.importers.pusht import PixelMap, import_pusht

    def pose_features(pose: np.ndarray) -> np.ndarray:
        return geometry.pose_features(geometry.pose_from_pixels(pose))

    def seen_from(goal: np.ndarray, pose: np.ndarray) -> np.ndarray:
        poses = geometry.pose_from_pixels(pose)
        return geometry.pose_features(np.array([geometry.relative_pose(each, goal) for each in poses]))

    goal_features = None
    if chosen.goal_pose:
        goal_features = partial(seen_from, geometry.pose_from_pixels(_numbers("goal_pose", chosen.goal_pose, 3)))
    pixels = PixelMap(geometry.position_from_pixels, pose_features, goal_features)
    writer = import_pusht(
        parsed.FILE, parsed.OUT, pixels, TASK, chosen.images, chosen.codec, lambda e: track(e, "importing")
    )
    print_line(f"{writer.num_episodes} episodes, {writer.num_frames} frames in {parsed.OUT}")


def _numbers(key: str, text: str, count: int) -> np.ndarray:
    try:
        numbers = np.array([float(word) for word in text.strip("[]").split(",")])
    except ValueError:
        numbers = np.empty(0)
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise InputError(f"{key}: expected {count} numbers separated by commas, found {text!r}")
    return numbers
