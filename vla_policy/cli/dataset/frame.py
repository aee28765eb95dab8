"""vla-dataset frame: one frame, an image per camera."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vla_policy.cli.common import print_line
from vla_policy.cli.help import episode_parser, parse_options

DEFAULTS = {"out": "."}


def main(arguments: Sequence[str]) -> None:
    """Write the images and print their paths."""
    parser = episode_parser("vla-dataset frame", "Save one unchanged frame, an image per camera.")
    parser.add_argument("FRAME", type=int, help="index in the episode, from 0")
    parsed, chosen = parse_options(parser, arguments, DEFAULTS)

    from vla_policy.data import LeRobotDataset
    from vla_policy.data.rendering import save_frame

    for path in save_frame(LeRobotDataset(parsed.DATASET), parsed.EPISODE, parsed.FRAME, Path(chosen.out)):
        print_line(str(path))
