"""vla-eval generalization: losses, flatness, compressed size and bounds of a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vla_policy.cli.common import print_line, stdout
from vla_policy.cli.help import CHECKPOINT, DATASET, parse_command

console = stdout()


def main(arguments: Sequence[str]) -> None:
    """What the training of a policy says about new episodes.

    Loss and error on training and held-out episodes of the DATASET that it was trained on, flatness, compressed size
    and the bound from it, beside the measured rollouts.
    """
    (checkpoint, root), config = parse_command(
        "vla-eval generalization", main.__doc__, "generalization", arguments, CHECKPOINT=CHECKPOINT, DATASET=DATASET
    )

    from vla_policy.data import LeRobotDataset
    from vla_policy.evaluation.generalization.study import generalization, generalization_table
    from vla_policy.models.loading import load_policy
    from vla_policy.utils.files import write_json

    policy, dataset = load_policy(checkpoint, config.device), LeRobotDataset(Path(root))
    with console.status("losses, curvature and compression"):
        found = generalization(policy, dataset, config)
    path = Path(config.out) / "generalization.json"
    write_json(path, {"checkpoint": checkpoint, "dataset": root, **found})
    console.print(generalization_table(found))
    print_line(f"written to {path}")
