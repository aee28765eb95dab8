"""vla-eval world-model: the prediction error of a world model on held-out episodes, and what its latents encode."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vla_policy.cli.common import print_line, stdout
from vla_policy.cli.help import CHECKPOINT, DATASET, parse_command
from vla_policy.cli.world_model_study import run_study

console = stdout()


def main(arguments: Sequence[str]) -> None:
    """Compare open-loop predictions with held-out episodes, and fit probes of the true state on the latents."""
    (checkpoint, dataset), config = parse_command(
        "vla-eval world-model", main.__doc__, "world_model_eval", arguments, CHECKPOINT=CHECKPOINT, DATASET=DATASET
    )

    from vla_policy.evaluation.imagination.report import world_model_tables
    from vla_policy.evaluation.imagination.study import evaluate_world_model

    summary = run_study(evaluate_world_model, checkpoint, dataset, config, Path(config.out), console)
    for table in world_model_tables(summary):
        console.print(table)
    if summary["probes"] is None:
        print_line("no probes: the dataset has no observation.environment_state (x, y, cos, sin) to predict")
    print_line(f"world_model.json and pictures are in {config.out}")
