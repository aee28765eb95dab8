"""vla-bench web: the live page in a browser."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vla_policy.cli.common import print_line, stdout
from vla_policy.cli.help import CHECKPOINT, parse_command
from vla_policy.graph.application import GraphConfig, graph_environment, nodes, require_ros
from vla_policy.interfaces import Failure, InputError
from vla_policy.utils.progress import progress_bar

TARGET = 100.0  # milliseconds, p95, of both
REASONS = ("emergency stop",)

console = stdout()


@dataclass
class WebBenchConfig:
    """The live page in a browser."""

    repeats: int = 20  # presses of the stop while the arm moves
    seconds: float = 20.0  # that two cameras are shown
    domain_id: int | None = 77  # ROS_DOMAIN_ID, one without a real arm; null: that of the environment
    out: str = "outputs/bench/web"  # output folder

    def __post_init__(self) -> None:
        if self.repeats < 1 or not self.seconds > 0:
            raise InputError(f"repeats, seconds: expected above 0, found {self.repeats}, {self.seconds}")


def main(arguments: Sequence[str]) -> None:
    """The live page in a Chromium without a window: from its stop to the arm's hold and from a picture's stamp to its
    canvas in the simulation's graph, and the processor time of its server with two cameras of 480 x 640 at 30 Hz.
    """
    (checkpoint,), config = parse_command("vla-bench web", main.__doc__, "web_bench", arguments, CHECKPOINT=CHECKPOINT)
    require_ros()
    os.environ.update(graph_environment(config.domain_id))

    from vla_policy.benchmarks.browser import chromium
    from vla_policy.benchmarks.ros.report import tables
    from vla_policy.graph.operator import GraphError
    from vla_policy.utils.files import write_json

    out = Path(config.out)
    with chromium() as launch:
        try:
            found = _measure(checkpoint, config, launch)
        except (GraphError, TimeoutError) as error:
            raise Failure(f"{error}\nlogs are in {out / 'log'}") from None
    write_json(out / "web.json", found)
    for table in tables(found):
        console.print(table)
    print_line(f"written to {out / 'web.json'}")


def _measure(checkpoint: str, config: WebBenchConfig, launch: Callable[[], Any]) -> dict[str, Any]:
    import numpy as np

    from vla_policy.benchmarks.ros.page_timing import page_timing, two_cameras
    from vla_policy.benchmarks.ros.report import holds, percentile
    from vla_policy.graph.running import running
    from vla_policy.utils.provenance import git_commit
    from vla_policy.web.security import TOKEN, new_token

    out, load = Path(config.out), os.getloadavg()
    token = os.environ[TOKEN] = new_token()  # an environment is not shown to other users as arguments are
    wanted = nodes(checkpoint, GraphConfig(seed=0, web=True, port=0, out=config.out))
    with progress_bar(console) as progress:
        task = progress.add_task("stops", total=config.repeats, state="")
        with running(out / "log" / "graph", wanted) as graph:
            stops, drawn = page_timing(
                graph, launch, token, config.repeats, np.random.default_rng(0), lambda: progress.advance(task)
            )
        progress.add_task("two cameras", total=None, state="")
        two = two_cameras(config.seconds, launch, out / "log" / "two_cameras")
    return {
        "times": {
            "stop button to hold": percentile(holds(stops, None, REASONS), "p95", TARGET),
            "simulation's stamp to canvas": percentile(drawn, "p95", TARGET),
            "two cameras' stamp to canvas": {**two["stamp_to_canvas_ms"], "target": "", "met": None},
        },
        "counts": {"server of two cameras, 480 x 640, 30 Hz": {"found": _shown(two), "target": "", "met": None, **two}},
        "conditions": {
            "checkpoint": checkpoint,
            "cpus": len(os.sched_getaffinity(0)),
            "load_before": load,
            "load_after": os.getloadavg(),
            "git_commit": git_commit(),
        },
    }


def _shown(two: dict[str, Any]) -> str:
    rates = " and ".join(map(str, two["pictures_per_second"]))
    return f"{two['cpu_percent']:.0f} % of a processor, {rates} pictures/s"
