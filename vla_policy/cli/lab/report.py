"""vla-lab report: tables and figures of a study."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vla_policy.cli.common import print_line, stdout
from vla_policy.cli.help import config_parser

console = stdout()


def main(arguments: Sequence[str]) -> None:
    """Print the tables; write results.csv, report.json and the figures into the study's folder."""
    parser = config_parser("vla-lab report", "Tables and figures of what a study has found so far.")
    parser.add_argument("OUT", help="the folder of `vla-lab run`")
    parsed = parser.parse_args(arguments)

    from vla_policy.lab.objectives import objectives_tables
    from vla_policy.lab.report import efficiency_table, report, results_table

    study, found, paths = report(Path(parsed.OUT))
    console.print(results_table(study, found))
    if study.efficiency is not None:
        console.print(efficiency_table(found["data_efficiency"], study.efficiency))
    if study.objectives is not None:
        console.print(*objectives_tables(found["objectives"], study.objectives), sep="\n")
    for name, reason in found["failed"].items():
        print_line(f"failed: {name}: {reason}")
    print_line("written to " + ", ".join(map(str, paths)))
