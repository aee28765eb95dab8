"""vla-dataset merge: one new dataset of several."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vla_policy.cli.dataset.editing import bar, report
from vla_policy.cli.help import DATASET, config_parser, parse_list


def main(arguments: Sequence[str]) -> None:
    """Write the dataset, and print what is in it."""
    description = "Write a new dataset of the episodes of several with the same features, in the order they are given."
    parser = config_parser("vla-dataset merge", description)
    parser.add_argument("OUT", type=Path, help="folder of the new dataset")
    parsed, datasets, _ = parse_list(parser, "DATASET", f"{DATASET}; two or more", arguments, {})

    from vla_policy.data.editing import merge

    report(merge(datasets, parsed.OUT, bar))
