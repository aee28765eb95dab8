"""The gate's configuration for a robot that a contract describes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vla_policy.runtime.gate import GateConfig
from vla_policy.runtime.limits import Limits

if TYPE_CHECKING:
    from vla_policy.robot.contract import Contract

EMERGENCY_STOP = "emergency_stop"  # which a contract may expect to hear of; teleoperation has one of its own


def gate_config(contract: Contract, heartbeats: Sequence[str], dry_run: bool) -> GateConfig:
    """The contract's limits and timeouts for the rate at which commands are sent. In a dry run nothing follows them."""
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
