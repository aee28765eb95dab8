"""vla-dataset rename: other names for features."""

from __future__ import annotations

from collections.abc import Sequence

from vla_policy.cli.dataset.editing import IN_PLACE, bar, editing_parser, report
from vla_policy.cli.help import parse_list
from vla_policy.interfaces import InputError

DEFAULTS = {"out": None}


def main(arguments: Sequence[str]) -> None:
    """Rename, and print what is there now."""
    parser = editing_parser("rename", f"Rename features; two may exchange their names. {IN_PLACE}")
    parsed, words, chosen = parse_list(parser, "OLD=NEW", "features", arguments, DEFAULTS)

    from vla_policy.data.editing import rename

    names = {}
    for word in words:
        old, equals, new = word.partition("=")
        if not equals or old in names:
            raise InputError(f"rename: expected OLD=NEW, once for a feature, found {word!r}")
        names[old] = new
    report(rename(parsed.DATASET, names, chosen["out"], bar))
