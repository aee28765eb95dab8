"""vla-eval surprise: false alarms and detections of the surprise monitor and of what it has to beat."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from vla_policy.cli.common import stdout
from vla_policy.cli.help import config_parser
from vla_policy.cli.load import typed_config
from vla_policy.cli.progress import rollout_bar

console = stdout()


def surprise(arguments: Sequence[str]) -> None:
    """Record what is missing, judge every detector, print tables and write surprise.json and a plot."""
    description = "Calibrate surprise on nominal episodes, then count false alarms and detected events."
    parser = config_parser("vla-eval surprise", description, "surprise")
    parser.add_argument("POLICY", help="folder of a policy")
    parser.add_argument("WORLD_MODEL", help="folder of a world model")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    options = parser.parse_args(arguments)

    from vla_policy.evaluation.surprise.plot import plot_surprise
    from vla_policy.evaluation.surprise.report import surprise_tables
    from vla_policy.evaluation.surprise.study import SurpriseConfig, surprise_study
    from vla_policy.models.loading import load_policy
    from vla_policy.rollouts.workers import RolloutError
    from vla_policy.world_model.monitors import DETECTOR

    config = typed_config(SurpriseConfig, "surprise", options.overrides)
    policy, out = load_policy(options.POLICY, config.device, config.threads), Path(config.out)
    try:
        found = surprise_study(
            policy,
            options.POLICY,
            options.WORLD_MODEL,
            config,
            out,
            lambda name, count: rollout_bar(console, name, count),
        )
    except RolloutError as error:
        Console(stderr=True).print(
            f"error: {error}\nthe kinds of episodes that were finished before are kept in {out}",
            markup=False,
            highlight=False,
        )
        raise SystemExit(1) from None
    disturbed = {kind: scored[DETECTOR] for kind, scored in found.disturbed.items()}
    threshold = found.summary["nominal"][DETECTOR]["threshold"]
    plot_surprise(disturbed, found.nominal[DETECTOR], threshold, config.window, out / "surprise.png")
    for table in surprise_tables(found.summary):
        console.print(table)
    for name, reason in found.summary["left_out"].items():
        console.print(f"left out: {name} ({reason})", markup=False, highlight=False)
    ms = found.summary["monitor_ms"]
    console.print(f"one monitored frame on one core: p50 {ms['p50']:.1f} ms, p95 {ms['p95']:.1f} ms (n = {ms['n']})")
    console.print(f"surprise.json, surprise.png and traces are in {out}", markup=False, highlight=False)
