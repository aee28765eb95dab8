"""vla-dataset drop: a dataset without some of its features."""

from __future__ import annotations

from collections.abc import Sequence

from vla_policy.cli.dataset.editing import IN_PLACE, bar, editing_parser, report
from vla_policy.cli.help import parse_list

DEFAULTS = {"out": None}


def main(arguments: Sequence[str]) -> None:
    """Drop the features, and print what is there now."""
    parser = editing_parser("drop", f"Drop features, their columns and videos. {IN_PLACE}")
    parsed, features, chosen = parse_list(parser, "FEATURE", "features", arguments, DEFAULTS)

    from vla_policy.data.editing import drop

    report(drop(parsed.DATASET, features, chosen["out"], bar))
