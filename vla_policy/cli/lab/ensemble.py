"""vla-lab ensemble: several trained policies joined into one checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vla_policy.cli.common import print_line
from vla_policy.cli.help import config_parser
from vla_policy.interfaces import InputError


def main(arguments: Sequence[str]) -> None:
    """Write the checkpoint of an ensemble."""
    description = (
        "Join policies that differ in their training seed alone; their predictions are averaged at every denoising "
        "step, so that a chunk takes as many passes more."
    )
    parser = config_parser("vla-lab ensemble", description)
    parser.add_argument("OUT", help="new folder of the joint checkpoint")
    parser.add_argument("CHECKPOINT", nargs="+", help="two or more folders or hub names")
    parsed = parser.parse_args(arguments)
    if Path(parsed.OUT).exists():
        raise InputError(f"OUT: expected the name of a new folder, found {parsed.OUT}, which exists")

    from vla_policy.models import join_policies

    join_policies(parsed.CHECKPOINT).save_pretrained(parsed.OUT)
    print_line(f"{len(parsed.CHECKPOINT)} policies in {parsed.OUT}")
