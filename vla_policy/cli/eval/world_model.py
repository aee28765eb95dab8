"""vla-eval world-model: the prediction error of a world model on held-out episodes, and what its latents encode."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vla_policy.cli.common import print_line, stdout
from vla_policy.cli.help import config_parser, parse_arguments
from vla_policy.cli.world_model_study import run_study
from vla_policy.utils.configuration import typed_config

console = stdout()


def main(arguments: Sequence[str]) -> None:
    """Measure and print."""
    description = (
        "Compare open-loop predictions with held-out episodes, and fit probes of the true state on the latents."
    )
    parser = config_parser("vla-eval world-model", description, "world_model_eval")
    (checkpoint, dataset), overrides = parse_arguments(
        parser, arguments, CHECKPOINT="folder or hub name of a world model", DATASET="folder of a LeRobotDataset"
    )

    from vla_policy.evaluation.imagination.report import world_model_tables
    from vla_policy.evaluation.imagination.study import WorldModelEvalConfig, evaluate_world_model

    config = typed_config(WorldModelEvalConfig, "world_model_eval", overrides)
    summary = run_study(evaluate_world_model, checkpoint, dataset, config, Path(config.out), console)
    for table in world_model_tables(summary):
        console.print(table)
    if summary["probes"] is None:
        print_line("no probes: the dataset has no observation.environment_state (x, y, cos, sin) to predict")
    print_line(f"world_model.json and pictures are in {config.out}")
