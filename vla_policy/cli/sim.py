"""vla-sim: the simulated robot, the policy and the command gate as ROS 2 nodes, each in its own process."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from vla_policy.cli.common import print_line, stdout, user_errors
from vla_policy.cli.help import config_parser, parse_arguments
from vla_policy.graph.application import GraphConfig, graph_environment, nodes, require_ros
from vla_policy.interfaces import Failure, InputError
from vla_policy.robot.contract import load_contract
from vla_policy.utils.configuration import typed_config
from vla_policy.utils.files import write_json
from vla_policy.utils.progress import progress_bar

if TYPE_CHECKING:
    from vla_policy.graph.operator import GraphEpisode

console = stdout()


@user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """Start the graph, run the episodes, print a table, stop the graph."""
    description = "Run episodes through the real ROS 2 graph; Ctrl-C stops every node."
    parser = config_parser("vla-sim", description, "graph")
    (checkpoint,), overrides = parse_arguments(parser, arguments, CHECKPOINT="folder or hub name")
    # For Hydra `scene=` is the group from which other commands compose a whole scene; here it is a name.
    scenes = [word.removeprefix("scene=") for word in overrides if word.startswith("scene=")]
    others = [word for word in overrides if not word.startswith("scene=")]
    config = typed_config(GraphConfig, "graph", others)
    config.scene = scenes[-1] if scenes else config.scene
    if config.n_episodes < 1 or config.max_steps < 1:
        raise InputError(f"vla-sim: expected n_episodes, max_steps >= 1, found {config.n_episodes}, {config.max_steps}")
    require_ros()
    os.environ.update(graph_environment(config.domain_id))

    from vla_policy.graph.operator import GraphError

    try:
        if config.web:
            run_page(checkpoint, config)
            return
        episodes = run_episodes(checkpoint, config)
    except GraphError as error:
        raise Failure(f"{error}\nlogs are in {config.out}/log") from None
    console.print(_table(episodes))
    print_line(f"episodes.json, diagnostics.json and logs are in {config.out}")


def run_episodes(checkpoint: str, config: GraphConfig) -> list[GraphEpisode]:
    """The results of all episodes; each is added to episodes.json, and diagnostics.json gets the nodes' latest ones."""
    load_contract(config.contract).require_simulated()
    from sim.geometry import SUCCESS_COVERAGE
    from vla_policy.graph.running import running
    from vla_policy.rollouts.scenes import load_scene

    load_scene(config.scene)  # report a mistake before the graph starts

    out = Path(config.out)
    episodes: list[GraphEpisode] = []
    with progress_bar(console) as progress:
        task = progress.add_task("starting the graph", total=config.n_episodes, state="")
        with running(out / "log", nodes(checkpoint, config)) as graph:
            progress.update(task, description="episodes")
            for _ in range(config.n_episodes):
                episodes.append(graph.operator.run_episode(config.max_steps, SUCCESS_COVERAGE, config.rearm))
                write_json(out / "episodes.json", [asdict(episode) for episode in episodes])
                write_json(out / "diagnostics.json", graph.operator.diagnostics)
                progress.advance(task)
    return episodes


def run_page(checkpoint: str, config: GraphConfig) -> None:
    """The graph with the arm enabled, shown and operated in the browser, until Ctrl-C."""
    load_contract(config.contract).require_simulated()
    from vla_policy.graph.running import running
    from vla_policy.rollouts.scenes import load_scene
    from vla_policy.web.security import TOKEN, new_token
    from vla_policy.web.welcome import welcome

    load_scene(config.scene)
    token = os.environ[TOKEN] = new_token()  # an environment is not shown to other users as arguments are
    with running(Path(config.out) / "log", nodes(checkpoint, config)) as graph:
        operator = graph.operator
        operator.wait(lambda: "web" in operator.diagnostics, "the page")
        operator.enable(True)
        page = operator.diagnostics["web"]
        for line in welcome(page["url"], page["fingerprint"], token):
            print(line, flush=True)  # rich would take the QR code apart
        print_line(f"recordings and logs are in {config.out}; Ctrl-C stops every node")
        operator.wait(lambda: False, "the end", seconds=math.inf)


def _table(episodes: Sequence[GraphEpisode]) -> Table:
    successes = sum(episode.success for episode in episodes)
    table = Table(title=f"success {successes} / {len(episodes)} through the ROS 2 graph", title_justify="left")
    for name in ("seed", "instruction", "success", "steps", "max coverage", "seconds", "stops"):
        table.add_column(name, justify="left" if name in ("instruction", "stops") else "right")
    for e in episodes:
        done, stops = "yes" if e.success else "no", "\n".join(e.stops) or "none"
        numbers = str(e.steps), f"{e.max_coverage:.3f}", f"{e.seconds:.1f}"
        table.add_row(str(e.seed), e.instruction or "one goal", done, *numbers, stops)
    return table


if __name__ == "__main__":
    main()
