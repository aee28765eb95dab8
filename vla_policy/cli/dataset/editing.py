"""What the commands that edit a dataset share: their arguments, their progress bar, their last words."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.progress import track

from vla_policy.cli.common import print_line
from vla_policy.cli.help import DATASET, config_parser

if TYPE_CHECKING:
    from vla_policy.data.editing import Edited

IN_PLACE = "In place, or with out=FOLDER as a new dataset."
EPISODES = "numbers and ranges, such as 3,7,10-20"


def editing_parser(name: str, description: str) -> argparse.ArgumentParser:
    """A parser of `vla-dataset NAME DATASET ...`."""
    parser = config_parser(f"vla-dataset {name}", description)
    parser.add_argument("DATASET", type=Path, help=DATASET)
    return parser


def bar(parts: Sequence[str]) -> Iterable[str]:
    """Show that parts of a dataset are gone through."""
    return track(parts, "editing", transient=True)


def report(edited: Edited) -> None:
    """Print what the edit had to do, and what is there now."""
    for note in edited.notes:
        print_line(f"note: {note}")
    print_line(f"{edited.episodes} episodes, {edited.frames} frames in {edited.root}")
