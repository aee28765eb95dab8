"""vla-eval open-loop: the error of predicted chunks on recorded episodes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vla_policy.cli.common import print_line, stdout
from vla_policy.cli.help import CHECKPOINT, DATASET, parse_command
from vla_policy.utils.progress import progress_bar

console = stdout()


def main(arguments: Sequence[str]) -> None:
    """Error of predicted chunks on held-out episodes, compared with holding the last action."""
    (checkpoint, root), config = parse_command(
        "vla-eval open-loop", main.__doc__, "open_loop", arguments, CHECKPOINT=CHECKPOINT, DATASET=DATASET
    )

    from vla_policy.data import LeRobotDataset
    from vla_policy.evaluation.success.open_loop import (
        held_out_episodes,
        open_loop,
        open_loop_table,
        summarize_open_loop,
        write_open_loop,
    )
    from vla_policy.evaluation.success.sight import sight, sight_table, summarize_sight
    from vla_policy.models.loading import load_policy

    policy, dataset = load_policy(checkpoint, config.device), LeRobotDataset(Path(root))
    episodes = held_out_episodes(config.episodes, policy.card, dataset)
    with progress_bar(console) as progress:
        task = progress.add_task("episodes", total=len(episodes), state="")
        errors = open_loop(
            policy, dataset, episodes, config.policy_seed, config.batch_size, lambda _: progress.advance(task)
        )
    summary = summarize_open_loop(errors, policy, checkpoint=checkpoint, dataset=root)
    console.print(open_loop_table(summary))
    if policy.config.auxiliary_keys:
        with progress_bar(console) as progress:
            task = progress.add_task("estimates", total=len(episodes), state="")
            seen = sight(policy, dataset, episodes, config.batch_size, lambda _: progress.advance(task))
        summary["estimates"] = summarize_sight(seen, policy.full_interface)
        console.print(sight_table(summary["estimates"], sum(dataset.episode(k).length for k in episodes)))
    write_open_loop(Path(config.out), errors, summary)
    print_line(f"summary.json and episodes.csv are in {config.out}")
