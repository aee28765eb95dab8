"""vla-eval compare: the difference between two evaluations on the same starts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vla_policy.cli.common import stdout
from vla_policy.cli.help import config_parser

console = stdout()


def main(arguments: Sequence[str]) -> None:
    """Print the difference and write it to comparison.json."""
    description = "Success of B minus success of A on the same starts, with its interval and an exact test."
    parser = config_parser("vla-eval compare", description)
    parser.add_argument("A", type=Path, help="folder of an evaluation")
    parser.add_argument("B", type=Path, help="folder of another one; comparison.json is written there")
    options = parser.parse_args(arguments)

    from vla_policy.evaluation.success.compare import compare, comparison_table
    from vla_policy.utils.files import write_json

    found = compare(options.A, options.B)
    write_json(options.B / "comparison.json", found)
    console.print(comparison_table(found))
