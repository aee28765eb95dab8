"""vla-bench ros: latency and stopping times of the ROS 2 graph, over DDS between processes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from vla_policy.benchmarks.ros.measurements import Bench, load_results, measure
from vla_policy.cli.common import print_line, stdout
from vla_policy.cli.help import CHECKPOINT, parse_command
from vla_policy.graph.application import graph_environment, require_ros
from vla_policy.interfaces import Failure
from vla_policy.utils.progress import progress_bar

console = stdout()


def main(arguments: Sequence[str]) -> None:
    """Times to holding, latency, jitter, success and memory of the ROS 2 graph in simulation."""
    (checkpoint,), config = parse_command("vla-bench ros", main.__doc__, "ros", arguments, CHECKPOINT=CHECKPOINT)
    require_ros()
    os.environ.update(graph_environment(config.domain_id))

    from vla_policy.benchmarks.ros.report import tables
    from vla_policy.graph.operator import GraphError
    from vla_policy.utils.files import write_json

    path = Path(config.out) / "ros.json"
    found = load_results(path, checkpoint, config.seed)
    with progress_bar(console) as progress:
        for name in config.chosen:
            bench = Bench(checkpoint, config, progress, name)
            try:
                measure(found, bench)
            except (GraphError, TimeoutError) as error:
                raise Failure(f"{name}: {error}\nlogs are in {bench.log}") from None
            write_json(path, found)
    for table in tables(found):
        console.print(table)
    print_line(f"written to {path}")
