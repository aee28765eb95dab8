"""vla-dataset convert: a LeRobotDataset v2.1 as v3.0."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vla_policy.cli.dataset.editing import bar, editing_parser, report


def main(arguments: Sequence[str]) -> None:
    """Convert, and print what is in the new dataset."""
    parser = editing_parser("convert", "Convert a LeRobotDataset v2.1 to v3.0, without encoding its videos anew.")
    parser.add_argument("OUT", type=Path, help="folder of the new dataset")
    parsed = parser.parse_args(arguments)

    from vla_policy.data.editing import convert

    report(convert(parsed.DATASET, parsed.OUT, bar))
