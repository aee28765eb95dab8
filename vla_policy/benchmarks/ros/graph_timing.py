"""Time until the whole graph holds after a process is killed or stopped, or the block teleported."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial

import numpy as np
from std_srvs.srv import Trigger

from vla_policy.benchmarks.ros.fault_timing import measured, timed
from vla_policy.benchmarks.ros.harness import HOLDS, HeldBefore, Witness, wait_for
from vla_policy.benchmarks.ros.measured import MONITOR, Fault, Hold
from vla_policy.graph.running import Graph

PERIOD = 0.1  # seconds of a chunk's row, and from one image to the next
CHUNK = 0.8  # seconds from one chunk to the next
MOVED = 0.01  # metres after which the arm is moving
MISSED = 3.0  # seconds without a hold after which an event was missed

GraphFault = Fault[[Graph, Witness], Hold]  # injected and timed


def kill(graph: Graph, witness: Witness, name: str) -> Hold:
    """SIGKILL a node's process and restart it afterwards."""
    fault = time.time()
    graph.processes[name].kill()
    try:
        return timed(witness, fault)
    finally:
        graph.processes[name].wait()
        graph.restart(name)


def stop_robot(graph: Graph, witness: Witness) -> Hold:
    """SIGSTOP the robot's process; seconds count from when its next image was due."""
    robot = graph.processes["pusht_sim"]
    os.kill(robot.pid, signal.SIGSTOP)
    try:
        time.sleep(PERIOD / 2)  # for messages in transit
        return timed(witness, witness.seen + PERIOD)
    finally:
        os.kill(robot.pid, signal.SIGCONT)


def faults(monitored: bool) -> dict[str, GraphFault]:
    """Those of a graph, by what is timed."""
    found: dict[str, GraphFault] = {
        "policy killed": Fault(partial(kill, name="policy"), ("policy/stop is silent",)),
        "robot stopped, from its next picture": Fault(
            stop_robot, ("policy/stop says stop", MONITOR, "robot state is silent")
        ),
    }
    if monitored:
        killed = partial(kill, name="surprise_monitor")
        found["monitor killed"] = GraphFault(killed, ("surprise_monitor/stop is silent",))
    return found


def graph_timing(
    graph: Graph,
    wanted: Mapping[str, GraphFault],
    repeats: int,
    generator: np.random.Generator,
    advance: Callable[[], None] = lambda: None,
) -> dict[str, list[Hold]]:
    """Every fault `repeats` times, at random times in a chunk."""
    found: dict[str, list[Hold]] = {name: [] for name in wanted}
    with closing(Witness()) as witness:
        for _ in range(repeats):
            for name, fault in wanted.items():
                found[name].append(measured(partial(_fault, graph, witness, generator, fault), name))
                advance()
    return found


def _fault(graph: Graph, witness: Witness, generator: np.random.Generator, fault: GraphFault) -> Hold:
    run_until_moving(graph, witness, generator)
    return fault.inject(graph, witness)


def teleport_timing(graph: Graph, repeats: int, advance: Callable[[], None] = lambda: None) -> list[Hold]:
    """Holds after `repeats` disturbances of the simulation.

    Seconds count from the stamp of the first image that shows the event.
    """
    found: list[Hold] = []
    with closing(Witness()) as witness:
        for _ in range(repeats):
            found.append(measured(partial(_event, graph, witness), "an event"))
            advance()
    return found


def _event(graph: Graph, witness: Witness) -> Hold:
    before = witness.event
    _begin(graph, witness)
    wait_for(lambda: witness.event > before or witness.state in HOLDS, "the event")
    if witness.event <= before:
        raise HeldBefore
    return timed(witness, witness.event, MISSED)


def _begin(graph: Graph, witness: Witness) -> None:
    """Start a new episode."""
    graph.operator.enable(False)
    graph.operator.call(Trigger, "pusht_sim/reset", Trigger.Request())
    witness.forget()
    graph.operator.enable(True)


def run_until_moving(graph: Graph, witness: Witness, generator: np.random.Generator) -> None:
    """Start an episode and wait for a random time in a chunk; `HeldBefore` if a busy computer stopped the arm."""
    _begin(graph, witness)
    wait_for(lambda: witness.moved(0.0) > MOVED or witness.state in HOLDS, "a moving arm")
    time.sleep(generator.uniform(0.0, CHUNK))
    if witness.state != "running":
        raise HeldBefore
