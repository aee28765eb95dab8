"""vla-web live: the page of a running graph."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial

from vla_policy.cli.help import parse_command
from vla_policy.graph.application import require_ros
from vla_policy.robot.contract import find_config, load_contract


def main(arguments: Sequence[str]) -> None:
    """The page of a robot or a simulation that runs on this ROS_DOMAIN_ID: cameras, state, commands, surprise, and a
    stop that always works. With control=true whoever has the token leads. Ctrl-C ends it.
    """
    _, config = parse_command("vla-web live", main.__doc__, "web_live", arguments)
    load_contract(config.contract)  # report a mistake before anything starts
    require_ros()
    os.environ.setdefault("FASTRTPS_DEFAULT_PROFILES_FILE", str(find_config("fastdds", ".xml")))

    from vla_policy.nodes.common import run
    from vla_policy.web.live_node import LiveNode

    run(partial(LiveNode, config))
