"""vla-eval: measure policies and world models, by rollouts in simulation or on recorded episodes."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from vla_policy.cli.common import user_errors
from vla_policy.cli.dispatch import Subcommand, dispatch

SUBCOMMANDS = {
    "rollout": Subcommand("CHECKPOINT ...", "success in simulation, with an exact interval"),
    "compare": Subcommand("A B", "the difference between two results, paired start by start"),
    "demonstrations": Subcommand("EVALUATION ...", "success against the number of demonstrations, table and plot"),
    "objectives": Subcommand("EVALUATION ...", "success, speed and size of policies that differ in the objective"),
    "open-loop": Subcommand("CHECKPOINT DATASET ...", "the error on recorded episodes, for robots without a simulator"),
    "generalization": Subcommand("CHECKPOINT DATASET ...", "what its training says about new episodes, and a bound"),
    "swap": Subcommand("CHECKPOINT ...", "the same starts under different instructions"),
    "refusals": Subcommand("CHECKPOINT ...", "which sentences a policy refuses, of those that it knows and others"),
    "answers": Subcommand("CHECKPOINT DATASET ...", "how often its language head answers right about what it sees"),
    "surprise": Subcommand("POLICY WORLD_MODEL ...", "false alarms of the surprise monitor, and what it detects"),
    "world-model": Subcommand("CHECKPOINT DATASET ...", "what a world model imagines, and what its latents hold"),
    "plan": Subcommand("WORLD_MODEL DATASET ...", "how often planning with a world model reaches a goal picture"),
}
RENAMED = {"open_loop": "vla-eval open-loop", "world_model": "vla-eval world-model"}


@user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """Run one of the subcommands or, without its name, rollouts."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    description = "Measure a policy or a world model in simulation or on recorded episodes."
    dispatch(__name__, "vla-eval", description, SUBCOMMANDS, arguments, renamed=RENAMED, default="rollout")
