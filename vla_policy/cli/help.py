"""Help texts that show a command's options, their defaults and what they mean."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from vla_policy.cli.options import explained


def config_parser(prog: str, description: str, config: str | None = None, more: str = "") -> argparse.ArgumentParser:
    """A parser whose help ends with the options of conf/<config>.yaml and `more`."""
    epilog = more
    if config is not None:
        epilog = f"keys and their defaults:\n\n{_indent(explained(config))}" + (f"\n{more}" if more else "")
    return argparse.ArgumentParser(
        prog=prog, description=description, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def checkpoint_arguments(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """CHECKPOINT, None where it is missing because baseline= stands for it, and the key=value overrides."""
    parser.add_argument("CHECKPOINT", nargs="?", help="folder or hub name; may be missing where baseline= is given")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    options = parser.parse_args(arguments)
    if options.CHECKPOINT is not None and "=" in options.CHECKPOINT and not Path(options.CHECKPOINT).exists():
        return None, [options.CHECKPOINT, *options.overrides]
    return options.CHECKPOINT, options.overrides


def _indent(text: str) -> str:
    return "".join(f"  {line}\n" for line in text.splitlines())
