"""vla-bench latency: milliseconds from an observation to an action chunk."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

from vla_policy.cli.common import print_line, stdout
from vla_policy.cli.help import CHECKPOINT, parse_command
from vla_policy.evaluation.options import ComputeOptions

console = stdout()


@dataclass
class LatencyConfig(ComputeOptions):
    """Latency of one action chunk."""

    draft: str | None = None  # checkpoint of a smaller policy that drafts its action tokens, see vla-bench speculation
    compile: bool = False  # for one observation at a time, before the warm-up; needs a C++ compiler
    repeats: int = 200  # chunks timed
    warmup: int = 10  # chunks before, reported separately
    seed: int = 0  # of the random observations and the noise
    out: str = "outputs/bench/latency.json"  # file of the numbers


def main(arguments: Sequence[str]) -> None:
    """Milliseconds from an observation to an action chunk, preprocessing included."""
    (checkpoint,), config = parse_command(
        "vla-bench latency", main.__doc__, "latency", arguments, CHECKPOINT=CHECKPOINT
    )

    from vla_policy.evaluation.success.latency import chunk_latency, random_histories, split_latency
    from vla_policy.models.loading import load_policy, machine
    from vla_policy.utils.files import write_json
    from vla_policy.utils.provenance import git_commit

    begin = time.perf_counter()
    policy = load_policy(checkpoint, config.device, config.threads, config.draft, config.compile)
    loaded = time.perf_counter() - begin
    histories = random_histories(policy, seed=config.seed)
    found = chunk_latency(policy, histories, config.repeats, config.warmup, np.random.default_rng(config.seed))
    found["prefix_ms"] = split_latency(policy, histories, config.repeats, config.warmup)
    found |= {**machine(policy), "checkpoint": checkpoint, "draft": config.draft, "compiled": config.compile}
    found |= {"load_s": loaded, "git_commit": git_commit()}
    write_json(Path(config.out), found)
    console.print(_latency_table(found))
    print_line(f"written to {config.out}")


def _latency_table(found: dict) -> Table:
    where = f"{found['device']}, {found['threads']} threads, {found['inference_steps']} inference steps"
    where += ", compiled" if found["compiled"] else ""
    table = Table(title=f"One action chunk, batch 1, on {where}, n = {found['n']}", title_justify="left")
    table.add_column("")
    table.add_column("ms", justify="right")
    for key in ("p50", "p95", "p99"):
        table.add_row(f"observations to actions, {key}", f"{found[key]:.2f}")
    table.add_row("  observations to keys and values, p50", f"{found['prefix_ms']['p50']:.2f}")
    table.add_row("  denoising, the difference", f"{found['p50'] - found['prefix_ms']['p50']:.2f}")
    table.add_row(f"first of {len(found['warmup_ms'])} warm-up chunks", f"{found['warmup_ms'][0]:.2f}")
    table.add_row("loading the policy", f"{1e3 * found['load_s']:.0f}")
    return table
