"""vla-bench: the speed of a policy, of its server, of training, of the simulation, of the ROS 2 graph and its page."""

from __future__ import annotations

from collections.abc import Sequence

from vla_policy.cli.common import user_errors
from vla_policy.cli.dispatch import Subcommand, dispatch

SUBCOMMANDS = {
    "latency": Subcommand("CHECKPOINT ...", "milliseconds per action chunk, batch 1"),
    "speculation": Subcommand("TARGET DRAFT DATASET ...", "tokens per second of a policy with a draft, and without"),
    "training": Subcommand("DATASET ...", "training samples per second, and the time spent waiting for data"),
    "ros": Subcommand("CHECKPOINT ...", "the ROS 2 graph: latency, jitter, time from a fault to holding"),
    "web": Subcommand("CHECKPOINT ...", "the live page in a browser: age of pictures, time from its stop to holding"),
    "serve": Subcommand("...", "milliseconds that a policy's server on the loopback adds to a chunk"),
    "sim": Subcommand("...", "simulation steps per second, and fidelity to recorded human pushes"),
}
RENAMED = {"demonstrations": "vla-eval demonstrations", "objectives": "vla-eval objectives"}


@user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """Run one of the subcommands."""
    dispatch(__name__, "vla-bench", "Measure speed and fidelity.", SUBCOMMANDS, arguments, renamed=RENAMED)
