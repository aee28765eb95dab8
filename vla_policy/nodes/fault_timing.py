"""How fast the gate holds: every fault injected many times, timed by a witness on the robot's side."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from std_msgs.msg import Bool

from vla_policy.nodes.harness import FakeRobot, Witness
from vla_policy.nodes.processes import Processes


def _nan(robot: FakeRobot) -> None:
    rows = np.full((15, 2), 0.45)
    rows[7, 0] = np.nan
    robot.offer(rows)


FAULTS: dict[str, Callable[[FakeRobot], None]] = {
    "policy silent": lambda robot: robot.alive.discard("policy"),
    "monitor silent": lambda robot: robot.alive.discard("monitor"),
    "alarm of the monitor": lambda robot: robot.monitor.publish(Bool(data=True)),
    "chunk with NaN": _nan,
    "emergency stop": lambda robot: robot.emergency.publish(Bool(data=True)),
    "robot state silent": lambda robot: robot.alive.discard("robot"),
}


def fault_timing(repeats: int, log: Path, advance: Callable[[], None] = lambda: None) -> dict[str, list[float]]:
    """Seconds from each fault until the target stays where it is, `repeats` times each, of a gate in its own process.

    The longest standstill of this computer in between is taken off, see `Witness.seconds_to_hold`.
    """
    found: dict[str, list[float]] = {name: [] for name in FAULTS}
    with Processes(log) as processes:
        processes.start("command_gate", dry_run=False, heartbeats=["policy/stop", "surprise_monitor/stop"])
        robot, witness = FakeRobot(), Witness()
        try:
            for name, inject in FAULTS.items():
                for _ in range(repeats):
                    robot.start(witness)
                    fault = time.time()
                    inject(robot)
                    found[name].append(witness.seconds_to_hold(fault))
                    advance()
        finally:
            robot.close()
            witness.close()
    return found
