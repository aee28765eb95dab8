"""Whether the arm may move: a state machine that stops by itself and never starts by itself."""

from __future__ import annotations

from enum import StrEnum

from vla_policy.interfaces import Refused


class State(StrEnum):
    """What the arm is allowed to do."""

    IDLE = "idle"
    """Nothing is sent."""
    ARMED = "armed"
    """The pose is held until there is something to play."""
    RUNNING = "running"
    """Actions are played."""
    HOLDING = "holding"
    """The pose is held until somebody enables the arm again."""
    FAULT = "fault"
    """The pose is held, if the arm was enabled and can be; somebody has to disable it first."""


class Supervisor:
    """Owns the state and the reason for it ("" when there is nothing to explain).

    `engaged` from enable to disable: only then is anything sent. A fault of an arm that nobody engaged sends nothing.
    """

    def __init__(self) -> None:
        self.state, self.reason = State.IDLE, ""
        self.engaged = False

    @property
    def moving(self) -> bool:
        """Whether actions may be played."""
        return self.state in (State.ARMED, State.RUNNING)

    def enable(self, obstacle: str) -> None:
        """Arm; `Refused` with the reason if there is an `obstacle` or a fault that nobody has acknowledged."""
        if self.state is State.FAULT:
            raise Refused(f"cannot enable: fault ({self.reason}); disable first to acknowledge it")
        if obstacle:
            raise Refused(f"cannot enable: {obstacle}")
        if not self.moving:
            self.state, self.reason = State.ARMED, ""
        self.engaged = True

    def disable(self) -> None:
        """Send nothing any more; acknowledges a fault."""
        self.state, self.reason = State.IDLE, ""
        self.engaged = False

    def playing(self, something: bool) -> None:
        """Whether there is an action to play at the moment."""
        if self.moving:
            self.state = State.RUNNING if something else State.ARMED

    def hold(self, reason: str) -> None:
        """Stop moving, until somebody enables the arm again."""
        if self.moving:
            self.state, self.reason = State.HOLDING, reason

    def release(self, reason: str) -> None:
        """A fault in which nothing is sent any more."""
        self.fault(reason)
        self.engaged = False

    def fault(self, reason: str) -> None:
        """Stop moving, until somebody disables the arm. The first reason stays."""
        if self.state is not State.FAULT:
            self.state, self.reason = State.FAULT, reason
