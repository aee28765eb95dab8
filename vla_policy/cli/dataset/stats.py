"""vla-dataset stats: the stored statistics, computed anew."""

from __future__ import annotations

from collections.abc import Sequence

from vla_policy.cli.dataset.editing import IN_PLACE, bar, editing_parser, report
from vla_policy.cli.help import parse_options

DEFAULTS = {"out": None}
DESCRIPTION = f"Compute the statistics of every episode and feature anew, of cameras from decoded frames. {IN_PLACE}"


def main(arguments: Sequence[str]) -> None:
    """Compute and store them."""
    parsed, chosen = parse_options(editing_parser("stats", DESCRIPTION), arguments, DEFAULTS)

    from vla_policy.data.editing import recompute_stats

    report(recompute_stats(parsed.DATASET, chosen.out, bar))
