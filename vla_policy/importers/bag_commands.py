"""The actions of a bag: commanded set-points at the times of frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from vla_policy.interfaces import DataError, InputError
from vla_policy.robot.bags import Recorded
from vla_policy.robot.contract import JOINT_STATE, TRAJECTORY, Contract, Output
from vla_policy.robot.messages import decode_command, seconds

EXECUTED = "command/executed"


class Command(NamedTuple):
    """Targets (n, D) and the time after the command at which each is due, seconds (n,)."""

    due: np.ndarray
    targets: np.ndarray

    def at(self, elapsed: float) -> np.ndarray:
        """The set-point (D,) `elapsed` seconds after the command, by linear interpolation between targets."""
        return np.array([np.interp(elapsed, self.due, channel) for channel in self.targets.T], np.float32)


class CommandSource(NamedTuple):
    """A topic with commands for some channels of the action; `output` is None for the gate's executed commands."""

    topic: str
    type: str
    channels: tuple[int, ...]
    output: Output | None

    def read(self, recorded: Recorded, names: Sequence[str]) -> Command:
        """Decode a message; `names` are the action's channels. `InputError` if it lacks a channel's target."""
        if self.output is None:
            return _executed(recorded.message, list(names))
        if self.output.type == TRAJECTORY:
            return _trajectory(recorded.message, self.output)
        return Command(np.zeros(1), decode_command(recorded.message, self.output)[None])


def command_sources(topics: Mapping[str, str], contract: Contract) -> list[CommandSource]:
    """The command topics of a bag: the gate's executed commands or, in bags of other software, every output.

    `InputError` if there are none.
    """
    if topics.get(EXECUTED) == JOINT_STATE:
        return [CommandSource(EXECUTED, JOINT_STATE, tuple(range(len(contract.interface.action.names))), None)]
    sources = [CommandSource(x.topic.lstrip("/"), x.type, x.channels, x) for x in contract.command.outputs]
    for source in sources:
        if topics.get(source.topic) != source.type:
            raise InputError(
                f"expected commands on {EXECUTED} or of type {source.type} on {source.topic}, "
                f"found the topics {dict(sorted(topics.items()))}"
            )
    return sources


def set_points(
    starts: np.ndarray, commands: Sequence[Command], times: np.ndarray, states: np.ndarray, fps: float
) -> np.ndarray:
    """The set-points (T, D) at the end of each frame, from commands with sorted start times `starts` (n,), seconds.

    `times` (T,) and `states` (T, D) are the frames': before the first command the set-point is the measured state.
    """
    ends = times + 1.0 / fps - 1e-6
    paths = _paths(starts, commands, times, states, fps)
    rows = np.searchsorted(starts, ends) - 1
    points = [paths[row].at(end - starts[row]) if row >= 0 else None for row, end in zip(rows, ends, strict=True)]
    return np.stack([state if point is None else point for point, state in zip(points, states, strict=True)])


def _paths(
    starts: np.ndarray, commands: Sequence[Command], times: np.ndarray, states: np.ndarray, fps: float
) -> list[Command]:
    """Prepend the current set-point to commands whose first target is not due within a frame."""
    paths: list[Command] = []
    for start, command in zip(starts, commands, strict=True):
        if not len(command.due) or command.due[0] > 1.0 / fps:
            measured = states[min(int(np.searchsorted(times, start)), len(times) - 1)]
            here = paths[-1].at(start - starts[len(paths) - 1]) if paths else measured
            command = Command(np.r_[0.0, command.due], np.vstack([here, command.targets]))
        paths.append(command)
    return paths


def _executed(message: Any, names: list[str]) -> Command:
    if list(message.name) != names:
        raise DataError(f"{EXECUTED}: expected the channels {names}, found {list(message.name)}")
    if len(message.position) != len(names):
        raise DataError(f"{EXECUTED}: expected {len(names)} positions, found {len(message.position)}")
    return Command(np.zeros(1), np.asarray(message.position, np.float32)[None])


def _trajectory(message: Any, output: Output) -> Command:
    """All points of a JointTrajectory; an empty one stops the robot at its set-point."""
    due = np.array([seconds(point.time_from_start) for point in message.points])
    if (np.diff(due) <= 0).any() or (due < 0).any():
        raise DataError(f"{output.topic}: expected time_from_start to increase from 0 on, found {due.tolist()}")
    single = [SimpleNamespace(joint_names=message.joint_names, points=[point]) for point in message.points]
    targets = [decode_command(point, output) for point in single]
    return Command(due, np.array(targets, np.float32).reshape(len(due), len(output.channels)))
