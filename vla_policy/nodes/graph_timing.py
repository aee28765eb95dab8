"""How fast the whole graph stops: processes killed, a camera stopped, the block teleported while the policy plays."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import closing

import numpy as np
from std_srvs.srv import Trigger

from vla_policy.evaluation.graph_report import Hold
from vla_policy.nodes.fault_timing import timed
from vla_policy.nodes.graph import Graph
from vla_policy.nodes.harness import HOLDS, Witness, wait_for

PERIOD = 0.1  # seconds of a chunk's row, and from one picture to the next
CHUNK = 0.8  # seconds from one chunk to the next
MOVED = 0.01  # metres after which the arm is moving
MISSED = 3.0  # seconds without a hold after which an event was missed


def kill(graph: Graph, witness: Witness, name: str) -> Hold:
    """SIGKILL to a node's process, which is started again afterwards."""
    fault = time.time()
    graph.processes[name].kill()
    hold = timed(witness, fault)
    graph.processes[name].wait()
    graph.restart(name)
    return hold


def silence_camera(graph: Graph, witness: Witness) -> Hold:
    """The robot's process stopped; seconds count from when its next picture would have come."""
    robot = graph.processes["pusht_sim"]
    os.kill(robot.pid, signal.SIGSTOP)
    time.sleep(PERIOD / 2)  # what is under way arrives
    hold = timed(witness, witness.seen + PERIOD)
    os.kill(robot.pid, signal.SIGCONT)
    return hold


def graph_timing(
    graph: Graph, repeats: int, generator: np.random.Generator, advance: Callable[[], None] = lambda: None
) -> dict[str, list[Hold]]:
    """Every fault `repeats` times, anywhere in a chunk."""
    faults: dict[str, Callable[[Graph, Witness], Hold]] = {
        "policy killed": lambda graph, witness: kill(graph, witness, "policy"),
        "camera silent": silence_camera,
    }
    if "surprise_monitor" in graph.nodes:
        faults["monitor killed"] = lambda graph, witness: kill(graph, witness, "surprise_monitor")
    found: dict[str, list[Hold]] = {name: [] for name in faults}
    with closing(Witness()) as witness:
        for _ in range(repeats):
            for name, inject in faults.items():
                _play(graph, witness, generator)
                found[name].append(inject(graph, witness))
                advance()
    return found


def teleport_timing(graph: Graph, repeats: int, advance: Callable[[], None] = lambda: None) -> tuple[list[Hold], int]:
    """Holds after `repeats` events of a simulation with a disturbance, and how many episodes had a hold before theirs.

    Seconds count from the stamp of the first picture that shows the event.
    """
    found: list[Hold] = []
    early = 0
    with closing(Witness()) as witness:
        while len(found) < repeats:
            before = witness.event
            _begin(graph, witness)
            _wait_for_event(witness, before)
            if witness.event > before:
                found.append(timed(witness, witness.event, MISSED))
                advance()
            else:
                early += 1
    return found, early


def _wait_for_event(witness: Witness, before: float) -> None:
    wait_for(lambda: witness.event > before or witness.state in HOLDS, "the event")


def _begin(graph: Graph, witness: Witness) -> None:
    """A new episode."""
    graph.operator.enable(False)
    graph.operator.call(Trigger, "pusht_sim/reset", Trigger.Request())
    witness.forget()
    graph.operator.enable(True)


def _play(graph: Graph, witness: Witness, generator: np.random.Generator) -> None:
    """Until the arm moves, at some place in a chunk. A busy computer may stop it before; then once more."""
    while True:
        _begin(graph, witness)
        wait_for(lambda: witness.moved(0.0) > MOVED or witness.state in HOLDS, "a moving arm")
        time.sleep(generator.uniform(0.0, CHUNK))
        if witness.state == "running":
            return
