"""vla-bench ros: how fast the graph acts and stops, over DDS between processes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from vla_policy.benchmarks.ros.measurements import Bench, RosConfig, load_results, measure
from vla_policy.cli.common import stdout
from vla_policy.cli.help import config_parser
from vla_policy.graph.application import graph_environment, require_ros
from vla_policy.interfaces import Failure
from vla_policy.utils.configuration import typed_config
from vla_policy.utils.progress import progress_bar

console = stdout()


def main(arguments: Sequence[str]) -> None:
    """One measurement after the other; each adds its rows to ros.json."""
    description = "Times to holding, latency, jitter, success and memory of the ROS 2 graph in simulation."
    parser = config_parser("vla-bench ros", description, "ros")
    parser.add_argument("CHECKPOINT", help="folder or hub name")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    options = parser.parse_args(arguments)
    config = typed_config(RosConfig, "ros", options.overrides)
    require_ros()
    os.environ.update(graph_environment(config.domain_id))

    from vla_policy.benchmarks.ros.report import tables
    from vla_policy.graph.operator import GraphError
    from vla_policy.utils.files import write_json

    path = Path(config.out) / "ros.json"
    found = load_results(path, options.CHECKPOINT, config.seed)
    with progress_bar(console) as progress:
        for name in config.chosen:
            bench = Bench(options.CHECKPOINT, config, progress, name)
            try:
                measure(found, bench)
            except (GraphError, TimeoutError) as error:
                raise Failure(f"{name}: {error}\nlogs are in {bench.log}") from None
            write_json(path, found)
    for table in tables(found):
        console.print(table)
    console.print(f"written to {path}", markup=False, highlight=False)
