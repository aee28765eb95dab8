"""A gate under two clocks that only the test moves."""

from __future__ import annotations

import numpy as np

from vla_policy.interfaces import ActionChunk
from vla_policy.runtime import Command, Gate, GateConfig, Limits, State

RATE, DT = 50.0, 0.1
TICK = 1 / RATE
EPOCH = 1000.0  # of the stamps' clock; the steady one counts from 0


class GateBench:
    """A gate, a robot that is where it was told to be, a policy and a monitor that are well until told otherwise."""

    def __init__(self, following_error: np.ndarray | None = None, **limits: np.ndarray) -> None:
        box = {"low": np.zeros(2), "high": np.ones(2), "max_step": np.full(2, 0.05)} | limits
        heartbeats = {"policy": 0.12, "monitor": 0.12}
        config = GateConfig(RATE, Limits(**box), heartbeats, following_error=following_error)
        self.gate = Gate(config)
        self.steady, self.jump = 0.0, 0.0
        self.pose = np.array([0.5, 0.5])
        self.alive = {"policy", "monitor", "robot"}
        self.commands: list[Command | None] = []

    @property
    def now(self) -> float:
        return EPOCH + self.jump + self.steady

    def run(self, seconds: float) -> list[Command | None]:
        """The commands of this time."""
        for _ in range(round(seconds * RATE)):
            self.steady += TICK
            for name in self.alive & {"policy", "monitor"}:
                self.gate.heartbeat(name, False, self.steady)
            if "robot" in self.alive:
                self.gate.measure(self.pose, self.steady)
            command = self.gate.tick(self.now, self.steady)
            if command is not None and "stuck" not in self.alive:
                self.pose = command.action
            self.commands.append(command)
        return self.commands[-round(seconds * RATE) :]

    def last(self, seconds: float) -> Command:
        """The last command of this time."""
        command = self.run(seconds)[-1]
        assert command is not None
        return command

    def enable(self) -> None:
        self.gate.enable(self.now, self.steady)

    def ready(self) -> GateBench:
        """Enabled, once everybody has been heard."""
        self.run(0.1)
        self.enable()
        return self

    def start(self) -> GateBench:
        """Enabled and playing a chunk to the right."""
        self.ready()
        assert self.offer(0.5 + 0.02 * np.arange(1, 16))
        self.run(0.04)
        assert self.gate.supervisor.state is State.RUNNING
        return self

    def offer(self, xs: np.ndarray, age: float = 0.0) -> bool:
        rows = np.stack([xs, np.full(len(xs), 0.5)], axis=1)
        return self.gate.offer(ActionChunk(rows, self.now - age, DT), self.now)

    def seconds_to_hold(self) -> float:
        """From now on until the first of the holding commands; they must not be followed by others."""
        statuses = [command.status for command in self.run(1.0) if command is not None]
        first = statuses.index("hold")
        assert set(statuses[first:]) == {"hold"}
        return first * TICK
