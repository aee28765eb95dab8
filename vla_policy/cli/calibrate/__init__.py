"""vla-calibrate: the threshold of the surprise monitor, and which instructions a policy refuses."""

from __future__ import annotations

from collections.abc import Sequence

from vla_policy.cli.common import user_errors
from vla_policy.cli.dispatch import Subcommand, dispatch

SUBCOMMANDS = {
    "monitor": Subcommand("POLICY WORLD_MODEL ...", "the threshold of surprise above which the arm holds"),
    "instructions": Subcommand("CHECKPOINT ...", "which instructions a policy refuses"),
}


@user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """Run one of the subcommands or, without its name, the monitor's."""
    description = "Calibrate what stops a policy: surprise, or an unknown instruction."
    dispatch(__name__, "vla-calibrate", description, SUBCOMMANDS, arguments, default="monitor")
