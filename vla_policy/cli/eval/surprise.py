"""vla-eval surprise: false alarms and detections of the surprise monitor and of its baselines."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from vla_policy.cli.common import print_line, stdout
from vla_policy.cli.help import parse_command
from vla_policy.cli.progress import rollout_bar
from vla_policy.interfaces import Failure

console = stdout()


def main(arguments: Sequence[str]) -> None:
    """Calibrate surprise on nominal episodes, then count false alarms and detected events."""
    (policy_folder, world_model), config = parse_command(
        "vla-eval surprise", main.__doc__, "surprise", arguments, POLICY="folder", WORLD_MODEL="folder"
    )

    from vla_policy.evaluation.surprise.plot import plot_surprise
    from vla_policy.evaluation.surprise.report import surprise_tables
    from vla_policy.evaluation.surprise.study import surprise_study
    from vla_policy.models.loading import load_policy
    from vla_policy.rollouts.workers import RolloutError
    from vla_policy.world_model.monitors import DETECTOR

    policy, out = load_policy(policy_folder, config.device, config.threads), Path(config.out)
    try:
        found = surprise_study(policy, policy_folder, world_model, config, out, partial(rollout_bar, console))
    except RolloutError as error:
        raise Failure(f"{error}\nthe kinds of episodes that were finished before are kept in {out}") from None
    disturbed = {kind: scored[DETECTOR] for kind, scored in found.disturbed.items()}
    threshold = found.summary["nominal"][DETECTOR]["threshold"]
    plot_surprise(disturbed, found.nominal[DETECTOR], threshold, config.window, out / "surprise.png")
    for table in surprise_tables(found.summary):
        console.print(table)
    for name, reason in found.summary["left_out"].items():
        print_line(f"left out: {name} ({reason})")
    ms = found.summary["monitor_ms"]
    print_line(f"one monitored frame on one core: p50 {ms['p50']:.1f} ms, p95 {ms['p95']:.1f} ms (n = {ms['n']})")
    print_line(f"surprise.json, surprise.png and traces are in {out}")
