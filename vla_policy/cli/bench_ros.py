"""vla-bench ros: how fast the graph acts and stops, over DDS between processes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from vla_policy.cli import sim
from vla_policy.cli.help import config_parser
from vla_policy.cli.load import typed_config
from vla_policy.interfaces import InputError

console = Console()
MEASURED = ("observation_to_command_ms", "jitter_ms", "inference_ms", "observation_age_ms")


@dataclass
class RosConfig:
    """The keys of `conf/ros.yaml`, explained there."""

    repeats: int = 20
    n_episodes: int = 5
    seed: int = 0
    domain_id: int | None = 77
    out: str = "outputs/bench/ros"


def ros(arguments: Sequence[str]) -> None:
    """Faults, then episodes; ros.json has every number."""
    description = "Time from faults to holding, latency, jitter and success of the ROS 2 graph in simulation."
    parser = config_parser("vla-bench ros", description, "ros")
    parser.add_argument("CHECKPOINT", help="folder or hub name")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    options = parser.parse_args(arguments)
    config = typed_config(RosConfig, "ros", options.overrides)
    if config.repeats < 1 or config.n_episodes < 1:
        raise InputError(f"repeats, n_episodes: expected at least 1, found {config.repeats} and {config.n_episodes}")
    sim.require_ros()
    os.environ.update(sim.graph_environment(config.domain_id))

    from vla_policy.evaluation.report import git_commit, write_json
    from vla_policy.nodes.fault_timing import FAULTS, fault_timing

    out = Path(config.out)
    with Progress(console=console) as progress:
        task = progress.add_task("faults", total=config.repeats * len(FAULTS))
        seconds = fault_timing(config.repeats, out / "log", lambda: progress.advance(task))
    graph = sim.GraphConfig(n_episodes=config.n_episodes, seed=config.seed, out=str(out))
    episodes, diagnostics = sim.play(options.CHECKPOINT, graph)
    found: dict[str, Any] = {
        "hold_ms": {name: _percentiles(values) for name, values in seconds.items()},
        "graph_ms": _measured(diagnostics),
        "episodes": [asdict(episode) for episode in episodes],
        "checkpoint": options.CHECKPOINT,
        "cpus": len(os.sched_getaffinity(0)),
        "git_commit": git_commit(),
    }
    write_json(out / "ros.json", found)
    console.print(_table(found))
    console.print(f"written to {out / 'ros.json'}", markup=False, highlight=False)


def _percentiles(seconds: Sequence[float]) -> dict[str, float]:
    p50, p95, p99, most = (1e3 * np.percentile(seconds, [50, 95, 99, 100])).tolist()
    return {"n": len(seconds), "p50": p50, "p95": p95, "p99": p99, "max": most}


def _measured(diagnostics: dict[str, dict[str, str]]) -> dict[str, dict[str, float]]:
    """What the nodes measured themselves, by name."""
    values = {key: value for node in diagnostics.values() for key, value in node.items()}
    names = ("n", "p50", "p95", "p99", "max")
    return {
        name: {what: float(values[f"{name}.{what}"]) for what in names} for name in MEASURED if f"{name}.p50" in values
    }


def _table(found: dict[str, Any]) -> Table:
    table = Table(title="milliseconds, over DDS between processes", title_justify="left")
    for name in ("", "n", "p50", "p95", "p99", "max"):
        table.add_column(name, justify="left" if not name else "right")
    rows = {f"{name} to hold": row for name, row in found["hold_ms"].items()} | found["graph_ms"]
    for name, row in rows.items():
        table.add_row(name, str(round(row["n"])), *(f"{row[what]:.1f}" for what in ("p50", "p95", "p99", "max")))
    successes = sum(episode["success"] for episode in found["episodes"])
    stops = sum(len(episode["stops"]) for episode in found["episodes"])
    table.caption = f"success {successes} / {len(found['episodes'])}, the gate stopped the arm {stops} times"
    return table
