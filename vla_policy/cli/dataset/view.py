"""vla-dataset view: an episode as a video or a contact sheet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vla_policy.cli.common import print_line
from vla_policy.cli.help import episode_parser, parse_options

DEFAULTS = {"out": ""}


def main(arguments: Sequence[str]) -> None:
    """Write the video or the contact sheet."""
    description = "Show an episode as a video (out=name.mp4) or as a contact sheet (out=name.png)."
    parser = episode_parser("vla-dataset view", description)
    parsed, chosen = parse_options(parser, arguments, DEFAULTS)

    from vla_policy.data import LeRobotDataset
    from vla_policy.data.rendering import save_episode

    dataset = LeRobotDataset(parsed.DATASET)
    out = Path(chosen.out or f"episode_{parsed.EPISODE:06d}.png")
    save_episode(dataset, parsed.EPISODE, out)
    print_line(f"episode {parsed.EPISODE} is in {out}")
