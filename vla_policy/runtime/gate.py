"""The output side of a robot's execution: the only source of commands, and the place where they are stopped."""

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
SETTLED = 1.0  # seconds after the last command in which motion of the arm is due to it; later it is moved by hand
TICK_ROUNDING = 1e-3  # ticks; seconds since 1970 are rounded to 0.24 us
NOISE_MARGIN = 1.1  # following errors; an arm at the limit of its following error is measured with noise


@dataclass(frozen=True)
class GateConfig:
    """Limits and timeouts, in seconds and Hz.

    `heartbeats` has the timeouts of the publishers whose silence stops the arm, `state_timeout` is that of the robot's
    own state. A teleoperation message is valid for `teleop_timeout`. An arm that was executing chunks and has had no
    action for `chunk_timeout` holds. `clock_jump` is how far the clock of the stamps may move relative to a monotonic
    one between two commands. `future` is how far ahead of it a chunk may be stamped, `max_age` how far from it the
    stamps of the robot's state and of teleoperation may be. `following_error` (D,), in the action's units, is the
    largest difference of the last command and the measured pose (None: no robot follows the commands, as in a dry run).
    `names` are the channels' for messages; by default their indices.
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
        """The largest age of the robot's state: at full speed it moves `following_error` in this time."""
        if self.following_error is None or self.limits.max_step is None:
            return self.max_age
        return min(self.max_age, float((self.following_error / (self.limits.max_step * self.rate)).min()))


