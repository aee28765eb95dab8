"""Whether the arm may move: a state machine that stops, but never starts, without an operator."""

from __future__ import annotations

from enum import StrEnum

from vla_policy.interfaces import Refused


class State(StrEnum):
    """States of the arm."""

    IDLE = "idle"
    """No commands are sent."""
    ARMED = "armed"
    """The pose is held until there is an action."""
    RUNNING = "running"
    """Actions are executed."""
    HOLDING = "holding"
    """The pose is held until the arm is enabled again."""
    FAULT = "fault"
    """The pose is held if the arm was enabled and is able to; it must be disabled first."""


class Supervisor:
    """Owns the state and its reason ("" if there is none).

    Commands are sent only while `engaged`, from enable to disable; a fault before that sends none.
    """

    def __init__(self) -> None:
        self.state, self.reason = State.IDLE, ""
        self.engaged = False

    @property
    def moving(self) -> bool:
        """Whether actions may be executed."""
        return self.state in (State.ARMED, State.RUNNING)

    def enable(self, obstacle: str) -> None:
        """Arm; `Refused` with the reason if there is an `obstacle` or an unacknowledged fault."""
        if self.state is State.FAULT:
            raise Refused(f"cannot enable: fault ({self.reason}); disable first to acknowledge it")
        if obstacle:
            raise Refused(f"cannot enable: {obstacle}")
        if not self.moving:
            self.state, self.reason = State.ARMED, ""
        self.engaged = True

    def disable(self) -> None:
        """Stop sending commands; acknowledges a fault."""
        self.state, self.reason = State.IDLE, ""
        self.engaged = False

    def set_running(self, running: bool) -> None:
        """Whether there is an action at the moment."""
        if self.moving:
            self.state = State.RUNNING if running else State.ARMED

    def hold(self, reason: str) -> None:
        """Stop moving until the arm is enabled again."""
        if self.moving:
            self.state, self.reason = State.HOLDING, reason

    def release(self, reason: str) -> None:
        """A fault in which no more commands are sent."""
        self.fault(reason)
        self.engaged = False

    def fault(self, reason: str) -> None:
        """Stop moving until the arm is disabled. The first reason is kept."""
        if self.state is not State.FAULT:
            self.state, self.reason = State.FAULT, reason
