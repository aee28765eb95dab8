"""vla-dataset replay: recorded actions in simulation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from vla_policy.cli.common import print_line, stdout
from vla_policy.cli.help import episode_parser, parse_options

console = stdout()
DEFAULTS = {"env": "pybullet", "out": "", "json": False}


def main(arguments: Sequence[str]) -> None:
    """Print the errors of the block as a table, or JSON."""
    parser = episode_parser(
        "vla-dataset replay", "Replay an episode's actions in simulation and compare the block's path."
    )
    parsed, chosen = parse_options(parser, arguments, DEFAULTS)

    from sim import make_env
    from vla_policy.benchmarks.fidelity import replay_episode
    from vla_policy.data import LeRobotDataset
    from vla_policy.data.rendering import caption, save_video

    dataset = LeRobotDataset(parsed.DATASET)
    env = make_env(chosen.env, cameras=(), render_mode="rgb_array")
    film: list[np.ndarray] = []

    def on_frame(t: int, info: Mapping[str, Any]) -> None:
        if chosen.out:
            line = f"frame {t}, coverage {info['coverage']:.3f}"
            film.append(caption(env.render(), f"episode {parsed.EPISODE} in {chosen.env}", line))

    with Console(stderr=True).status("replaying"):
        found = replay_episode(dataset, parsed.EPISODE, env, on_frame)
    env.close()
    if chosen.out:
        save_video(film, Path(chosen.out), round(dataset.fps))
    position, angle = 1000 * found.position_error, np.degrees(found.angle_error)
    coverages = {"recorded": found.recorded_coverage, "replayed": found.coverage}
    about: dict[str, Any] = {
        "episode": parsed.EPISODE,
        "env": chosen.env,
        "frames": len(position),
        "position_error_mm": {"median": float(np.median(position)), "end": float(position[-1])},
        "angle_error_deg": {"median": float(np.median(angle)), "end": float(angle[-1])},
        "coverage_end": {name: float(values[-1]) for name, values in coverages.items()},
        "max_coverage": {name: float(values.max()) for name, values in coverages.items()},
        "success": {"recorded": found.recorded_success, "replayed": found.success},
    }
    if chosen.json:
        print(json.dumps(about, indent=2))
        return
    table = Table("", "median", "end", title=f"episode {parsed.EPISODE}, {len(position)} frames, in {chosen.env}")
    for name, key in (("position error [mm]", "position_error_mm"), ("angle error [degrees]", "angle_error_deg")):
        table.add_row(escape(name), *(f"{about[key][what]:.2f}" for what in ("median", "end")))
    console.print(table)
    for what in coverages:
        print_line(
            f"{what}: coverage {about['coverage_end'][what]:.3f} at the end, {about['max_coverage'][what]:.3f} at most"
        )
