"""vla-eval: measure policies and world models, by rollouts in simulation or on recorded episodes."""

from __future__ import annotations

from collections.abc import Sequence

from vla_policy.cli.common import user_errors
from vla_policy.cli.dispatch import Subcommand, dispatch

SUBCOMMANDS = {
    "rollout": Subcommand("CHECKPOINT ...", "success in simulation, with an exact interval"),
    "compare": Subcommand("A B", "the difference between two evaluations, paired by start"),
    "delays": Subcommand("CHECKPOINT ...", "success and smoothness under inference time, for each way to bridge it"),
    "demonstrations": Subcommand("EVALUATION ...", "success against the number of demonstrations, table and plot"),
    "objectives": Subcommand("EVALUATION ...", "success, speed and size of policies that differ in the objective"),
    "open-loop": Subcommand("CHECKPOINT DATASET ...", "the error on recorded episodes, for robots without a simulator"),
    "generalization": Subcommand("CHECKPOINT DATASET ...", "what its training says about new episodes, and a bound"),
    "swap": Subcommand("CHECKPOINT ...", "the same starts under different instructions"),
    "refusals": Subcommand("CHECKPOINT ...", "which sentences a policy refuses: known, paraphrased and unrelated ones"),
    "answers": Subcommand("CHECKPOINT DATASET ...", "accuracy of the language head on questions about images"),
    "surprise": Subcommand("POLICY WORLD_MODEL ...", "false alarms and detections of the surprise monitor"),
    "world-model": Subcommand(
        "CHECKPOINT DATASET ...", "prediction errors of a world model, and what its latents encode"
    ),
    "plan": Subcommand("WORLD_MODEL DATASET ...", "success of planning with a world model towards goal images"),
}
RENAMED = {"open_loop": "vla-eval open-loop", "world_model": "vla-eval world-model"}


@user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """Run one of the subcommands or, without its name, rollouts."""
    description = "Measure a policy or a world model in simulation or on recorded episodes."
    dispatch(__name__, "vla-eval", description, SUBCOMMANDS, arguments, renamed=RENAMED, default="rollout")
