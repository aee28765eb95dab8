"""The whole graph with a served policy, as processes: every fault of the server and of the way to it holds the arm."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from helpers.ros import Witness, own_domain
from helpers.serving import COMMAND

from vla_policy.benchmarks.ros.fault_timing import measured
from vla_policy.benchmarks.ros.graph_timing import run_until_moving
from vla_policy.benchmarks.ros.measured import Hold
from vla_policy.benchmarks.ros.server_timing import FAULTS, STOPS, line, server_timing
from vla_policy.graph.application import GraphConfig, nodes
from vla_policy.graph.running import running

pytestmark = [pytest.mark.dds, pytest.mark.slow]


def test_the_arm_is_held_whatever_becomes_of_the_server(tmp_path: Path) -> None:
    with own_domain(), line(COMMAND, tmp_path / "server.log") as served:
        parameters = nodes("", GraphConfig(server=served.relay.address, seed=3))
        with running(tmp_path, parameters) as graph:
            maps = Path(f"/proc/{graph.processes['policy'].pid}/maps").read_text()
            assert "libtorch" not in maps
            found = server_timing(graph, served, 1, np.random.default_rng(0))
            with closing(Witness()) as witness:

                def moving() -> Hold:
                    run_until_moving(graph, witness, np.random.default_rng(0))
                    return Hold(None, "", 0.0)

                measured(moving, "an arm that moves again after the last fault")
    assert set(found) == set(FAULTS)
    for name, (hold,) in found.items():
        assert hold.seconds is not None, name
        assert STOPS[0] in hold.reason, name
