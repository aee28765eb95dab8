"""Decoding of ROS messages to arrays, by attribute: live messages and those of a bag are read alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from vla_policy.interfaces import STATE, ActionChunk, DataError, Feature
from vla_policy.robot.contract import (
    ARRAY,
    IMAGE_TYPES,
    JOINT_STATE,
    POSE,
    POSE_FIELDS,
    TRAJECTORY,
    CommandSpec,
    Output,
    Source,
    Stream,
)
from vla_policy.robot.kinematics import Kinematics
from vla_policy.robot.pixels import read_image


def seconds(stamp: Any) -> float:
    """A `builtin_interfaces/Time` or `Duration` in seconds."""
    return float(stamp.sec + 1e-9 * stamp.nanosec)


class Reader:
    """Decodes a robot's messages, live or from bags, to samples of features.

    `streams` are the features, `topics` the message types of the topics that they need. Where several sources share a
    topic, as with two publishers of /joint_states, each takes the messages that have its joints.
    """

    def __init__(self, streams: Iterable[Stream]) -> None:
        self._joins = [_Join(stream) for stream in streams]
        self.topics = {source.topic: source.type for join in self._joins for source in join.stream.sources}

    def read(self, topic: str, message: Any, stamp: float) -> list[Sample]:
        """The samples that a message of one of `topics`, stamped `stamp` seconds, completes.

        A vector of several sources becomes known at the newest stamp of its parts, once all are there and no further
        than the stream's `slop` apart, and is revised by parts that come later with no newer stamp. `DataError` names
        the topic and what does not fit.
        """
        here = [
            (join, k)
            for join in self._joins
            for k, source in enumerate(join.stream.sources)
            if source.topic.lstrip("/") == topic.lstrip("/")
        ]
        sources = [join.stream.sources[k] for join, k in here]
        if len({source.joints for source in sources}) > 1:  # several publishers on one topic
            here = [(join, k) for join, k in here if is_from(message, topic, join.stream.sources[k])]
            if not here:
                expected = " or ".join(str(list(source.joints)) for source in sources)
                raise DataError(f"{topic}: expected the joints {expected}, found {sorted(message.name)}")
        samples: dict[str, Sample] = {}
        for join, k in here:
            sample = join.put(k, message, stamp)
            if sample is not None:  # of several parts in one message the last completes it
                before = samples.get(sample.key, sample)
                samples[sample.key] = sample._replace(revises=before.revises)
        return list(samples.values())


def is_from(message: Any, topic: str, source: Source) -> bool:
    """Whether a message has all joints of a source; other publishers of the topic may have others."""
    mine = source.topic.lstrip("/") == topic.lstrip("/")
    return mine and (not source.joints or set(message.name) >= set(source.joints))


class Sample(NamedTuple):
    """A feature's value at a time stamp in seconds: (H, W, 3) uint8 RGB or (D,) float32.

    `revises`: it replaces the sample before it, which had the same stamp.
    """

    key: str
    stamp: float
    value: np.ndarray
    revises: bool = False


class _Join:
    """The newest part of each source of a stream."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self._stamps = np.full(len(stream.sources), -np.inf)
        self._known = -np.inf  # stamp of the last complete sample
        self._value = np.zeros(stream.feature.shape, np.float32)

    def put(self, k: int, message: Any, stamp: float) -> Sample | None:
        stream, source = self.stream, self.stream.sources[k]
        value = _value(message, source, stream.feature)
        if len(stream.sources) == 1:
            return Sample(stream.key, stamp, value)
        self._stamps[k] = stamp
        self._value[list(source.channels)] = value
        newest, oldest = self._stamps.max(), self._stamps.min()
        if newest - oldest > stream.slop:
            return None
        revises, self._known = bool(newest == self._known), newest
        return Sample(stream.key, float(newest), self._value.copy(), revises)


def decode(message: Any, stream: Stream) -> np.ndarray:
    """The feature of a stream with one source: an image (H, W, 3) uint8 RGB or a vector (D,) float32.

    `DataError` names the topic and what does not fit: encoding, size, a joint the robot does not have.
    """
    return _value(message, stream.source, stream.feature)


def _value(message: Any, source: Source, feature: Feature) -> np.ndarray:
    """The image, or the source's part (n,) of a vector."""
    if source.type in IMAGE_TYPES:
        return read_image(message, source, *feature.shape[:2])
    if source.kinematics is not None:
        return tip(joints(message, source.kinematics, source.topic), source.fields, source.kinematics)
    if source.type == JOINT_STATE:
        values = _by_name(message.name, message.position, source.fields, source.topic)
    else:
        require_frame(message, source, source.frame_id)
        values = _pose_fields(message, source.fields)
    return source.conversion.inward(values).astype(np.float32)


def joints(message: Any, kinematics: Kinematics, topic: str) -> np.ndarray:
    """The joints (n,) of a JointState, in the kinematics' order; `DataError` if it lacks one."""
    return _by_name(message.name, message.position, kinematics.joints, topic)


def tip(joints: np.ndarray, wanted: tuple[str, ...], kinematics: Kinematics) -> np.ndarray:
    """Fields `wanted` of the tip's pose at these joints (n,)."""
    pose = dict(zip(POSE_FIELDS, kinematics.pose(joints), strict=True))
    return np.array([pose[name] for name in wanted], np.float32)


