"""vla-bench: how fast policy, training, simulation and ROS 2 graph are, what demonstrations and objectives bring."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.progress import track
from rich.table import Table

from vla_policy.cli.bench.ros import ros
from vla_policy.cli.bench.training import training
from vla_policy.cli.common import stdout, user_errors
from vla_policy.cli.help import config_parser
from vla_policy.cli.load import typed_config
from vla_policy.evaluation.options import ComputeOptions
from vla_policy.interfaces import InputError
from vla_policy.models.loading import load_policy, machine

if TYPE_CHECKING:
    from sim import PushTConfig

console = stdout()

COMMANDS = """commands, each with a --help of its own:
  vla-bench latency CHECKPOINT key=value ...        milliseconds an action chunk, batch 1
  vla-bench training DATASET key=value ...          training samples a second, and the waiting for data
  vla-bench ros CHECKPOINT key=value ...            the ROS 2 graph: latency, jitter, time from faults to holding
  vla-bench sim key=value ...                       simulation steps a second, and how it follows human pushes
  vla-bench demonstrations EVALUATION_FOLDER ...    success against the number of demonstrations, table and plot
  vla-bench objectives EVALUATION_FOLDER ...        success, speed and size of policies that differ in the objective
"""


@dataclass
class LatencyConfig(ComputeOptions):
    """How long one action chunk takes."""

    repeats: int = 200  # chunks timed
    warmup: int = 10  # chunks before, reported apart
    seed: int = 0  # of the made-up observations and the noise
    out: str = "outputs/bench/latency.json"  # file of the numbers


@dataclass
class SimConfig:
    """How fast the simulation is, and how closely it follows recorded pushes."""

    steps: int = 500  # timed, without pictures and with one of each camera below
    seed: int = 0  # of the timed starts
    cameras: list[str] = field(default_factory=lambda: ["top"])  # each timed alone
    human: str | None = None
    """a dataset of human pushes to replay, e.g. from vla-dataset import-pusht FILE OUT images=false"""
    n_episodes: int | None = None  # replay the first N of it; null: all
    envs: list[str] = field(default_factory=lambda: ["pybullet", "gym_pusht"])  # to replay them in
    out: str = "outputs/bench/sim.json"  # file of the numbers
    scene: dict[str, Any] = field(default_factory=dict)  # what PushTConfig.from_mapping reads, see sim/config.py


@user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """Run one of the commands."""
    parser = config_parser("vla-bench", "Measure speed and fidelity, data sets and objectives.", more=COMMANDS)
    commands = {
        "latency": _latency,
        "training": training,
        "ros": ros,
        "sim": _sim,
        "demonstrations": _demonstrations,
        "objectives": _objectives,
    }
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

    from vla_policy.evaluation.formats import write_json
    from vla_policy.evaluation.success.latency import chunk_latency, random_histories, split_latency
    from vla_policy.utils.provenance import git_commit

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
    where = f"{found['device']}, {found['threads']} threads, {found['inference_steps']} inference steps"
    table = Table(title=f"One action chunk, batch 1, on {where}, n = {found['n']}", title_justify="left")
    table.add_column("")
    table.add_column("ms", justify="right")
    for key in ("p50", "p95", "p99"):
        table.add_row(f"observations to actions, {key}", f"{found[key]:.2f}")
    table.add_row("  observations to keys and values, p50", f"{found['prefix_ms']['p50']:.2f}")
    table.add_row("  denoising, the difference", f"{found['p50'] - found['prefix_ms']['p50']:.2f}")
    table.add_row(f"first of {len(found['warmup_ms'])} warm-up chunks", f"{found['warmup_ms'][0]:.2f}")
    return table


def _sim(arguments: Sequence[str]) -> None:
    description = "Simulation steps a second on one core, and how closely the block follows recorded human pushes."
    parser = config_parser("vla-bench sim", description, "sim")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    options = parser.parse_args(arguments)

    from sim import PushTConfig
    from sim.benchmark import steps_per_second
    from vla_policy.benchmarks.fidelity import fidelity_table
    from vla_policy.evaluation.formats import write_json
    from vla_policy.utils.provenance import git_commit

    config = typed_config(SimConfig, "sim", options.overrides)
    if config.steps < 1:
        raise InputError(f"steps: expected at least 1, found {config.steps}")
    scene = PushTConfig.from_mapping(config.scene)
    replays = _replays(config, scene)
    seen = [(), *((camera,) for camera in config.cameras)]
    speeds = [steps_per_second(cameras, config.steps, config.seed, scene) for cameras in seen]
    found = {"speed": speeds, "human": config.human, "replays": replays, "git_commit": git_commit()}
    write_json(Path(config.out), found)
    console.print(_speed_table(speeds))
    if replays:
        console.print(fidelity_table(replays, "Human actions replayed open loop: median error of the block"))
    console.print(f"written to {config.out}", markup=False, highlight=False)


def _replays(config: SimConfig, scene: PushTConfig) -> dict[str, dict[str, Any]]:
    """One summary an environment, if there is a dataset to replay."""
    if config.human is None:
        return {}

    from sim import make_env
    from vla_policy.benchmarks.fidelity import replay_dataset
    from vla_policy.data import LeRobotDataset

    dataset = LeRobotDataset(config.human)
    n_episodes = dataset.num_episodes if config.n_episodes is None else config.n_episodes
    if not 1 <= n_episodes <= dataset.num_episodes:
        raise InputError(f"n_episodes: expected 1 to {dataset.num_episodes}, found {n_episodes}")
    envs = {name: make_env(name, (), scene) for name in config.envs}
    summaries = {}
    for name, env in envs.items():
        summaries[name] = replay_dataset(
            dataset, track(dataset.episodes[:n_episodes], f"replaying in {name}", console=console), env
        )
        env.close()
    return summaries


def _speed_table(speeds: Sequence[dict[str, Any]]) -> Table:
    about = f"{speeds[0]['steps']} steps on one core, {100 * speeds[0]['contact']:.0f} % of them in contact"
    slow = "" if speeds[0]["numpy_pictures"] else "PyBullet was built without NumPy: pictures are slow (see the README)"
    table = Table(title=f"env.step in PyBullet, {about}", title_justify="left", caption=slow)
    table.add_column("pictures")
    table.add_column("steps a second", justify="right")
    table.add_column("a second of processor time", justify="right")
    for speed in speeds:
        cameras = ", ".join(speed["cameras"]) or "none"
        table.add_row(cameras, f"{speed['steps_per_s']:.0f}", f"{speed['steps_per_cpu_s']:.0f}")
    return table


def _evaluations(command: str, description: str, out: str, arguments: Sequence[str]) -> argparse.Namespace:
    """The arguments of a command that reads what vla-eval wrote."""
    parser = config_parser(f"vla-bench {command}", description)
    parser.add_argument("EVALUATION", nargs="+", type=Path, help="folders that vla-eval wrote")
    parser.add_argument("--out", type=Path, default=Path("outputs/bench"), help=out)
    return parser.parse_args(arguments)


def _demonstrations(arguments: Sequence[str]) -> None:
    description = "Success against the number of demonstrations: one evaluation folder for each trained policy."
    options = _evaluations("demonstrations", description, "folder of table and plot", arguments)

    from vla_policy.evaluation.success.data_scaling import demonstrations_table, gather, write_demonstrations

    rows = gather(options.EVALUATION)
    paths = write_demonstrations(options.out, rows)
    console.print(demonstrations_table(rows))
    console.print("written to " + ", ".join(map(str, paths)), markup=False, highlight=False)


def _objectives(arguments: Sequence[str]) -> None:
    description = "Policies that differ in the objective alone: an evaluation folder each, compared with the first one."
    options = _evaluations("objectives", description, "folder of objectives.json", arguments)

    from vla_policy.evaluation.formats import write_json
    from vla_policy.evaluation.success.objectives import gather_objectives, objectives_table

    found = gather_objectives(options.EVALUATION)
    write_json(options.out / "objectives.json", found)
    console.print(objectives_table(found))
    console.print(f"written to {options.out / 'objectives.json'}", markup=False, highlight=False)


if __name__ == "__main__":
    main()
