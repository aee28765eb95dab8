"""vla-bench sim: simulation steps per second, and fidelity to recorded human pushes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.progress import track
from rich.table import Table

from vla_policy.cli.common import print_line, stdout
from vla_policy.cli.help import parse_command
from vla_policy.evaluation.options import SceneOptions
from vla_policy.interfaces import InputError

if TYPE_CHECKING:
    from sim import PushTConfig

console = stdout()


@dataclass
class SimConfig(SceneOptions):
    """Speed of the simulation, and its fidelity to recorded pushes."""

    steps: int = 500  # timed, without images and with one of each camera below
    seed: int = 0  # of the timed starts
    cameras: list[str] = field(default_factory=lambda: ["top"])  # each timed alone
    human: str | None = None
    """a dataset of human pushes to replay, e.g. from vla-dataset import-pusht FILE OUT images=false"""
    n_episodes: int | None = None  # replay the first N of it; null: all
    envs: list[str] = field(default_factory=lambda: ["pybullet", "gym_pusht"])  # to replay them in
    out: str = "outputs/bench/sim.json"  # file of the numbers


def main(arguments: Sequence[str]) -> None:
    """Simulation steps per second on one core, and how closely the block follows recorded human pushes."""
    _, config = parse_command("vla-bench sim", main.__doc__, "sim", arguments)

    from sim.benchmark import steps_per_second
    from vla_policy.benchmarks.fidelity import fidelity_table
    from vla_policy.utils.files import write_json
    from vla_policy.utils.provenance import git_commit

    if config.steps < 1:
        raise InputError(f"steps: expected at least 1, found {config.steps}")
    scene = config.pusht
    replays = _replays(config, scene)
    seen = [(), *((camera,) for camera in config.cameras)]
    speeds = [steps_per_second(cameras, config.steps, config.seed, scene) for cameras in seen]
    found = {"speed": speeds, "human": config.human, "replays": replays, "git_commit": git_commit()}
    write_json(Path(config.out), found)
    console.print(_speed_table(speeds))
    if replays:
        console.print(fidelity_table(replays, "Human actions replayed open loop: median error of the block"))
    print_line(f"written to {config.out}")


def _replays(config: SimConfig, scene: PushTConfig) -> dict[str, dict[str, Any]]:
    """A summary per environment, if there is a dataset to replay."""
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
    slow = "" if speeds[0]["numpy_pictures"] else "PyBullet was built without NumPy: images are slow (see the README)"
    table = Table(title=f"env.step in PyBullet, {about}", title_justify="left", caption=slow)
    table.add_column("images")
    table.add_column("steps / s", justify="right")
    table.add_column("steps / s of CPU time", justify="right")
    for speed in speeds:
        cameras = ", ".join(speed["cameras"]) or "none"
        table.add_row(cameras, f"{speed['steps_per_s']:.0f}", f"{speed['steps_per_cpu_s']:.0f}")
    return table
