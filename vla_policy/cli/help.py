"""Command lines: positional arguments, then key=value overrides, and help texts that explain both."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vla_policy.utils.configuration import options, read_config, shown
from vla_policy.utils.options import explained

KEYS = "keys and their defaults:"
CHECKPOINT = "folder or hub name"
DATASET = "folder of a LeRobotDataset"


def config_parser(
    prog: str, description: str | None, config: str | None = None, more: str = ""
) -> argparse.ArgumentParser:
    """A parser whose help ends with the options of conf/<config>.yaml and `more`."""
    epilog = more
    if config is not None:
        epilog = f"{KEYS}\n\n{_indent(explained(config))}" + (f"\n{more}" if more else "")
    return argparse.ArgumentParser(
        prog=prog,
        description=inspect.cleandoc(description or ""),
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def parse_command(
    prog: str, description: str | None, config: str, arguments: Sequence[str] | None, **positionals: str
) -> tuple[list[str], Any]:
    """The values of `positionals` (help texts by name), and the options of conf/<config>.yaml as their dataclass.

    `arguments` are by default those of `sys.argv`.
    """
    values, overrides = parse_arguments(config_parser(prog, description, config), arguments, **positionals)
    return values, read_config(config, overrides)


def parse_arguments(
    parser: argparse.ArgumentParser, arguments: Sequence[str] | None, **positionals: str
) -> tuple[list[str], list[str]]:
    """The values of `positionals` (help texts by name) and the key=value overrides; by default out of `sys.argv`."""
    for name, text in positionals.items():
        parser.add_argument(name, help=text)
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parsed = parser.parse_args(arguments)
    return [getattr(parsed, name) for name in positionals], parsed.overrides


def episode_parser(prog: str, description: str) -> argparse.ArgumentParser:
    """A parser of a command about one episode of a dataset."""
    parser = config_parser(prog, description)
    parser.add_argument("DATASET", type=Path, help=DATASET)
    parser.add_argument("EPISODE", type=int, help="index, from 0")
    return parser


def checkpoint_arguments(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """CHECKPOINT, None if baseline= takes its place, and the key=value overrides."""
    parser.add_argument("CHECKPOINT", nargs="?", help="folder or hub name; may be missing where baseline= is given")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parsed = parser.parse_args(arguments)
    if parsed.CHECKPOINT is not None and _is_override(parsed.CHECKPOINT):
        return None, [parsed.CHECKPOINT, *parsed.overrides]
    return parsed.CHECKPOINT, parsed.overrides


def parse_options(
    parser: argparse.ArgumentParser, arguments: Sequence[str], defaults: Mapping[str, Any]
) -> tuple[argparse.Namespace, argparse.Namespace]:
    """The parser's arguments, and `defaults` with the key=value overrides applied."""
    parser.add_argument("overrides", nargs="*", metavar="key=value", help=f"defaults: {shown(defaults)}")
    parsed = parser.parse_args(arguments)
    return parsed, argparse.Namespace(**options(parsed.overrides, defaults))


def parse_list(
    parser: argparse.ArgumentParser, name: str, text: str, arguments: Sequence[str], defaults: Mapping[str, Any]
) -> tuple[argparse.Namespace, list[str], dict[str, Any]]:
    """The parser's arguments, the list of words `name` behind them, and `defaults` with what overrides them there."""
    keys = f"; keys: {shown(defaults)}" if defaults else ""
    parser.add_argument("words", nargs="+", metavar=name, help=f"{text}{keys}")
    parsed = parser.parse_args(arguments)
    assigned = [word for word in parsed.words if "=" in word]
    overrides = [word for word in assigned if "=" not in name or word.partition("=")[0] in defaults]
    words = [word for word in parsed.words if word not in overrides]
    if not words:
        parser.error(f"the following arguments are required: {name}")
    return parsed, words, options(overrides, defaults)


def evaluation_arguments(
    prog: str, description: str, arguments: Sequence[str], defaults: Mapping[str, Any]
) -> tuple[list[Path], dict[str, Any]]:
    """The EVALUATION folders, and `defaults` with the key=value overrides applied."""
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
