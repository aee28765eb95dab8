"""The acting half of a robot's execution: the one place that commands come from, and that stops them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from vla_policy.interfaces import ActionChunk
from vla_policy.runtime.limits import Command, Limits
from vla_policy.runtime.supervisor import State, Supervisor
from vla_policy.runtime.teleoperation import Alignment
from vla_policy.runtime.timeline import Timeline
from vla_policy.runtime.watchdog import Watchdog

STATE_NAME, TELEOP = "robot state", "teleop"
SETTLED = 1.0  # seconds after the last command in which an arm that moves still follows it; later it is moved by hand
ROUNDING = 1e-3  # ticks; seconds since 1970 are rounded to 0.24 us
TREMBLE = 1.1  # following errors; an arm that is led to its limit, and measured with noise, was not brought elsewhere


@dataclass(frozen=True)
class GateConfig:
    """How a robot is driven. Seconds and Hz.

    `heartbeats` are those whose silence stops the arm, with the silence they may keep; `state_timeout` is the same for
    the robot's own state. A message of teleoperation counts for `teleop_timeout`. An arm that was playing and has had
    nothing to play for `chunk_timeout` holds. `clock_jump` is how far the clock of
    the stamps may move against a steady one between two commands. `future` is how far ahead of it a chunk may be,
    `max_age` how far from it the stamps of the robot's state and of teleoperation. `following_error` (D,), in the
    action's units, is how far the last command may be from the measured pose (None: nothing follows the commands, as in
    a dry run).
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

    @property
    def state_age(self) -> float:
        """How old a state of the robot may be: at full speed it has gone `following_error` by then."""
        if self.following_error is None or self.limits.max_step is None:
            return self.max_age
        return min(self.max_age, float((self.following_error / (self.limits.max_step * self.rate)).min()))


