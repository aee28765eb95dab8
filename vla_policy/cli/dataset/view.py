"""vla-dataset view: an episode as a film or a contact sheet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vla_policy.cli.common import say
from vla_policy.cli.help import config_parser, parse_options

DEFAULTS = {"out": ""}


def main(arguments: Sequence[str]) -> None:
    """Write the picture."""
    description = "Show an episode as a film (out=name.mp4) or as a contact sheet (out=name.png)."
    parser = config_parser("vla-dataset view", description)
    parser.add_argument("DATASET", type=Path, help="folder of a LeRobotDataset")
    parser.add_argument("EPISODE", type=int, help="its number, from 0")
    parsed, chosen = parse_options(parser, arguments, DEFAULTS)

    from vla_policy.data import LeRobotDataset
    from vla_policy.data.rendering import save_episode

    dataset = LeRobotDataset(parsed.DATASET)
    out = Path(chosen.out or f"episode_{parsed.EPISODE:06d}.png")
    save_episode(dataset, parsed.EPISODE, out)
    say(f"episode {parsed.EPISODE} is in {out}")