def require_frame(message: Any, source: Source, frame_id: str) -> None:
    """`DataError` if a pose is of another frame than expected, where one is."""
    if source.type == POSE and frame_id and message.header.frame_id != frame_id:
        raise DataError(f"{source.topic}: frame_id: expected {frame_id!r}, found {message.header.frame_id!r}")


# An initial deviation is removed by the first command in one step, at whatever speed the arm's controller allows.
CONSTANT_TOLERANCE = {"x": 0.005, "y": 0.005, "z": 0.005}  # metres
TURN_TOLERANCE = 0.03  # of a quaternion's components, about 3 degrees
SLACK = 4.0  # factor on the tolerances while the arm follows commands (sag, motion)


def away_from_constants(message: Any, spec: Output, following: bool = False) -> str:
    """The constants of commanded poses from which the measured pose deviates, in words; "" if none.

    `following`: the arm already follows commands with these constants, so that the tolerances are wider.
    """
    wanted = np.array(list(spec.constants.values()))
    if spec.kinematics is not None:
        found = tip(joints(message, spec.kinematics, STATE), tuple(spec.constants), spec.kinematics).astype(float)
    elif spec.type == POSE and hasattr(message, "pose"):
        found = _pose_fields(message, tuple(spec.constants)).astype(float)
    else:
        return ""
    turning = np.array([name.startswith("q") for name in spec.constants], bool)
    if turning.any() and np.dot(found[turning], wanted[turning]) < 0:
        found[turning] *= -1  # q and -q are the same orientation
    most = np.array([CONSTANT_TOLERANCE.get(name, TURN_TOLERANCE) for name in spec.constants])
    near = np.abs(found - wanted) <= most * (SLACK if following else 1.0)  # false for NaN
    names = np.array(list(spec.constants))[~near]
    errors = [f"{n}: expected {spec.constants[n]:g}, found {found[list(spec.constants).index(n)]:.3g}" for n in names]
    return f"the measured pose is away from the commands' constants ({'; '.join(errors)})" if errors else ""


class CommandReader:
    """Decodes a robot's command messages to actions; commands on several topics persist until the next message."""

    def __init__(self, command: CommandSpec) -> None:
        self._outputs = {output.topic.lstrip("/"): output for output in command.outputs}
        self.topics = {output.topic: output.type for output in command.outputs}
        self._action = np.full(command.low.shape, np.nan, np.float32)

    def read(self, topic: str, message: Any) -> np.ndarray | None:
        """The action (D,) float32 from this message on; None until every topic has had a message."""
        output = self._outputs[topic.lstrip("/")]
        self._action[list(output.channels)] = decode_command(message, output)
        return None if np.isnan(self._action).any() else self._action.copy()


def decode_command(message: Any, spec: Output) -> np.ndarray:
    """An output's channels (n,) float32 of the action that its message is; `DataError` if it lacks one."""
    if spec.type == POSE:
        return spec.conversion.inward(_pose_fields(message, spec.fields)).astype(np.float32)
    if spec.type == ARRAY:
        values = np.asarray(message.data, np.float32)
        if values.shape != (len(spec.joints),):
            raise DataError(f"{spec.topic}: expected {len(spec.joints)} numbers, found {len(values)}")
    elif spec.type == TRAJECTORY and len(message.points):
        values = _by_name(message.joint_names, message.points[-1].positions, spec.joints, spec.topic)
    else:
        raise DataError(f"{spec.topic}: expected absolute targets, found a {spec.type} without any")
    if spec.inverse is not None:
        return tip(values, spec.fields, spec.inverse)
    return spec.conversion.inward(values).astype(np.float32)


def _by_name(names: Any, values: Any, wanted: tuple[str, ...], topic: str) -> np.ndarray:
    found = dict(zip(names, values, strict=False))
    missing = [name for name in wanted if name not in found]
    if missing:
        raise DataError(f"{topic}: expected the joints {missing}, found {sorted(found)}")
    return np.array([found[name] for name in wanted], np.float32)


def _pose_fields(message: Any, wanted: tuple[str, ...]) -> np.ndarray:
    p, q = message.pose.position, message.pose.orientation
    values = {"x": p.x, "y": p.y, "z": p.z, "qx": q.x, "qy": q.y, "qz": q.z, "qw": q.w}
    return np.array([values[name] for name in wanted], np.float32)


def chunk_of(message: Any, names: Sequence[str]) -> ActionChunk:
    """The chunk; `DataError` for other channels, rows of another length and uneven times."""
    if list(message.joint_names) != list(names):
        raise DataError(f"action chunk: expected the channels {list(names)}, found {list(message.joint_names)}")
    if len(message.points) < 2 or any(len(point.positions) != len(names) for point in message.points):
        raise DataError(f"action chunk: expected 2 rows or more of {len(names)} numbers, found others")
    times = np.array([seconds(point.time_from_start) for point in message.points])
    dt = times[1] - times[0]
    if times[0] != 0 or not np.allclose(np.diff(times), dt, rtol=0, atol=1e-6):
        raise DataError(f"action chunk: expected rows at even times from 0 on, found {times.round(4).tolist()}")
    rows = np.array([point.positions for point in message.points])
    return ActionChunk(rows, seconds(message.header.stamp), float(dt))