class Gate:
    """Plays the policy's chunks, or what a person wants, under limits, for as long as everybody is well.

    `tick` is called `rate` times a second. Every row of a chunk is approached in equal steps and reached by the end of
    its control period, from wherever the last command was: neither a new row nor a new chunk makes a jump. Holding
    brakes from the last command and stays where it comes to rest. The last command stays the set-point while the arm
    is within `following_error` of it, disabled or not, so that enabling moves no arm that its weight keeps off its
    set-point. `now` is the clock of the time stamps, `steady` one that nobody sets; both in seconds.
    """

    def __init__(self, config: GateConfig) -> None:
        self.config = config
        self.refused: Counter[str] = Counter()
        self.supervisor = Supervisor()
        self.teleoperated = False
        self.pose_error = ""  # why the robot must not be commanded where it is, beyond the action's channels
        self._limits = config.limits
        stall = max(0.05, 2.0 / config.rate)  # more than a tick, or all silence would count as the gate's own sleep
        self._watchdog = Watchdog({**config.heartbeats, STATE_NAME: config.state_timeout}, stall)
        self._teleop_watchdog = Watchdog({TELEOP: config.teleop_timeout}, stall)
        self._timeline = Timeline()
        self._stops: dict[str, bool] = {}
        self._causes: dict[str, str] = {}  # of the stops, as far as told
        self._max_age = {STATE_NAME: config.state_age, TELEOP: config.max_age}
        self._unusable = ""  # why the robot state that came last was of no use
        self._measured: np.ndarray | None = None
        self._wanted: np.ndarray | None = None  # by teleoperation
        self._previous: np.ndarray | None = None  # the last command
        self._step = np.zeros_like(config.limits.low)  # that led to it
        self._sent = -math.inf  # when the last command was, steady
        self._error = self._step  # from the measured pose to the last command, once the arm is at rest
        self._age = 0.0  # of the measured pose when it came
        self._strayed = False  # from its set-point since it was enabled
        self._alignment = Alignment(config.limits.max_step, config.rate)
        self._clutch = np.zeros_like(config.limits.low)  # from a leader's targets to the commands they mean
        self._offset: float | None = None  # of the stamps' clock from the steady one
        self._played: float | None = None  # the last time that there was something to play, steady
        self._enabled_at = -math.inf  # on the stamps' clock
        self.setpoint_resets = 0  # how often what is told has begun anew at the measured pose

    @property
    def chunk(self) -> ActionChunk | None:
        """The chunk being played."""
        return self._timeline.chunk

    @property
    def following(self) -> bool:
        """Whether there is a last command and the arm is within `following_error` of it."""
        if self.config.following_error is None or self._previous is None or self._measured is None:
            return False
        error = np.abs(self._previous - self._measured)
        return bool((error <= TREMBLE * self.config.following_error).all())

    @property
    def velocity(self) -> np.ndarray:
        """Of the commands (D,), in units / s; zero at rest."""
        return self._step * self.config.rate

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
            self._measured, self._age = np.asarray(pose, float), age
            self._watchdog.feed(STATE_NAME, steady)
            if self._previous is not None and steady - self._sent < SETTLED:
                self._error = self._previous - self._measured
        return usable

    def heartbeat(self, name: str, stop: bool, steady: float) -> None:
        """`name` is alive and wants the arm to stop, or not."""
        self._watchdog.feed(name, steady)
        self._stops[name] = stop
        if stop:
            self.supervisor.hold(self._stopped_by(name))

    def explain(self, name: str, cause: str) -> None:
        """Why `name` says stop, which may be heard of before or after the stop itself."""
        told = self._stopped_by(name)
        self._causes[name] = cause
        if self.supervisor.state is State.HOLDING and self.supervisor.reason == told == f"{name} says stop":
            self.supervisor.reason = self._stopped_by(name)

    def _stopped_by(self, name: str) -> str:
        return ": ".join(filter(None, [f"{name} says stop", self._causes.get(name, "")]))

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
        bad, most = "", self._max_age[name]
        if pose.shape != self._limits.low.shape or not np.isfinite(pose).all():
            bad = "not finite or of another shape"
        elif not abs(age) <= most:
            bad = "stale" if age > 0 else "from the future"
        if bad:
            self.refused[f"{name} {bad}"] += 1
        if name == STATE_NAME:
            self._unusable = f"it is {age:.2f} s old, more than {most:.3g} s" if bad == "stale" else bad
        return not bad

    def enable(self, now: float, steady: float) -> None:
        """Arm, where the robot is, with what is planned from now on; `Refused` says why not."""
        was_moving, was_engaged = self.supervisor.moving, self.supervisor.engaged
        self.supervisor.enable(self._obstacle(now, steady))
        if was_moving:
            return
        self._timeline.clear()
        self._wanted, self.teleoperated = None, False
        self._played, self._strayed = None, False
        self._offset, self._enabled_at = now - steady, now
        if not self.following:
            self._restart()
        elif not was_engaged:
            self._resume()

    def disable(self) -> None:
        """Send nothing."""
        self.supervisor.disable()

    def _restart(self) -> None:
        """The next command counts from the measured pose."""
        assert self._measured is not None
        self._previous = self._measured
        self._error = self._step = np.zeros_like(self._measured)
        self.setpoint_resets += 1

    def _resume(self) -> None:
        """The next command counts from the last one. With an arm that was moved by hand meanwhile the set-point goes
        along: the arm would jump back to it.
        """
        assert self._previous is not None
        assert self._measured is not None
        self._step = np.zeros_like(self._previous)
        moved = self._previous - self._measured - self._error
        if self._limits.max_step is not None and (np.abs(moved) > self._limits.max_step).any():
            self._previous = self._previous - moved
            self.setpoint_resets += 1

    def tick(self, now: float, steady: float) -> Command | None:
        """What to send now; None unless enabled, and while the robot is where it must not be commanded."""
        self._watch(now, steady)
        if self.supervisor.engaged:
            self._follow()
        if not self.supervisor.engaged or self._previous is None:
            return None
        if self._astray():
            self._step = np.zeros_like(self._previous)
            return None
        action = self._action(now, steady)
        self._wait(action is not None, steady)
        self.supervisor.playing(action is not None)
        command = self._leashed(self._limits.gate(action, self._previous, self._step))
        if command.status == "hold":
            command = Command(command.action, "hold", self.supervisor.reason or command.reason)
        self._step, self._previous = command.action - self._previous, command.action
        self._sent = steady
        return command

    def take_back(self, reason: str) -> None:
        """The robot cannot follow the last command, which was not sent: hold at the one before."""
        if self._previous is not None:
            self._previous, self._step = self._previous - self._step, np.zeros_like(self._step)
        self.supervisor.hold(reason)

    def _leashed(self, command: Command) -> Command:
        """The command, or a hold that leads an arm which is stuck or slow by no more than `following_error`."""
        most = self.config.following_error
        if most is None or self._previous is None or self._measured is None:
            return command
        low, high = np.minimum(self._measured - most, self._previous), np.maximum(self._measured + most, self._previous)
        action = np.clip(command.action, low, high)
        far = np.flatnonzero(action != command.action)
        if not len(far):
            return command
        self.supervisor.hold(self._lead(int(far[0]), command.action))
        return Command(action, "hold")

    def _follow(self) -> None:
        """A held arm that is brought elsewhere stays there: its set-point must not wait for it far away, to jump to
        when its drives are on again. One that leaves that as well falls, or is led: nobody tells it anything more.
        """
        if self._astray():
            self.supervisor.hold(self.pose_error)
        elif self.config.following_error is not None and self._previous is not None and not self.following:
            error = np.abs(self._previous - self._measured)
            lead = self._lead(int(np.argmax(error / self.config.following_error)), self._previous)
            if self._strayed:
                self.supervisor.release(f"{lead}, and does not stay where it is")
                return
            self.supervisor.hold(lead)
            self._restart()
            self._strayed = True

    def _astray(self) -> bool:
        """Whether the robot is where commands would not be followed but jumped to; in a dry run nothing jumps."""
        return bool(self.pose_error) and self.config.following_error is not None

    def _lead(self, channel: int, command: np.ndarray) -> str:
        """How far a channel is from a command (D,), in words."""
        assert self._measured is not None
        assert self.config.following_error is not None
        error, most = abs(self._measured - command)[channel], self.config.following_error[channel]
        old = f", by a state {self._age:.2f} s old" if self._age > 1.0 / self.config.rate else ""
        return f"{self._name(channel)} is {error:.3g} away from its command, more than {most:.3g}{old}"

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
        if self.teleoperated and self._wanted is not None and self._previous is not None:
            self._timeline.clear()
            if not released:
                self._clutch = self._engaged_clutch(self._wanted)
            return self._alignment.follow(self._wanted + self._clutch, self._previous)
        if released:
            self.supervisor.hold("teleoperation ended")
            self._wanted = None
            return None
        row, end = self._timeline.due(now), self._timeline.ends(now)
        if row is None or end is None or self._previous is None:
            return None
        left = max(1, math.ceil((end - now) * self.config.rate - ROUNDING))
        action: np.ndarray = row if left == 1 else self._previous + (row - self._previous) / left
        return action

    def _engaged_clutch(self, wanted: np.ndarray) -> np.ndarray:
        """What a leader's targets lack (D,) when they begin at the pose where the arm at rest is measured.

        They would have it sink by its steady-state error with every press.
        """
        if self._previous is None or self._measured is None or not self.following or self._step.any():
            return np.zeros_like(wanted)
        error = self._previous - self._measured
        return np.where(np.abs(wanted - self._measured) < np.abs(error) / 2, error, 0.0)

    def _watch(self, now: float, steady: float) -> None:
        overdue = self._watchdog.check(steady)
        if self._offset is not None and abs(now - steady - self._offset) > self.config.clock_jump:
            self.supervisor.hold(f"the clock jumped by {now - steady - self._offset:+.2f} s")
        self._offset = now - steady
        for name, age in overdue.items():
            self.supervisor.hold(f"{name} is silent for {age:.2f} s{self._why_silent([name])}")

    def _obstacle(self, now: float, steady: float) -> str:
        if now <= 0:
            return "there is no time yet (use_sim_time without /clock?)"
        silent = self._watchdog.check(steady)
        if silent:
            refused = f" (refused: {dict(self.refused)})" if self.refused else ""
            return f"nothing is heard of {', '.join(silent)}{refused}{self._why_silent(silent)}"
        stops = [self._stopped_by(name) for name, stop in self._stops.items() if stop]
        return "; ".join(stops) or self.pose_error or ("" if self.following else self._outside())

    def _why_silent(self, names: Iterable[str]) -> str:
        return f": {self._unusable}" if self._unusable and STATE_NAME in names else ""

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
