"""The gate's configuration for a robot that a contract describes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vla_policy.runtime.gate import GateConfig
from vla_policy.runtime.limits import Limits

if TYPE_CHECKING:
    from vla_policy.robot.contract import Contract

EMERGENCY_STOP = "emergency_stop"  # a heartbeat that a contract may require; that of teleoperation has another name


def gate_config(contract: Contract, heartbeats: Sequence[str], dry_run: bool) -> GateConfig:
    """The contract's limits and timeouts at the rate of its commands; in a dry run without a limit of following."""
    command, timeouts = contract.command, contract.timeouts
    change = None if command.acceleration is None else command.acceleration / command.rate**2
    beats = {name: timeouts.policy if name.startswith("policy") else timeouts.monitor for name in heartbeats}
    if timeouts.emergency_stop is not None:
        beats[EMERGENCY_STOP] = timeouts.emergency_stop
    return GateConfig(
        rate=command.rate,
        limits=Limits(command.low, command.high, command.speed / command.rate, change),
        heartbeats=beats,
        state_timeout=timeouts.state,
        teleop_timeout=timeouts.teleop,
        chunk_timeout=timeouts.chunk,
        clock_jump=timeouts.clock_jump,
        future=timeouts.slop,
        max_age=timeouts.max_age,
        following_error=None if dry_run else command.following_error,
        names=contract.interface.action.names,
    )
