"""vla-dataset push: a dataset to the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Sequence

from vla_policy.cli.common import print_line
from vla_policy.cli.dataset.editing import editing_parser
from vla_policy.cli.help import parse_options

DEFAULTS = {"private": True}
DESCRIPTION = (
    "Upload a dataset to a repository of the Hugging Face hub, in one commit, tagged as LeRobot looks for it; the "
    "repository is made if there is none, private unless private=false. Log in first: hf auth login."
)


def main(arguments: Sequence[str]) -> None:
    """Upload, and print the address."""
    parser = editing_parser("push", DESCRIPTION)
    parser.add_argument("REPO", help="owner/name")
    parsed, chosen = parse_options(parser, arguments, DEFAULTS)

    from vla_policy.data.hub import push

    print_line(push(parsed.DATASET, parsed.REPO, chosen.private))
