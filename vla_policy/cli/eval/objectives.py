"""vla-eval objectives: policies that differ in the objective alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vla_policy.cli.common import print_line, stdout
from vla_policy.cli.help import evaluation_arguments

console = stdout()
DEFAULTS = {"out": "outputs/objectives"}


def main(arguments: Sequence[str]) -> None:
    """Print a table and write objectives.json."""
    description = "Policies that differ in the objective alone: an evaluation folder each, compared with the first one."
    folders, chosen = evaluation_arguments("vla-eval objectives", description, arguments, DEFAULTS)

    from vla_policy.evaluation.success.objectives import gather_objectives, objectives_table
    from vla_policy.utils.files import write_json

    found, path = gather_objectives(folders), Path(chosen["out"]) / "objectives.json"
    write_json(path, found)
    console.print(objectives_table(found))
    print_line(f"written to {path}")
