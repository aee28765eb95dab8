"""vla-dataset delete: a dataset without some of its episodes."""

from __future__ import annotations

from collections.abc import Sequence

from vla_policy.cli.dataset.editing import EPISODES, IN_PLACE, bar, editing_parser, report
from vla_policy.cli.help import parse_options

DEFAULTS = {"out": None}


def main(arguments: Sequence[str]) -> None:
    """Delete, and print what is left."""
    parser = editing_parser("delete", f"Delete episodes; those behind them get new numbers. {IN_PLACE}")
    parser.add_argument("EPISODES", help=EPISODES)
    parsed, chosen = parse_options(parser, arguments, DEFAULTS)

    from vla_policy.data.editing import delete, parse_episodes

    report(delete(parsed.DATASET, parse_episodes(parsed.EPISODES), chosen.out, bar))
