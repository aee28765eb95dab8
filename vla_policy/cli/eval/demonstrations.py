"""vla-eval demonstrations: success against the number of demonstrations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vla_policy.cli.common import print_line, stdout
from vla_policy.cli.help import evaluation_arguments

console = stdout()
DEFAULTS = {"out": "outputs/demonstrations"}


def main(arguments: Sequence[str]) -> None:
    """Print a table; write it and a plot."""
    description = "Success against the number of demonstrations: one evaluation folder for each trained policy."
    folders, chosen = evaluation_arguments("vla-eval demonstrations", description, arguments, DEFAULTS)

    from vla_policy.evaluation.success.data_scaling import demonstrations_table, gather, write_demonstrations

    rows = gather(folders)
    paths = write_demonstrations(Path(chosen["out"]), rows)
    console.print(demonstrations_table(rows))
    print_line("written to " + ", ".join(map(str, paths)))
