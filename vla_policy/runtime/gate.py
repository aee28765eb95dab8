"""The acting half of a robot's execution: the one place that commands come from, and that stops them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from vla_policy.interfaces import ActionChunk
from vla_policy.runtime.limits import Command, Limits
from vla_policy.runtime.supervisor import Supervisor
from vla_policy.runtime.teleoperation import Alignment
from vla_policy.runtime.timeline import Timeline
from vla_policy.runtime.watchdog import Watchdog

STATE_NAME, TELEOP = "robot state", "teleop"


@dataclass(frozen=True)
class GateConfig:
    """How a robot is driven. Seconds and Hz.

    `heartbeats` are those whose silence stops the arm, with the silence they may keep; `state_timeout` is the same for
    the robot's own state. A message of teleoperation counts for `teleop_timeout`. An arm that was playing and has had
    nothing to play for `chunk_timeout` holds. `clock_jump` is how far the clock of
    the stamps may move against a steady one between two commands. `future` is how far ahead of it a chunk may be,
    `max_age` how far from it the stamps of the robot's state and of teleoperation. `following_error` (D,), in the
    action's units, is how far the measured pose may be from the last command (None: not looked at).
    `names` are the channels' for messages; by default their numbers.
    """

    rate: float
    limits: Limits
    heartbeats: Mapping[str, float]
    state_timeout: float = 0.15
    teleop_timeout: float = 0.15
    chunk_timeout: float = 1.0
    clock_jump: float = 0.1
    future: float = 0.02
    max_age: float = 0.5
    following_error: np.ndarray | None = None
    names: tuple[str, ...] = ()


class Gate:
    """Plays the policy's chunks, or what a person wants, under limits, for as long as everybody is well.

    `tick` is called `rate` times a second. Every row of a chunk is approached in equal steps and reached by the end of
    its control period, from wherever the last command was: neither a new row nor a new chunk makes a jump. Holding
    keeps the pose measured when it began. `now` is the clock of the time stamps, `steady` one that nobody sets; both in
    seconds.
    """

    def __init__(self, config: GateConfig) -> None:
        self.config = config
        self.refused: Counter[str] = Counter()
        self.supervisor = Supervisor()
        self.teleoperated = False
        self.misplaced = ""  # what keeps the robot from being enabled where it is, beyond the action's channels
        self._limits = config.limits
        stall = max(0.05, 2.0 / config.rate)  # more than a tick, or all silence would count as the gate's own sleep
        self._watchdog = Watchdog({**config.heartbeats, STATE_NAME: config.state_timeout}, stall)
        self._teleop_watchdog = Watchdog({TELEOP: config.teleop_timeout}, stall)
        self._timeline = Timeline()
        self._stops: dict[str, bool] = {}
        self._measured: np.ndarray | None = None
        self._wanted: np.ndarray | None = None  # by teleoperation
        self._alignment = Alignment(config.limits.max_step, config.rate)
        self._held: np.ndarray | None = None  # None while actions are played
        self._previous: np.ndarray | None = None
        self._step: np.ndarray | None = None
        self._offset: float | None = None  # of the stamps' clock from the steady one
        self._played: float | None = None  # the last time that there was something to play, steady
        self._enabled_at = -math.inf  # on the stamps' clock
        self.rests = 0  # how often what is told has begun anew at the measured pose

    @property
    def chunk(self) -> ActionChunk | None:
        """The chunk being played."""
        return self._timeline.chunk

    @property
    def measured(self) -> np.ndarray | None:
        """The last pose (D,) of finite numbers that the robot was at."""
        return self._measured

    def measure(self, pose: np.ndarray, steady: float, age: float = 0.0) -> bool:
        """Where the robot was (D,) `age` seconds ago, in the action's units; False if that is of no use.

        What is too old, or not finite, is as good as silence.
        """
        usable = self._usable(pose, age, STATE_NAME)
        if usable:
            self._measured = np.asarray(pose, float)
            self._watchdog.feed(STATE_NAME, steady)
        return usable

    def heartbeat(self, name: str, stop: bool, steady: float) -> None:
        """`name` is alive and wants the arm to stop, or not."""
        self._watchdog.feed(name, steady)
        self._stops[name] = stop
        if stop:
            self.supervisor.hold(f"{name} says stop")

    def offer(self, chunk: ActionChunk, now: float) -> bool:
        """Play this chunk from now on; False if it was refused. One with a bad number stops the arm."""
        rows = chunk.actions
        if rows.shape[1:] != self._limits.low.shape or not np.isfinite(rows).all():
            self.refused["chunk not finite or of another shape"] += 1
            self.supervisor.hold("the policy's chunk is not finite or has another shape")
            return False
        if chunk.t_obs > now + self.config.future:
            self.refused["chunk from the future"] += 1
            return False
        if not self.supervisor.moving:
            return False
        if chunk.t_obs < self._enabled_at:  # planned for an arm that may have been moved since
            self.refused["chunk from before enabling"] += 1
            return False
        if not self._timeline.offer(chunk, now):
            self.refused["stale chunk"] += 1
            return False
        return True

    def teleoperate(self, wanted: np.ndarray, steady: float, age: float = 0.0) -> None:
        """A person leads the arm to `wanted` (D,), said `age` seconds ago.

        While they do the policy does not, and it does not come back.
        """
        if self._usable(wanted, age, TELEOP):
            self._wanted = np.asarray(wanted, float)
            self._teleop_watchdog.feed(TELEOP, steady)

    def _usable(self, pose: np.ndarray, age: float, name: str) -> bool:
        bad = ""
        if pose.shape != self._limits.low.shape or not np.isfinite(pose).all():
            bad = "not finite or of another shape"
        elif not abs(age) <= self.config.max_age:
            bad = "stale" if age > 0 else "from the future"
        if bad:
            self.refused[f"{name} {bad}"] += 1
        return not bad

    def enable(self, now: float, steady: float) -> None:
        """Arm, where the robot is, with what is planned from now on; `InputError` says why not."""
        was_moving = self.supervisor.moving
        self.supervisor.enable(self._obstacle(now, steady))
        if not was_moving:
            self._timeline.clear()
            self._wanted, self.teleoperated = None, False
            self._rest()
            self._offset, self._enabled_at = now - steady, now

    def disable(self) -> None:
        """Send nothing."""
        self.supervisor.disable()
        self._rest()

    def _rest(self) -> None:
        """The next command counts from the measured pose: somebody may move the arm by hand until then."""
        self._held = self._previous = self._step = self._played = None
        self.rests += 1

    def tick(self, now: float, steady: float) -> Command | None:
        """What to send now; None unless enabled."""
        self._watch(now, steady)
        if not self.supervisor.engaged or self._measured is None:
            return None
        self._follow()
        action = self._action(now, steady)
        self._wait(action is not None, steady)
        self.supervisor.playing(action is not None)
        previous = self._measured if self._previous is None else self._previous
        hold = self._measured if self._held is None else self._held
        command = self._limits.gate(action, previous, hold, self._step)
        if command.status == "hold":
            command = Command(command.action, "hold", self.supervisor.reason or command.reason)
        self._held = hold if command.status == "hold" else None
        self._previous, self._step = command.action, command.action - previous
        return command

    def _follow(self) -> None:
        """An arm that is stuck, or that somebody else leads, must not find a far target when it is free again.

        Nor must one that is held: it stays wherever it was brought.
        """
        if self.config.following_error is None or self._previous is None or self._measured is None:
            return
        error = np.abs(self._measured - self._previous)
        far = np.flatnonzero(error > self.config.following_error)
        if len(far):
            k = int(far[0])
            most = self.config.following_error[k]
            self.supervisor.hold(f"{self._name(k)} is {error[k]:.3g} away from its command, more than {most:.3g}")
            self._rest()

    def _name(self, channel: int) -> str:
        return self.config.names[channel] if self.config.names else str(channel)

    def _wait(self, playing: bool, steady: float) -> None:
        """A chunk may be late, but nobody expects an arm that stood still for long to go on by itself."""
        if playing:
            self._played = steady
        elif self._played is not None and steady - self._played > self.config.chunk_timeout:
            self.supervisor.hold(f"nothing to play for {steady - self._played:.1f} s")

    def _action(self, now: float, steady: float) -> np.ndarray | None:
        """What to approach in this tick; None to hold."""
        released = self.teleoperated
        silent = self._teleop_watchdog.check(steady)  # in every tick, or its sleep would count as the gate's
        self.teleoperated = self._wanted is not None and not silent
        if not (self.teleoperated and self.supervisor.moving):
            self._alignment.part()
        if not self.supervisor.moving:
            return None
        previous = self._measured if self._previous is None else self._previous
        if self.teleoperated and self._wanted is not None and previous is not None:
            self._timeline.clear()
            return self._alignment.follow(self._wanted, previous)
        if released:
            self.supervisor.hold("teleoperation ended")
            self._wanted = None
            return None
        row, end = self._timeline.due(now), self._timeline.ends(now)
        if row is None or end is None:
            return None
        left = max(1, math.ceil((end - now) * self.config.rate - 1e-6))
        return previous + (row - previous) / left

    def _watch(self, now: float, steady: float) -> None:
        overdue = self._watchdog.check(steady)
        if self._offset is not None and abs(now - steady - self._offset) > self.config.clock_jump:
            self.supervisor.hold(f"the clock jumped by {now - steady - self._offset:+.2f} s")
        self._offset = now - steady
        for name, age in overdue.items():
            self.supervisor.hold(f"{name} is silent for {age:.2f} s")

    def _obstacle(self, now: float, steady: float) -> str:
        if now <= 0:
            return "there is no time yet (use_sim_time without /clock?)"
        silent = self._watchdog.check(steady)
        if silent:
            refused = f" (refused: {dict(self.refused)})" if self.refused else ""
            return f"nothing is heard of {', '.join(silent)}{refused}"
        stops = [name for name, stop in self._stops.items() if stop]
        return f"{', '.join(stops)} says stop" if stops else self.misplaced or self._outside()

    def _outside(self) -> str:
        """Which channels are further outside the box than one command at the speed limit can bring back; "" if none."""
        assert self._measured is not None  # its silence is an obstacle before this
        low, high = self._limits.low, self._limits.high
        step = 0.0 if self._limits.max_step is None else self._limits.max_step
        far = np.flatnonzero((self._measured < low - step) | (self._measured > high + step))
        found = [
            f"{self._name(int(k))}: expected {low[k]:g} to {high[k]:g}, found {self._measured[k]:.4g}" for k in far
        ]
        return f"the measured pose is outside the box ({'; '.join(found)})" if found else ""
