"""Play a shipped policy on unseen starts in simulation, and print how often it succeeded.

python examples/evaluate_policy.py [CHECKPOINT key=value ...]
"""

import sys

from vla_policy import evaluate


def main(checkpoint: str = "checkpoints/pusht_image", *overrides: str) -> None:
    summary = evaluate(checkpoint, ["n_episodes=10", "out=outputs/examples/evaluation", *overrides])
    low, high = summary["success_ci95"]
    print(f"{summary['n_success']} of {summary['n_episodes']} starts, 95 % interval {low:.2f} to {high:.2f}")


if __name__ == "__main__":  # simulations run in processes of their own, which import this file
    main(*sys.argv[1:])
