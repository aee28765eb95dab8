"""vla-eval plan: bring the arm and the block to where a picture shows them, with a world model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vla_policy.cli.common import print_line, stdout
from vla_policy.cli.help import CHECKPOINT, DATASET, parse_command
from vla_policy.cli.world_model_study import run_study

console = stdout()


def main(arguments: Sequence[str]) -> None:
    """Plan in latent space towards goal images from recorded PushT episodes, in simulation."""
    (checkpoint, dataset), config = parse_command(
        "vla-eval plan", main.__doc__, "plan", arguments, WORLD_MODEL=CHECKPOINT, DATASET=DATASET
    )

    from vla_policy.evaluation.planning.report import planning_table
    from vla_policy.evaluation.planning.study import evaluate_planning

    summary = run_study(evaluate_planning, checkpoint, dataset, config, Path(config.out), console)
    console.print(planning_table(summary))
    print_line(f"plan.json and episodes.csv are in {config.out}")
