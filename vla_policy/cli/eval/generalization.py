"""vla-eval generalization: losses, flatness, compressed size and bounds of a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vla_policy.cli.common import stdout
from vla_policy.cli.help import config_parser
from vla_policy.utils.configuration import typed_config

console = stdout()


def main(arguments: Sequence[str]) -> None:
    """Print the table and write the numbers."""
    description = (
        "What the training of a policy says about new episodes: loss and error on training and held-out episodes, "
        "flatness, compressed size and the bound from it, beside the measured rollouts."
    )
    parser = config_parser("vla-eval generalization", description, "generalization")
    parser.add_argument("CHECKPOINT", help="folder or hub name")
    parser.add_argument("DATASET", type=Path, help="folder of the LeRobotDataset that it was trained on")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parsed = parser.parse_args(arguments)

    from vla_policy.data import LeRobotDataset
    from vla_policy.evaluation.generalization.study import (
        GeneralizationConfig,
        generalization,
        generalization_table,
        report_path,
    )
    from vla_policy.models.loading import load_policy
    from vla_policy.utils.files import write_json

    config = typed_config(GeneralizationConfig, "generalization", parsed.overrides)
    policy, dataset = load_policy(parsed.CHECKPOINT, config.device), LeRobotDataset(parsed.DATASET)
    with console.status("losses, curvature and compression"):
        found = generalization(policy, dataset, config)
    write_json(report_path(config), {"checkpoint": parsed.CHECKPOINT, "dataset": str(parsed.DATASET), **found})
    console.print(generalization_table(found))
    console.print(f"written to {report_path(config)}", markup=False, highlight=False)
