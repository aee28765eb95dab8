"""vla-bench: how fast the policy and the simulation are, and what more demonstrations bring."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from vla_policy.cli.common import user_errors
from vla_policy.cli.help import config_parser
from vla_policy.cli.load import load_policy, machine, typed_config

console = Console()

COMMANDS = """commands, each with a --help of its own:
  vla-bench latency CHECKPOINT key=value ...        milliseconds an action chunk, batch 1
  vla-bench sim key=value ...                       simulation steps a second, and how it follows human pushes
  vla-bench demonstrations EVALUATION_FOLDER ...    success against the number of demonstrations, table and plot
"""


@dataclass
class LatencyConfig:
    """The keys of `conf/latency.yaml`, explained there."""

    device: str = "auto"
    threads: int | None = None
    repeats: int = 200
    warmup: int = 10
    seed: int = 0
    out: str = "outputs/bench/latency.json"


@user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """Run one of the commands."""
    parser = config_parser("vla-bench", "Measure speed, fidelity and data efficiency.", more=COMMANDS)
    commands = {"latency": _latency, "demonstrations": _demonstrations}
    parser.add_argument("command", choices=commands)
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    options = parser.parse_args(arguments)
    commands[options.command](options.arguments)


def _latency(arguments: Sequence[str]) -> None:
    description = "Milliseconds from one observation to one action chunk, preprocessing included."
    parser = config_parser("vla-bench latency", description, "latency")
    parser.add_argument("CHECKPOINT", help="folder or hub name")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    options = parser.parse_args(arguments)

    from vla_policy.evaluation.latency import chunk_latency, random_histories, split_latency
    from vla_policy.evaluation.report import git_commit, write_json

    config = typed_config(LatencyConfig, "latency", options.overrides)
    policy = load_policy(options.CHECKPOINT, config.device, config.threads)
    histories = random_histories(policy, seed=config.seed)
    found = chunk_latency(policy, histories, config.repeats, config.warmup, np.random.default_rng(config.seed))
    found["prefix_ms"] = split_latency(policy, histories, config.repeats, config.warmup)
    found |= {**machine(policy), "checkpoint": options.CHECKPOINT, "git_commit": git_commit()}
    write_json(Path(config.out), found)
    console.print(_latency_table(found))
    console.print(f"written to {config.out}", markup=False, highlight=False)


def _latency_table(found: dict) -> Table:
    where = f"{found['device']}, {found['threads']} threads, {found['inference_steps']} denoising steps"
    table = Table(title=f"One action chunk, batch 1, on {where}, n = {found['n']}", title_justify="left")
    table.add_column("")
    table.add_column("ms", justify="right")
    for key in ("p50", "p95", "p99"):
        table.add_row(f"observations to actions, {key}", f"{found[key]:.2f}")
    table.add_row("  observations to keys and values, p50", f"{found['prefix_ms']['p50']:.2f}")
    table.add_row("  denoising, the difference", f"{found['p50'] - found['prefix_ms']['p50']:.2f}")
    table.add_row(f"first of {len(found['warmup_ms'])} warm-up chunks", f"{found['warmup_ms'][0]:.2f}")
    return table


def _demonstrations(arguments: Sequence[str]) -> None:
    description = "Success against the number of demonstrations: one evaluation folder for each trained policy."
    parser = config_parser("vla-bench demonstrations", description)
    parser.add_argument("EVALUATION", nargs="+", type=Path, help="folders that vla-eval wrote")
    parser.add_argument("--out", type=Path, default=Path("outputs/bench"), help="folder of table and plot")
    options = parser.parse_args(arguments)

    from vla_policy.evaluation.demonstrations import demonstrations_table, gather, write_demonstrations

    rows = gather(options.EVALUATION)
    paths = write_demonstrations(options.out, rows)
    console.print(demonstrations_table(rows))
    console.print("written to " + ", ".join(map(str, paths)), markup=False, highlight=False)


if __name__ == "__main__":
    main()
