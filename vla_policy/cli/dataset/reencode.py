"""vla-dataset reencode: the videos in another codec."""

from __future__ import annotations

from collections.abc import Sequence

from vla_policy.cli.dataset.editing import IN_PLACE, bar, editing_parser, report
from vla_policy.cli.help import parse_options

DEFAULTS = {"codec": "h264", "out": None}
DESCRIPTION = (
    "Encode the videos of colour cameras anew, codec=h264 or av1, with a key frame every second frame, so that every "
    f"frame is found fast and every cut is exact. Pictures lose a little each time. {IN_PLACE}"
)


def main(arguments: Sequence[str]) -> None:
    """Encode, and print what is there now."""
    parsed, chosen = parse_options(editing_parser("reencode", DESCRIPTION), arguments, DEFAULTS)

    from vla_policy.data.editing import reencode

    report(reencode(parsed.DATASET, chosen.codec, chosen.out, bar))
