"""vla-dataset frame: one frame, a picture a camera."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vla_policy.cli.common import say
from vla_policy.cli.help import config_parser, parse_options

DEFAULTS = {"out": "."}


def main(arguments: Sequence[str]) -> None:
    """Write the pictures and print where."""
    description = "Save one frame as it is, a picture a camera, named by it."
    parser = config_parser("vla-dataset frame", description)
    parser.add_argument("DATASET", type=Path, help="folder of a LeRobotDataset")
    parser.add_argument("EPISODE", type=int, help="its number, from 0")
    parser.add_argument("FRAME", type=int, help="its number in the episode, from 0")
    parsed, chosen = parse_options(parser, arguments, DEFAULTS)

    from vla_policy.data import LeRobotDataset
    from vla_policy.data.rendering import save_frame

    for path in save_frame(LeRobotDataset(parsed.DATASET), parsed.EPISODE, parsed.FRAME, Path(chosen.out)):
        say(str(path))
