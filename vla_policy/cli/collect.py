"""vla-collect: demonstrations of the scripted expert as a LeRobotDataset."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from vla_policy.cli.common import print_line, stdout, user_errors
from vla_policy.cli.help import parse_command
from vla_policy.utils.progress import progress_bar

# The simulation is imported where it is used: every worker process imports this module.
if TYPE_CHECKING:
    from vla_policy.collection.collect import Attempt, CollectConfig

console = stdout()


@user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """Record the scripted expert, its corrections of a policy, or random pushes; call it again to resume."""
    (out,), config = parse_command("vla-collect", main.__doc__, "collect", arguments, OUT="folder of the dataset")

    from vla_policy.data.format.layout import COLLECTION

    summary = _collect(Path(out), config)
    console.print(_table(summary))
    print_line(f"the summary and every seed are in {Path(out) / COLLECTION}")


def _collect(root: Path, config: CollectConfig) -> dict[str, Any]:
    from vla_policy.collection.collect import collect

    with progress_bar(console) as progress:
        bar = progress.add_task("episodes", total=config.n_episodes, state="")
        begin, steps = time.perf_counter(), 0

        def on_attempt(attempt: Attempt, attempts: Sequence[Attempt]) -> None:
            nonlocal steps
            steps += attempt.steps
            good = sum(a.episode is not None for a in attempts)
            speed = steps / (time.perf_counter() - begin)
            success = f"success {good} / {len(attempts)}, " if config.behaviour == "expert" else ""
            progress.update(bar, completed=good, state=f"{success}{speed:.0f} steps/s")

        return collect(root, config, on_attempt)


def _table(summary: dict[str, Any]) -> Table:
    config = summary["config"]
    table = Table(title=f"{config['behaviour']} episodes in {config['env']}", show_header=False)
    if "success_rate" in summary:
        low, high = summary["success_ci95"]
        table.add_row("starts attempted", str(summary["attempted"]))
        table.add_row(
            "successful", f"{summary['successful']} ({summary['success_rate']:.1%}, 95 % {low:.1%} to {high:.1%})"
        )
        table.add_row("failed seeds", ", ".join(map(str, summary["failed_seeds"])) or "none")
    else:
        if "unaided" in summary:
            table.add_row("starts attempted", str(summary["attempted"]))
            table.add_row("of them the policy needed no help in", str(summary["unaided"]))
        table.add_row("episodes", str(summary["episodes"]))
    table.add_row("frames", str(summary["frames"]))
    if summary["median_steps"] is not None:
        table.add_row("median steps", f"{summary['median_steps']:g}")
    table.add_row("seeds", f"{summary['first_seed']} to {summary['last_seed']}")
    return table


if __name__ == "__main__":
    main()
