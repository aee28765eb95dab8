"""Time from an injected fault to the hold of a gate in its own process, over DDS, seen from the robot's side."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from std_msgs.msg import Bool

from vla_policy.benchmarks.ros.harness import HOLDS, START, FakeRobot, HeldBefore, Witness
from vla_policy.benchmarks.ros.measured import MONITOR, Fault, Hold, Storm
from vla_policy.graph.operator import GraphError
from vla_policy.graph.processes import Processes

TRIES = 10  # attempts to inject a fault before the arm is held for another reason
JUMP = 3.0  # seconds that the clock is set forward or back
STORM = 1.0  # seconds
AFTERWARDS = 0.3  # seconds after a storm for the witness to read its queue
STALE = 2.0  # seconds, the age of a storm's chunks
ELSEWHERE = 0.3  # metres along x, target of a storm's stale chunks
OFF_PATH = 0.01  # metres along x that a command may deviate; the arm moves along y


def measured(attempt: Callable[[], Hold], what: str) -> Hold:
    """The first attempt in which the arm was not held before the fault; `GraphError` after `TRIES`."""
    for discarded in range(TRIES):
        try:
            return replace(attempt(), discarded=discarded)
        except HeldBefore:
            pass  # a busy computer, or a monitor's false alarm
    raise GraphError(f"{what}: expected an arm that is not held before, found it held {TRIES} times in a row")


def timed(witness: Witness, fault: float, patience: float = 5.0) -> Hold:
    """The hold after a fault at this time; `HeldBefore` if the arm was held already."""
    try:
        seconds = witness.seconds_to_hold(fault, patience)
    except TimeoutError:
        return Hold(None, "", witness.stood_still(fault))
    return Hold(seconds, witness.reason, witness.stood_still(fault))


def _nan(robot: FakeRobot) -> None:
    rows = np.full((15, 2), 0.45)
    rows[7, 0] = np.nan
    robot.offer(rows)


def _jump(robot: FakeRobot) -> None:
    robot.jump = JUMP if robot.jump == 0 else 0.0


FAULTS: dict[str, Fault[[FakeRobot], None]] = {
    "policy silent": Fault(lambda robot: robot.alive.discard("policy"), ("policy/stop is silent",)),
    "monitor silent": Fault(lambda robot: robot.alive.discard("monitor"), ("surprise_monitor/stop is silent",)),
    "alarm": Fault(lambda robot: robot.monitor.publish(Bool(data=True)), (MONITOR,)),
    "chunk with NaN": Fault(_nan, ("chunk is not finite",)),
    "emergency stop": Fault(lambda robot: robot.emergency.publish(Bool(data=True)), ("emergency stop",)),
    "robot state silent": Fault(lambda robot: robot.alive.discard("robot"), ("robot state is silent",)),
    "clock jump": Fault(_jump, ("the clock jumped",)),
}


@contextmanager
def _gate(log: Path, simulated: bool = False) -> Iterator[tuple[FakeRobot, Witness]]:
    """A gate between a fake robot and a witness; `simulated`: on the robot's clock."""
    heartbeats = ["policy/stop", "surprise_monitor/stop"]
    with Processes(log) as processes:
        processes.start("command_gate", dry_run=False, heartbeats=heartbeats, use_sim_time=simulated)
        with closing(FakeRobot(simulated)) as robot, closing(Witness()) as witness:
            yield robot, witness


def fault_timing(repeats: int, log: Path, advance: Callable[[], None] = lambda: None) -> dict[str, list[Hold]]:
    """Each of `FAULTS` `repeats` times while the arm moves."""
    found: dict[str, list[Hold]] = {name: [] for name in FAULTS}
    for simulated in (False, True):  # only a simulated clock can be set
        names = [name for name in FAULTS if (name == "clock jump") == simulated]
        with _gate(log, simulated) as (robot, witness):
            for name in names * repeats:  # interleaved, so that other load affects all alike
                found[name].append(measured(partial(_fault, FAULTS[name], robot, witness), name))
                advance()
    return found


def _fault(fault: Fault[[FakeRobot], None], robot: FakeRobot, witness: Witness) -> Hold:
    robot.start(witness)
    begin = time.time()
    fault.inject(robot)
    return timed(witness, begin)


def storms(repeats: int, log: Path, advance: Callable[[], None] = lambda: None) -> list[Storm]:
    """Message storms (stale chunks, heartbeats, states as fast as one process can send) while the arm moves."""
    found = []
    with _gate(log) as (robot, witness):
        for _ in range(repeats):
            robot.start(witness)
            found.append(_storm(robot, witness))
            advance()
    return found


def _storm(robot: FakeRobot, witness: Witness) -> Storm:
    begin, stale, sent = time.time(), np.full((15, 2), ELSEWHERE), 0
    robot.offer_motion()
    while time.time() < begin + STORM:
        robot.offer(stale, age=STALE)
        robot.policy.publish(Bool(data=False))
        robot.publish_state()
        sent += 3
    end = time.time()
    time.sleep(AFTERWARDS)
    received = [(t, target) for t, target in list(witness.commands) if begin < t <= end]
    off_path = sum(abs(target[0] - START[0]) > OFF_PATH for _, target in received)
    held = next((reason for t, state, reason in witness.gate_states if begin < t <= end and state in HOLDS), "")
    return Storm(np.array([t - begin for t, _ in received]), end - begin, sent, held, off_path)
