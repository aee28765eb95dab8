"""vla-dataset retask: another instruction for episodes."""

from __future__ import annotations

from collections.abc import Sequence

from vla_policy.cli.dataset.editing import IN_PLACE, bar, editing_parser, report
from vla_policy.cli.help import parse_options

DEFAULTS = {"episodes": "all", "old": None, "out": None}
DESCRIPTION = (
    "Give all episodes another instruction, with episodes=3,7,10-20 these alone, with old=SENTENCE those that have "
    f"this one. {IN_PLACE}"
)


def main(arguments: Sequence[str]) -> None:
    """Change the instructions, and print what is there now."""
    parser = editing_parser("retask", DESCRIPTION)
    parser.add_argument("TASK", help="the new sentence, in quotes")
    parsed, chosen = parse_options(parser, arguments, DEFAULTS)

    from vla_policy.data.editing import parse_episodes, retask

    episodes = None if chosen.episodes == "all" else parse_episodes(chosen.episodes)
    report(retask(parsed.DATASET, parsed.TASK, episodes, chosen.old, chosen.out, bar))
