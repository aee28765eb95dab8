"""vla-bench: how fast a policy, training, the simulation and the ROS 2 graph are."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from vla_policy.cli.common import user_errors
from vla_policy.cli.dispatch import Subcommand, dispatch

SUBCOMMANDS = {
    "latency": Subcommand("CHECKPOINT ...", "milliseconds an action chunk, batch 1"),
    "training": Subcommand("DATASET ...", "training samples a second, and the time spent waiting for data"),
    "ros": Subcommand("CHECKPOINT ...", "the ROS 2 graph: latency, jitter, time from faults to holding"),
    "sim": Subcommand("...", "simulation steps a second, and how closely it follows human pushes"),
}
RENAMED = {"demonstrations": "vla-eval demonstrations", "objectives": "vla-eval objectives"}


@user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """Run one of the subcommands."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    dispatch(__name__, "vla-bench", "Measure speed and fidelity.", SUBCOMMANDS, arguments, renamed=RENAMED)
