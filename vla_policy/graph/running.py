"""The nodes of an application as processes, with an operator that brings them up."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from std_msgs.msg import Bool

from vla_policy.graph.operator import GraphError, Operator
from vla_policy.graph.processes import Processes
from vla_policy.nodes import common

MANAGED = ("policy", "surprise_monitor")  # lifecycle nodes; each has the heartbeat <name>/stop


class Graph:
    """Nodes by name with their parameters. An unexpected exit is a `GraphError` with the end of the node's log."""

    def __init__(self, processes: Processes, nodes: Mapping[str, Mapping[str, Any]]) -> None:
        self.processes, self.nodes = processes, nodes
        self.operator = Operator(self._check)

    def close(self) -> None:
        self.operator.close()

    def start(self) -> None:
        """Start all nodes in an empty domain and bring up the lifecycle nodes."""
        self.operator.require_alone()
        for name, parameters in self.nodes.items():
            self.processes.start(name, **parameters)
        for name in filter(self.nodes.__contains__, MANAGED):
            self.bring_up(name)

    def bring_up(self, name: str) -> None:
        """Configure and activate a lifecycle node."""
        try:
            self.operator.bring_up(name)
        except GraphError as error:
            raise GraphError(f"{error}\n{self.processes.last_words(name)}") from None

    def restart(self, name: str) -> None:
        """Start a killed lifecycle node and bring it up."""
        self.processes.start(name, **self.nodes[name])
        beats, node = threading.Event(), self.operator.node
        # The services of a killed process stay discoverable for a while; a heartbeat proves that it is alive.
        subscription = node.create_subscription(Bool, f"{name}/stop", lambda _: beats.set(), common.HEARTBEAT_QOS)
        self.operator.wait(beats.is_set, f"heartbeat of {name}")
        node.destroy_subscription(subscription)
        self.bring_up(name)

    def _check(self) -> None:
        for name, code in self.processes.dead().items():
            raise GraphError(f"{name} ended with status {code}: {self.processes.last_words(name)}")


@contextmanager
def running(log: Path, nodes: Mapping[str, Mapping[str, Any]]) -> Iterator[Graph]:
    """The graph of these nodes, brought up; output goes to `log`."""
    with Processes(log) as processes, closing(Graph(processes, nodes)) as graph:
        graph.start()
        yield graph
