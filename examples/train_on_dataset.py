"""Train a policy on a LeRobotDataset, then measure its error on held-out episodes; no simulator is needed.

python examples/train_on_dataset.py DATASET RUN [key=value ...]
"""

import sys

from vla_policy import train
from vla_policy.data import LeRobotDataset
from vla_policy.evaluation.success.open_loop import held_out_episodes, open_loop, summarize_open_loop
from vla_policy.models import DiffusionPolicy


def main(root: str, run: str, *overrides: str) -> None:
    checkpoint = train([f"data.root={root}", f"run_dir={run}", *overrides])
    policy, dataset = DiffusionPolicy.from_pretrained(checkpoint), LeRobotDataset(root)
    errors = open_loop(policy, dataset, held_out_episodes(None, policy.card, dataset))
    summary = summarize_open_loop(errors, policy)
    print(f"{checkpoint}: mean absolute error {summary['mean_error']:.4g}, holding {summary['mean_error_hold']:.4g}")


if __name__ == "__main__":
    main(*sys.argv[1:])