class Gate:
    """Executes the policy's chunks or a person's targets under limits, as long as no heartbeat or check fails.

    `tick` is called `rate` times a second. Every row of a chunk is approached in equal steps from the last command and
    reached by the end of its control period: neither a new row nor a new chunk makes a jump. Holding brakes from the
    last command to rest. The last command stays the set-point while the arm is within `following_error` of it, enabled
    or not, so that enabling does not move an arm that has a steady-state error because of its weight. `now` is the
    clock of the time stamps, `steady` a monotonic one; both in seconds.
    """

    def __init__(self, config: GateConfig) -> None:
        self.config = config
        self.refused: Counter[str] = Counter()
        self.supervisor = Supervisor()
        self.teleoperated = False
        self.pose_error = ""  # why the robot must not be commanded, for reasons outside the action's channels
        self._limits = config.limits
        stall = max(0.05, 2.0 / config.rate)  # more than a tick, or all silence would count as a stall of the gate
        self._watchdog = Watchdog({**config.heartbeats, STATE_NAME: config.state_timeout}, stall)
        self._teleop_watchdog = Watchdog({TELEOP: config.teleop_timeout}, stall)
        self._timeline = Timeline()
        self._stops: dict[str, bool] = {}
        self._causes: dict[str, str] = {}  # of the stops, as far as known
        self._max_age = {STATE_NAME: config.state_age, TELEOP: config.max_age}
        self._unusable = ""  # why the last robot state was not usable
        self._measured: np.ndarray | None = None
        self._wanted: np.ndarray | None = None  # the target of teleoperation
        self._previous: np.ndarray | None = None  # the last command
        self._step = np.zeros_like(config.limits.low)  # from the one before it
        self._sent = -math.inf  # time of the last command, steady
        self._error = self._step  # steady-state: last command minus measured pose
        self._age = 0.0  # of the measured pose at its arrival
        self._strayed = False  # whether it was moved from its set-point since it was enabled
        self._alignment = Alignment(config.limits.max_step, config.rate)
        self._clutch = np.zeros_like(config.limits.low)  # added to a leader's targets
        self._offset: float | None = None  # of the stamps' clock relative to the steady one
        self._executed: float | None = None  # the last time that there was an action, steady
        self._enabled_at = -math.inf  # on the stamps' clock
        self.setpoint_resets = 0  # how often the set-point was reset to the measured pose

    @property
    def chunk(self) -> ActionChunk | None:
        """The chunk being executed."""
        return self._timeline.chunk

    def due(self, now: float) -> np.ndarray | None:
        """The row (D,) of that chunk that is due now, within the box; None if there is none."""
        row = self._timeline.due(now)
        return None if row is None else np.clip(row, self._limits.low, self._limits.high)

    @property
    def following(self) -> bool:
        """Whether there is a last command and the arm is within `following_error` of it."""
        if self.config.following_error is None or self._previous is None or self._measured is None:
            return False
        error = np.abs(self._previous - self._measured)
        return bool((error <= NOISE_MARGIN * self.config.following_error).all())

    @property
    def velocity(self) -> np.ndarray:
        """The velocity of the commands (D,), in units / s; zero at rest."""
        return self._step * self.config.rate

    @property
    def measured(self) -> np.ndarray | None:
        """The last usable measured pose (D,)."""
        return self._measured

    def measure(self, pose: np.ndarray, steady: float, age: float = 0.0) -> bool:
        """Add the pose (D,) of the robot `age` seconds ago, in the action's units; False if it is not usable.

        A pose that is too old or not finite counts as silence.
        """
        usable = self._usable(pose, age, STATE_NAME)
        if usable:
            self._measured, self._age = np.asarray(pose, float), age
            self._watchdog.feed(STATE_NAME, steady)
            if self._previous is not None and steady - self._sent < SETTLED:
                self._error = self._previous - self._measured
        return usable

    def heartbeat(self, name: str, stop: bool, steady: float) -> None:
        """Add a heartbeat of `name`, which may request a stop."""
        self._watchdog.feed(name, steady)
        self._stops[name] = stop
        if stop:
            self.supervisor.hold(self._stopped_by(name))

    def explain(self, name: str, cause: str) -> None:
        """Set the cause of the stop of `name`, which may arrive before or after the stop itself."""
        without_cause = self._stopped_by(name)
        self._causes[name] = cause
        if self.supervisor.state is State.HOLDING and self.supervisor.reason == without_cause == f"{name} says stop":
            self.supervisor.reason = self._stopped_by(name)

    def _stopped_by(self, name: str) -> str:
        return ": ".join(filter(None, [f"{name} says stop", self._causes.get(name, "")]))

    def offer(self, chunk: ActionChunk, now: float) -> bool:
        """Execute this chunk from now on; False if it was refused. One that is not finite stops the arm."""
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
        if chunk.t_obs < self._enabled_at:  # predicted for an arm that may have been moved since
            self.refused["chunk from before enabling"] += 1
            return False
        if not self._timeline.offer(chunk, now):
            self.refused["stale chunk"] += 1
            return False
        return True

    def teleoperate(self, wanted: np.ndarray, steady: float, age: float = 0.0) -> None:
        """Set the target `wanted` (D,) of teleoperation, sent `age` seconds ago.

        It takes precedence over the policy; when it ends, the arm holds.
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

    def enable(self, now: float, steady: float) -> bool:
        """Arm at the current pose, for chunks from now on; `Refused` with the reason if that is not possible.

        False, without an effect, if the arm may move already.
        """
        was_moving, was_engaged = self.supervisor.moving, self.supervisor.engaged
        self.supervisor.enable(self._obstacle(now, steady))
        if was_moving:
            return False
        self._timeline.clear()
        self._wanted, self.teleoperated = None, False
        self._executed, self._strayed = None, False
        self._offset, self._enabled_at = now - steady, now
        if not self.following:
            self._restart()
        elif not was_engaged:
            self._resume()
        return True

    def disable(self) -> None:
        """Send nothing."""
        self.supervisor.disable()

    def _restart(self) -> None:
        """Reset the set-point to the measured pose."""
        assert self._measured is not None
        self._previous = self._measured
        self._error = self._step = np.zeros_like(self._measured)
        self.setpoint_resets += 1

    def _resume(self) -> None:
        """Continue from the last command. If the arm was moved by hand meanwhile, the set-point is shifted with it, so
        that the arm does not jump back.
        """
        assert self._previous is not None
        assert self._measured is not None
        self._step = np.zeros_like(self._previous)
        moved = self._previous - self._measured - self._error
        if self._limits.max_step is not None and (np.abs(moved) > self._limits.max_step).any():
            self._previous = self._previous - moved
            self.setpoint_resets += 1

    def tick(self, now: float, steady: float) -> Command | None:
        """The command to send now; None unless enabled, and while `pose_error` forbids commands."""
        self._watch(now, steady)
        if self.supervisor.engaged:
            self._follow()
        if not self.supervisor.engaged or self._previous is None:
            return None
        if self._misplaced():
            self._step = np.zeros_like(self._previous)
            return None
        action = self._action(now, steady)
        self._check_timeout(action is not None, steady)
        self.supervisor.set_running(action is not None)
        command = self._leashed(self._limits.gate(action, self._previous, self._step))
        if command.status == "hold":
            command = Command(command.action, "hold", self.supervisor.reason or command.reason)
        self._step, self._previous = command.action - self._previous, command.action
        self._sent = steady
        return command

    def take_back(self, reason: str) -> None:
        """Hold at the command before the last one, which was not sent because the robot cannot follow it."""
        if self._previous is not None:
            self._previous, self._step = self._previous - self._step, np.zeros_like(self._step)
        self.supervisor.hold(reason)

    def _leashed(self, command: Command) -> Command:
        """The command, or a hold that keeps it within `following_error` of an arm which is stuck or slow."""
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
        """Reset the set-point of a held arm that was moved, so that it does not jump back when its drives are on again.
        An arm that leaves the new set-point too falls or is led by hand: commands end.
        """
        if self._misplaced():
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

    def _misplaced(self) -> bool:
        """Whether the robot would jump to a command because of `pose_error`; in a dry run it does not move."""
        return bool(self.pose_error) and self.config.following_error is not None

    def _lead(self, channel: int, command: np.ndarray) -> str:
        """A message on the distance of a channel from a command (D,)."""
        assert self._measured is not None
        assert self.config.following_error is not None
        error, most = abs(self._measured - command)[channel], self.config.following_error[channel]
        old = f", by a state {self._age:.2f} s old" if self._age > 1.0 / self.config.rate else ""
        return f"{self._name(channel)} is {error:.3g} away from its command, more than {most:.3g}{old}"

    def _name(self, channel: int) -> str:
        return self.config.names[channel] if self.config.names else str(channel)

    def _check_timeout(self, active: bool, steady: float) -> None:
        """Hold an arm that has had no action for long: nobody expects it to move again by itself."""
        if active:
            self._executed = steady
        elif self._executed is not None and steady - self._executed > self.config.chunk_timeout:
            self.supervisor.hold(f"no action for {steady - self._executed:.1f} s")

    def _action(self, now: float, steady: float) -> np.ndarray | None:
        """The target of this tick; None to hold."""
        released = self.teleoperated
        silent = self._teleop_watchdog.check(steady)  # in every tick, or its silence would count as a stall
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
        left = max(1, math.ceil((end - now) * self.config.rate - TICK_ROUNDING))
        action: np.ndarray = row if left == 1 else self._previous + (row - self._previous) / left
        return action

    def _engaged_clutch(self, wanted: np.ndarray) -> np.ndarray:
        """The steady-state error (D,) to add to a leader's targets that start at the measured pose of an arm at rest.

        Without it the arm would sink by this error at every start.
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
            return f"no messages from {', '.join(silent)}{refused}{self._why_silent(silent)}"
        stops = [self._stopped_by(name) for name, stop in self._stops.items() if stop]
        return "; ".join(stops) or self.pose_error or ("" if self.following else self._outside())

    def _why_silent(self, names: Iterable[str]) -> str:
        return f": {self._unusable}" if self._unusable and STATE_NAME in names else ""

    def _outside(self) -> str:
        """Which channels are further outside the box than one command at the speed limit can bring back; "" if none."""
        assert self._measured is not None  # without a state, enabling is refused before this
        low, high = self._limits.low, self._limits.high
        step = 0.0 if self._limits.max_step is None else self._limits.max_step
        far = np.flatnonzero((self._measured < low - step) | (self._measured > high + step))
        found = [
            f"{self._name(int(k))}: expected {low[k]:g} to {high[k]:g}, found {self._measured[k]:.4g}" for k in far
        ]
        return f"the measured pose is outside the box ({'; '.join(found)})" if found else ""
