"""vla-lab: studies of what data, objectives and regularisation are worth."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from vla_policy.cli.common import user_errors
from vla_policy.cli.dispatch import Subcommand, dispatch

SUBCOMMANDS = {
    "run": Subcommand("STUDY [key=value ...]", "all runs of a study within its budget, or those that are missing"),
    "ensemble": Subcommand("OUT CHECKPOINT ...", "several trained policies joined into one checkpoint"),
    "report": Subcommand("OUT", "tables and figures of what a study has found so far"),
}


@user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """Run one of the subcommands."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    dispatch(__name__, "vla-lab", "Run, resume and report grids of trainings.", SUBCOMMANDS, arguments)
