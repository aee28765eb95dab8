"""A robot's execution, `runtime.Pilot` and `runtime.Gate`, on a clock that counts control periods."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import gymnasium
import numpy as np

from vla_policy.interfaces import ActionChunk, Given, InputError, Interface, Observation
from vla_policy.robot.contract import load_contract
from vla_policy.runtime import Command, Gate, GateConfig, Limits, ObservationBuffer, Pilot, decided, gate_config


def drive_of(env: gymnasium.Env) -> GateConfig:
    """The gate's configuration for the robot in `env`, from the contract that `env.contract` names. Without a contract
    there are only the bounds of the action space, and one command per control period.
    """
    if env.has_wrapper_attr("contract"):
        drive = gate_config(load_contract(env.get_wrapper_attr("contract")), [], dry_run=False)
        return replace(drive, heartbeats={})  # policy and monitor are in this program
    box, fps = env.action_space, float(env.get_wrapper_attr("interface").fps)
    assert isinstance(box, gymnasium.spaces.Box)
    low, high = box.low.astype(float), box.high.astype(float)
    limits = Limits(low, high, max_step=np.full(low.shape, np.inf))
    return GateConfig(fps, limits, heartbeats={}, state_timeout=2.0 / fps, chunk_timeout=max(1.0, 2.0 / fps))


class ControlLoop:
    """One episode of one simulated robot, executed like one of a real robot.

    Each control period: `observe`; if `ask` returns a window, `offer` the policy's chunk for it, now or some periods
    later, which `chunking` bridges; then `command`. The clock starts at one control period: for the gate, 0 means that
    there is no time yet.

    `interface` is the policy's. `seams` has, for every chunk that replaced another, the distance in the action's units
    between its first command and what the other would have had for that period: the row that was due, or standstill.
    """

    def __init__(
        self,
        interface: Interface,
        n_obs_steps: int,
        n_action_steps: int,
        drive: GateConfig,
        chunking: str = "async",
    ) -> None:
        if interface.action.shape != drive.limits.low.shape:
            raise InputError(f"limits: expected shape {interface.action.shape}, found {drive.limits.low.shape}")
        self._ticks = round(drive.rate / interface.fps)
        if self._ticks < 1 or abs(self._ticks * interface.fps - drive.rate) > 1e-9:
            raise InputError(f"rate of commands: expected a multiple of {interface.fps:g} Hz, found {drive.rate:g} Hz")
        self._keys, self._dt, self._periods = list(interface.observations), 1.0 / interface.fps, 1
        buffer = ObservationBuffer(self._keys, slop=0.0, max_age=self._dt)  # all samples have the same time
        self._pilot, self._gate = Pilot(interface, n_obs_steps, n_action_steps, buffer, chunking), Gate(drive)
        self._last = np.zeros_like(drive.limits.low)
        self._expected: np.ndarray | None = None  # the command of this period by the chunk that was just replaced
        self.given: Given | None = None
        """What the chunk that was asked for last should continue."""
        self.seams: list[float] = []

    @property
    def now(self) -> float:
        """Seconds."""
        return self._periods * self._dt

    def observe(self, values: Mapping[str, np.ndarray], task: str, pose: np.ndarray) -> None:
        """Add the current observation, with the robot at `pose` (D,) in the action's units; the first one enables it.

        `InputError` if the observation does not match the policy's interface, `Refused` if the robot cannot be enabled.
        """
        now = self.now
        for key in self._keys:
            if key in values:
                self._pilot.buffer.put(key, values[key], now, now)
        if self._pilot.observe(task) is None:
            Observation(values, task, now).check(self._pilot.interface)
        self._gate.measure(pose, now)
        if not self._gate.supervisor.engaged:
            self._gate.enable(now, now)
            self._last = np.asarray(pose, float)

    def ask(self) -> list[Observation] | None:
        """The policy's input if a chunk is needed, else None; it is returned once."""
        window = self._pilot.window() if self._gate.supervisor.moving else None
        if window is not None:
            self.given = self._pilot.given(window)
            self._pilot.asked(window)
        return window

    def offer(self, chunk: ActionChunk) -> bool:
        """Play this chunk of the policy from now on; False if the gate refuses it."""
        played = self._pilot.answer(decided(chunk, self._pilot.newest), self.now)
        before, due = self._gate.chunk, self._gate.due(self.now)
        if played is None or not self._gate.offer(played, self.now):
            return False
        if before is not None:
            self._expected = self._last if due is None else due
        return True

    @property
    def chunk(self) -> ActionChunk | None:
        """The chunk being played."""
        return self._gate.chunk

    def halt(self, name: str) -> None:
        """Hold for the rest of the episode, on behalf of `name`."""
        self._gate.heartbeat(name, True, self.now)

    def command(self) -> Command:
        """The last command of the control period that begins now, which the simulation applies during all of it."""
        command = None
        for tick in range(self._ticks):
            now = self.now + tick / self._gate.config.rate
            command = self._gate.tick(now, now)
        self._periods += 1
        if command is None:  # a fault without commands: the robot stays at the last one
            return Command(self._last, "hold", self._gate.supervisor.reason)
        if self._expected is not None:
            self.seams.append(float(np.linalg.norm(command.action - self._expected)))
            self._expected = None
        self._last = command.action
        return command
