"""How fast the whole graph stops: processes killed or stopped, the block teleported while the policy plays."""

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

PERIOD = 0.1  # seconds of a chunk's row, and from one picture to the next
CHUNK = 0.8  # seconds from one chunk to the next
MOVED = 0.01  # metres after which the arm is moving
MISSED = 3.0  # seconds without a hold after which an event was missed

GraphFault = Fault[[Graph, Witness], Hold]  # injected and timed


def kill(graph: Graph, witness: Witness, name: str) -> Hold:
    """SIGKILL to a node's process, which is started again afterwards."""
    fault = time.time()
    graph.processes[name].kill()
    try:
        return timed(witness, fault)
    finally:
        graph.processes[name].wait()
        graph.restart(name)


def stop_robot(graph: Graph, witness: Witness) -> Hold:
    """The robot's process stopped, pictures and state; seconds count from when its next picture would have come."""
    robot = graph.processes["pusht_sim"]
    os.kill(robot.pid, signal.SIGSTOP)
    try:
        time.sleep(PERIOD / 2)  # what is under way arrives
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
        found["monitor killed"] = Fault(killed, ("surprise_monitor/stop is silent",))
    return found


def graph_timing(
    graph: Graph,
    wanted: Mapping[str, GraphFault],
    repeats: int,
    generator: np.random.Generator,
    advance: Callable[[], None] = lambda: None,
) -> dict[str, list[Hold]]:
    """Every fault `repeats` times, anywhere in a chunk."""
    found: dict[str, list[Hold]] = {name: [] for name in wanted}
    with closing(Witness()) as witness:
        for _ in range(repeats):
            for name, fault in wanted.items():
                found[name].append(measured(partial(_fault, graph, witness, generator, fault), name))
                advance()
    return found


def _fault(graph: Graph, witness: Witness, generator: np.random.Generator, fault: GraphFault) -> Hold:
    _play(graph, witness, generator)
    return fault.inject(graph, witness)


def teleport_timing(graph: Graph, repeats: int, advance: Callable[[], None] = lambda: None) -> list[Hold]:
    """Holds after `repeats` events of a simulation with a disturbance.

    Seconds count from the stamp of the first picture that shows the event.
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
    """A new episode."""
    graph.operator.enable(False)
    graph.operator.call(Trigger, "pusht_sim/reset", Trigger.Request())
    witness.forget()
    graph.operator.enable(True)


def _play(graph: Graph, witness: Witness, generator: np.random.Generator) -> None:
    """Until the arm moves, at some place in a chunk; `HeldBefore` if a busy computer stopped it."""
    _begin(graph, witness)
    wait_for(lambda: witness.moved(0.0) > MOVED or witness.state in HOLDS, "a moving arm")
    time.sleep(generator.uniform(0.0, CHUNK))
    if witness.state != "running":
        raise HeldBefore
