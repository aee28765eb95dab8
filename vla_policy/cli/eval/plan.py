"""vla-eval plan: bring the arm and the block to where a picture shows them, with a world model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vla_policy.cli.common import print_line, stdout
from vla_policy.cli.help import config_parser, parse_arguments
from vla_policy.cli.world_model_study import run_study
from vla_policy.utils.configuration import typed_config

console = stdout()


def main(arguments: Sequence[str]) -> None:
    """Run every task and print how many goals were reached."""
    description = "Plan in latent space towards goal images from recorded episodes, in simulation."
    parser = config_parser("vla-eval plan", description, "plan")
    (checkpoint, dataset), overrides = parse_arguments(
        parser, arguments, WORLD_MODEL="folder or hub name of a world model", DATASET="folder of a PushT LeRobotDataset"
    )

    from vla_policy.evaluation.planning.report import planning_table
    from vla_policy.evaluation.planning.study import PlanEvalConfig, evaluate_planning

    config = typed_config(PlanEvalConfig, "plan", overrides)
    summary = run_study(evaluate_planning, checkpoint, dataset, config, Path(config.out), console)
    console.print(planning_table(summary))
    print_line(f"plan.json and episodes.csv are in {config.out}")
