"""vla-dataset hindsight: play as demonstrations of the goals that it reached."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.progress import track

from vla_policy.cli.common import print_line
from vla_policy.cli.help import config_parser, parse_options

DEFAULTS = {"seconds": 6.0, "every": 2.0}


def main(arguments: Sequence[str]) -> None:
    """Relabel, and print the numbers of episodes and frames."""
    description = (
        "Write stretches of play as demonstrations of where the block lay at their end: up to seconds=6 long, ending "
        "every=2 seconds, so that a frame is in up to three of them; with every=6 no two share a frame. A policy that "
        "sees observation.goal_state learns from them to push to any goal."
    )
    parser = config_parser("vla-dataset hindsight", description)
    parser.add_argument("DATASET", type=Path, help="folder of a LeRobotDataset, with the block's pose")
    parser.add_argument("OUT", type=Path, help="folder of the new dataset")
    parsed, chosen = parse_options(parser, arguments, DEFAULTS)

    from vla_policy.collection.hindsight import hindsight
    from vla_policy.data.writing.compact import compact

    every = chosen.seconds, chosen.every
    writer = hindsight(parsed.DATASET, parsed.OUT, *every, lambda episodes: track(episodes, "relabelling"))
    compact(parsed.OUT)
    print_line(f"{writer.num_episodes} episodes, {writer.num_frames} frames in {parsed.OUT}")
