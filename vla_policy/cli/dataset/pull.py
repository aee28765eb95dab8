"""vla-dataset pull: a dataset from the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vla_policy.cli.common import print_line
from vla_policy.cli.help import config_parser, parse_options

DEFAULTS = {"revision": ""}


def main(arguments: Sequence[str]) -> None:
    """Download, and print what is in the dataset."""
    description = (
        "Download a dataset from a repository of the Hugging Face hub; revision= is a branch, a tag or a commit. A "
        "download that was interrupted goes on where it was."
    )
    parser = config_parser("vla-dataset pull", description)
    parser.add_argument("REPO", help="owner/name")
    parser.add_argument("OUT", type=Path, help="folder of the new dataset")
    parsed, chosen = parse_options(parser, arguments, DEFAULTS)

    from vla_policy.data.hub import pull

    dataset = pull(parsed.REPO, parsed.OUT, chosen.revision or None)
    print_line(f"{dataset.num_episodes} episodes, {dataset.num_frames} frames in {dataset.root}")
