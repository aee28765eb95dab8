"""Commands with subcommands, each a module of the command's package that is imported on use."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from vla_policy.cli.help import config_parser
from vla_policy.interfaces import InputError


class Subcommand(NamedTuple):
    """A line of the help text. The subcommand `open-loop` runs the function `main` of the module `open_loop`."""

    arguments: str
    help: str


def dispatch(
    package: str,
    prog: str,
    description: str,
    subcommands: Mapping[str, Subcommand],
    arguments: Sequence[str] | None,
    *,
    renamed: Mapping[str, str] = MappingProxyType({}),
    default: str | None = None,
) -> None:
    """Run the subcommand that `arguments` (by default those of `sys.argv`) begin with, or `default` if there is none.

    `renamed` maps old names to what replaces them.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    name = arguments[0] if arguments else ""
    if default is not None and name not in (*subcommands, *renamed, "-h", "--help"):
        name, arguments = default, [default, *arguments]
    if name in renamed:
        raise InputError(f"{prog}: expected `{renamed[name]}`, its new name, found {name!r}")
    if name in subcommands:
        module = importlib.import_module(f"{package}.{name.replace('-', '_')}")
        module.main(arguments[1:])
        return
    parser = config_parser(prog, description, more=_overview(prog, subcommands, default))
    parser.add_argument("COMMAND", choices=subcommands, metavar="COMMAND", help="one of those below")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="its arguments, then key=value")
    parser.parse_args(arguments)


def _overview(prog: str, subcommands: Mapping[str, Subcommand], default: str | None) -> str:
    usages = {f"{prog} {name} {subcommand.arguments}": subcommand.help for name, subcommand in subcommands.items()}
    width = max(map(len, usages))
    lines = ["commands, each with a --help of its own:", *(f"  {use:{width}}  {text}" for use, text in usages.items())]
    if default is not None:
        first = subcommands[default].arguments
        lines += ["", f"{prog} {first} is short for {prog} {default} {first};"]
        lines += ["a folder that is named like a command is given as ./NAME, or after the command in full."]
    return "\n".join(lines) + "\n"
