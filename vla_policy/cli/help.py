"""Help texts that show a command's configuration file, whose comments explain the keys."""

from __future__ import annotations

import argparse
from importlib import resources


def config_parser(prog: str, description: str, config: str | None = None, more: str = "") -> argparse.ArgumentParser:
    """A parser whose help ends with `conf/<config>.yaml` and `more`."""
    epilog = more
    if config is not None:
        text = resources.files("vla_policy.conf").joinpath(f"{config}.yaml").read_text(encoding="utf-8")
        epilog = f"keys and their defaults:\n\n{_indent(text)}" + (f"\n{more}" if more else "")
    return argparse.ArgumentParser(
        prog=prog, description=description, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def _indent(text: str) -> str:
    return "".join(f"  {line}\n" for line in text.splitlines())
