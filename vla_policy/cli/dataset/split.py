"""vla-dataset split: several new datasets of the episodes of one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vla_policy.cli.dataset.editing import bar, editing_parser, report
from vla_policy.cli.help import parse_list

DEFAULTS = {"seed": 0}
DESCRIPTION = (
    "Divide a dataset into new ones, OUT/NAME each: by shares, such as train=0.8 val=0.2, of the episodes as shuffled "
    "by seed=, or by numbers, such as a=0-9,15 b=10-14. Parts that make less than the whole leave the rest out."
)


def main(arguments: Sequence[str]) -> None:
    """Write the datasets, and print what is in each."""
    parser = editing_parser("split", DESCRIPTION)
    parser.add_argument("OUT", type=Path, help="folder of the new datasets")
    words = "the parts, each with a share or with numbers"
    parsed, parts, chosen = parse_list(parser, "NAME=PART", words, arguments, DEFAULTS)

    from vla_policy.data.editing import open_dataset, parse_parts, split

    chosen_episodes = parse_parts(parts, open_dataset(parsed.DATASET).episodes, chosen["seed"])
    for edited in split(parsed.DATASET, parsed.OUT, chosen_episodes, bar).values():
        report(edited)
