"""Help texts that show a command's options, their defaults and what they mean."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vla_policy.utils.configuration import options, shown
from vla_policy.utils.options import explained

KEYS = "keys and their defaults:"


def config_parser(prog: str, description: str, config: str | None = None, more: str = "") -> argparse.ArgumentParser:
    """A parser whose help ends with the options of conf/<config>.yaml and `more`."""
    epilog = more
    if config is not None:
        epilog = f"{KEYS}\n\n{_indent(explained(config))}" + (f"\n{more}" if more else "")
    return argparse.ArgumentParser(
        prog=prog, description=description, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def checkpoint_arguments(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """CHECKPOINT, None where it is missing because baseline= stands for it, and the key=value overrides."""
    parser.add_argument("CHECKPOINT", nargs="?", help="folder or hub name; may be missing where baseline= is given")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parsed = parser.parse_args(arguments)
    if parsed.CHECKPOINT is not None and _is_override(parsed.CHECKPOINT):
        return None, [parsed.CHECKPOINT, *parsed.overrides]
    return parsed.CHECKPOINT, parsed.overrides


def parse_options(
    parser: argparse.ArgumentParser, arguments: Sequence[str], defaults: Mapping[str, Any]
) -> tuple[argparse.Namespace, argparse.Namespace]:
    """The parser's arguments, and the key=value words behind them on top of `defaults`."""
    parser.add_argument("overrides", nargs="*", metavar="key=value", help=f"defaults: {shown(defaults)}")
    parsed = parser.parse_args(arguments)
    return parsed, argparse.Namespace(**options(parsed.overrides, defaults))


def evaluation_arguments(
    prog: str, description: str, arguments: Sequence[str], defaults: Mapping[str, Any]
) -> tuple[list[Path], dict[str, Any]]:
    """The folders that a command reads, which vla-eval wrote, and its key=value words on top of `defaults`."""
    parser = config_parser(prog, f"{description} Keys: {shown(defaults)}.")
    parser.add_argument("EVALUATION", nargs="+", help="folders that vla-eval wrote, then key=value")
    words = parser.parse_args(arguments).EVALUATION
    folders = [Path(word) for word in words if not _is_override(word)]
    if not folders:
        parser.error("the following arguments are required: EVALUATION")
    return folders, options([word for word in words if _is_override(word)], defaults)


def _is_override(word: str) -> bool:
    return "=" in word and not Path(word).exists()


def _indent(text: str) -> str:
    return "".join(f"  {line}\n" for line in text.splitlines())
