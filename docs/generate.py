"""Writes reference/commands.md and reference/configuration.md from the commands' own help texts.

Run it after a change to a command or a configuration: python docs/generate.py
"""

from __future__ import annotations

import importlib
import io
import os
import sys
import tomllib
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress
from pathlib import Path
from unittest import mock

from vla_policy.cli.help import KEYS

DOCS = Path(__file__).parent
KEYS_OF_TRAINING = "== Configuration =="
COMMANDS_PAGE = """\
# Commands

Generated from the help texts by `python docs/generate.py`.

Every command takes its positional arguments first and then `key=value` words, whose keys and defaults are in
[Configuration](configuration.md) and in `--help`. A value may be a number, `true`, `false`, `null`, a list `[a,b]` or
text; a path or a sentence with spaces, letters outside ASCII, parentheses, `=`, quotes or commas is taken as it is,
once it has reached the command as one word. In `vla-train --multirun` commas stand between the values of a sweep.

| exit status | |
|---|---|
| 0 | done |
| 1 | something failed, or was found to be wrong, while the command was at work |
| 2 | a mistake in what was asked for: nothing was done; one line says what was expected and what was found |
| 130 | interrupted with Ctrl-C |
"""
CONFIGURATION_PAGE = """\
# Configuration

Generated from the help texts by `python docs/generate.py`. Give a key as `key=value`, one in a section as
`section.key=value`.
"""


def pages() -> dict[Path, str]:
    """The text of both pages."""
    commands, configuration = [COMMANDS_PAGE], [CONFIGURATION_PAGE]
    for words in _commands():
        name = " ".join(words)
        usage, _, keys = _help(words).partition(KEYS_OF_TRAINING if name == "vla-train" else KEYS)
        level = "#" * (len(words) + 1)
        commands.append(f"{level} {name}\n\n```text\n{usage.strip()}\n```\n")
        if keys:
            configuration.append(f"## {name}\n\n```yaml\n{_dedented(keys)}\n```\n")
    return {
        DOCS / "reference" / "commands.md": "\n".join(commands),
        DOCS / "reference" / "configuration.md": "\n".join(configuration),
    }


def _commands() -> Iterator[list[str]]:
    """Every command of pyproject.toml and every subcommand, as words."""
    for command, entry in sorted(_scripts().items()):
        yield [command]
        for subcommand in getattr(importlib.import_module(entry.partition(":")[0]), "SUBCOMMANDS", {}):
            yield [command, subcommand]


def _scripts() -> dict[str, str]:
    project = tomllib.loads((DOCS.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {name: entry for name, entry in project["scripts"].items() if name.startswith("vla-")}


def _help(words: list[str]) -> str:
    """What a command prints for --help in a terminal of 100 columns."""
    module = importlib.import_module(_scripts()[words[0]].partition(":")[0])
    shown = io.StringIO()
    argv = mock.patch.object(sys, "argv", [*words, "--help"])
    with argv, mock.patch.dict(os.environ, {"COLUMNS": "100"}), redirect_stdout(shown), suppress(SystemExit):
        module.main()
    return shown.getvalue()


def _dedented(keys: str) -> str:
    lines = keys.strip("\n").rstrip().splitlines()
    indent = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
    return "\n".join(line[indent:] for line in lines)


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
        print(path)
