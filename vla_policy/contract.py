"""A robot's contract: which topics carry what a policy sees and does, in which units and within which limits.

One YAML file a robot, in `config/`. It provides an `Interface`; a checkpoint that needs another one is refused. The
topics, rates and limits beside it belong to the robot and may differ from those the data were recorded with.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from vla_policy.interfaces import STATE, Feature, InputError, Interface
from vla_policy.kinematics import Kinematics
from vla_policy.pointing import Pointing

IMAGE = "sensor_msgs/msg/Image"
JOINT_STATE = "sensor_msgs/msg/JointState"
POSE = "geometry_msgs/msg/PoseStamped"
TWIST = "geometry_msgs/msg/TwistStamped"
TRAJECTORY = "trajectory_msgs/msg/JointTrajectory"
ARRAY = "std_msgs/msg/Float64MultiArray"
STATE_TYPES = (JOINT_STATE, POSE)
COMMAND_TYPES = (POSE, TRAJECTORY, ARRAY, TWIST)
SIMULATED = "pusht_sim"  # the robot_type of an arm that nobody can be hurt by
LEAST_RATE = 20.0  # Hz of commands; the gate looks for silence as often
LONGEST_TIMEOUT = 2.0  # seconds
POSE_FIELDS = ("x", "y", "z", "qx", "qy", "qz", "qw")


@dataclass(frozen=True)
class Stream:
    """One observation: its topic, its message type and what of the message is the feature.

    `fields` picks the channels of a vector: joint names of a JointState, or some of x, y, z, qx, qy, qz, qw. With
    `kinematics` these are the tip's where the joints are.
    """

    key: str
    topic: str
    type: str
    feature: Feature
    fields: tuple[str, ...] = ()
    kinematics: Kinematics | None = None


@dataclass(frozen=True)
class CommandSpec:
    """Where commands go: absolute targets, one channel a name, in the units of the interface's action.

    `fields` says which field of the message each channel is (see `Stream`; joint names for joint commands; x, y, z for
    the linear velocities of a twist). `constants` fills the others of a pose. With `kinematics` the fields are of the
    tip's pose, whatever the message. `low`, `high`, `speed` and `acceleration` (D,) are the limits, in units,
    units / s and units / s^2 (None: no limit); `rate` in Hz is how often commands are sent. The arm holds when it is
    further than `following_error` (D,) units from its command; by default half a second at the speed limit.
    """

    topic: str
    type: str
    frame_id: str
    fields: tuple[str, ...]
    rate: float
    low: np.ndarray
    high: np.ndarray
    speed: np.ndarray
    acceleration: np.ndarray | None
    following_error: np.ndarray
    constants: Mapping[str, float]
    kinematics: Kinematics | None = None

    @property
    def inverse(self) -> Kinematics | None:
        """What makes the tip's targets those of the joints; None where the message says what the action does."""
        return self.kinematics if self.type in (TRAJECTORY, ARRAY) else None


@dataclass(frozen=True)
class Timeouts:
    """How long who may be silent before the arm holds, and how far time stamps may be off; seconds."""

    policy: float = 0.13
    """The policy's heartbeat, 25 Hz."""
    monitor: float = 0.13
    """The surprise monitor's heartbeat, 25 Hz."""
    camera: float = 0.18
    """Any observation of the policy: the camera's period and the patience for a frame that is late."""
    state: float = 0.15
    """The robot's state, as the gate hears it."""
    teleop: float = 0.15
    """Commands of teleoperation."""
    chunk: float = 1.0
    """Between the end of what was played and the next chunk."""
    emergency_stop: float | None = None
    """Where there is one that says false as long as nobody presses it."""
    clock_jump: float = 0.1
    slop: float = 0.02
    """Between observations of one moment, and into the future."""
    max_age: float = 0.5
    """Of what is observed, of the robot's state and of teleoperation when they arrive."""


@dataclass(frozen=True)
class Contract:
    """What a robot provides; `name` is the file's. `task` is the instruction until another one is given.

    `pointing` says what is where in a camera's picture, for those who lead the arm with a mouse. A real arm follows a
    policy whose units nobody declared only if it `accepts_unknown_units` ("units_unknown: accept").
    """

    name: str
    robot_type: str
    task: str
    interface: Interface
    streams: tuple[Stream, ...]
    command: CommandSpec
    timeouts: Timeouts
    pointing: Pointing | None = None
    accepts_unknown_units: bool = False

    def stream(self, key: str) -> Stream:
        """The stream of an observation key; `InputError` if there is none."""
        for stream in self.streams:
            if stream.key == key:
                return stream
        raise InputError(f"{self.name}: expected an observation {key!r}, found {[s.key for s in self.streams]}")

    def require(self, needed: Interface, needs: str) -> None:
        """`InputError` naming every difference unless this robot can serve `needs`, e.g. a checkpoint."""
        needed.require(self.interface, needs, f"robot contract {self.name}")

    def require_simulated(self) -> None:
        """`InputError` unless this is the simulated arm: what moves without being asked must not reach a real one."""
        if self.robot_type != SIMULATED:
            expected = f"robot_type: expected the simulated {SIMULATED!r}, found {self.robot_type!r}"
            raise InputError(f"robot contract {self.name}: {expected}")


def find_config(name: str | Path, suffix: str = ".yaml", folder: str = "config") -> Path:
    """A file by its path, or by its name in the package's `folder`, where that is installed."""
    prefixes = [sys.prefix, *filter(None, os.environ.get("AMENT_PREFIX_PATH", "").split(":"))]
    roots = [Path(__file__).parents[1], *(Path(prefix) / "share" / "vla_policy" for prefix in prefixes)]
    for path in (Path(name), *(root / folder / f"{name}{suffix}" for root in roots)):
        if path.is_file():
            return path
    known = sorted(path.stem for path in (roots[0] / folder).glob(f"*{suffix}"))
    raise InputError(f"{folder}: expected a {suffix} file or one of {known}, found {str(name)!r}")


def load_contract(name: str | Path) -> Contract:
    """Read a contract, a path or a name in `config/`; `InputError` names the file and the key that is wrong."""
    path = find_config(name)
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise InputError(f"{path}: expected YAML, found {str(error).splitlines()[0]}") from None
    try:
        return _contract(path, data)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _contract(path: Path, data: Any) -> Contract:
    needed = {"robot_type", "task", "fps", "frame", "observations", "action"}
    _keys(data, "contract", needed, {"timeouts", "kinematics", "pointing", "units_unknown"})
    _keys(data["action"], "action", _ACTION_NEEDED, _ACTION_OPTIONAL)
    if not isinstance(data["observations"], Mapping):
        raise InputError(f"observations: expected streams by key, found {data['observations']!r}")
    action = data["action"]
    kinematics = _kinematics(path.parent, data["kinematics"], action["frame_id"]) if "kinematics" in data else None
    streams = tuple(_stream(key, value, kinematics) for key, value in data["observations"].items())
    names = tuple(action["names"])
    feature = Feature("float32", (len(names),), names, tuple(action["units"]))
    fps = _positive(data["fps"], "fps")
    interface = Interface({stream.key: stream.feature for stream in streams}, feature, fps, data["frame"])
    state = interface.observations.get(STATE)
    if state is None or (state.names, state.units) != (feature.names, feature.units):
        # Holding means to stay at the measured pose, so that it has to be known in the action's own channels.
        found = None if state is None else list(zip(state.names, state.units, strict=True))
        raise InputError(
            f"{STATE}: expected the action's channels {list(zip(names, feature.units, strict=True))}, found {found}"
        )
    command = _command(action, kinematics)
    _same_fields(streams, command)
    pointing = _pointing(data["pointing"], interface) if "pointing" in data else None
    timeouts = _timeouts(data.get("timeouts"))
    unknown = data.get("units_unknown", "refuse")
    if unknown not in ("refuse", "accept"):
        raise InputError(f"units_unknown: expected refuse or accept, found {unknown!r}")
    accepts = unknown == "accept"
    task = data["task"]
    return Contract(path.stem, data["robot_type"], task, interface, streams, command, timeouts, pointing, accepts)


_ACTION_NEEDED = {"topic", "type", "frame_id", "names", "units", "fields", "rate", "low", "high", "speed"}
_ACTION_OPTIONAL = {"acceleration", "following_error", "constants"}


def _kinematics(folder: Path, data: Any, base: str) -> Kinematics:
    _keys(data, "kinematics", {"urdf", "tip", "joints"}, {"speed"})
    beside = folder / data["urdf"]
    urdf = beside if beside.is_file() else find_config(data["urdf"], ".urdf", "urdf")
    return Kinematics(urdf, base, data["tip"], data["joints"], data.get("speed"))


def _stream(key: str, data: Any, kinematics: Kinematics | None) -> Stream:
    _keys(data, key, {"topic", "type"}, {"shape", "names", "units", "fields"})
    kind = data["type"]
    if kind == IMAGE:
        _keys(data, key, {"topic", "type", "shape"}, set())
        return Stream(key, data["topic"], kind, Feature("image", tuple(data["shape"])))
    if kind not in STATE_TYPES:
        raise InputError(f"{key}: type: expected one of {[IMAGE, *STATE_TYPES]}, found {kind!r}")
    _keys(data, key, {"topic", "type", "names", "units", "fields"}, set())
    names = tuple(data["names"])
    tip = kinematics if key == STATE else None
    if tip is not None and kind != JOINT_STATE:
        raise InputError(f"{key}: type: expected {JOINT_STATE} for the kinematics, found {kind!r}")
    chosen = _fields(data["fields"], kind if tip is None else POSE, len(names), key)
    feature = Feature("float32", (len(names),), names, tuple(data["units"]))
    return Stream(key, data["topic"], kind, feature, chosen, tip)


def _command(data: Mapping[str, Any], kinematics: Kinematics | None) -> CommandSpec:
    kind, size = data["type"], len(data["names"])
    if kind not in COMMAND_TYPES:
        raise InputError(f"action: type: expected one of {list(COMMAND_TYPES)}, found {kind!r}")
    constants = data.get("constants", {})
    tip = kinematics is not None and kind in (TRAJECTORY, ARRAY)
    posed = tip or kind == POSE
    if (constants and not posed) or not set(constants) <= set(POSE_FIELDS):
        raise InputError(f"action: constants: expected some of {list(POSE_FIELDS)} of a pose, found {constants}")
    chosen = _fields(data["fields"], POSE if tip else kind, size, "action")
    missing = [field for field in POSE_FIELDS if field not in {*constants, *chosen}]
    if posed and missing:
        raise InputError(f"action: constants: expected what fields leave of a pose, found none for {missing}")
    if kind == ARRAY and not tip and list(data["fields"]) != list(data["names"]):
        raise InputError(
            f"action: fields: expected the names {list(data['names'])}, in whose order a Float64MultiArray has its "
            f"numbers, found {list(data['fields'])}"
        )
    low, high, speed = (_vector(data[key], size, key) for key in ("low", "high", "speed"))
    acceleration = _vector(data["acceleration"], size, "acceleration") if "acceleration" in data else None
    error = _vector(data["following_error"], size, "following_error") if "following_error" in data else speed / 2
    positive = [speed, error] + ([] if acceleration is None else [acceleration])
    if not (low < high).all() or not all((limit > 0).all() for limit in positive):
        raise InputError(
            "action: expected low < high, speed > 0, acceleration > 0 and following_error > 0 in every channel"
        )
    return CommandSpec(
        topic=data["topic"],
        type=kind,
        frame_id=data["frame_id"],
        fields=chosen,
        rate=_within(data["rate"], "action: rate", LEAST_RATE, float("inf")),
        low=low,
        high=high,
        speed=speed,
        acceleration=acceleration,
        following_error=error,
        constants={field: float(value) for field, value in constants.items()},
        kinematics=kinematics,
    )


def _pointing(data: Any, interface: Interface) -> Pointing:
    _keys(data, "pointing", {"camera", "channels", "pixels", "places"}, set())
    if data["camera"] not in interface.cameras:
        raise InputError(f"pointing: camera: expected one of {interface.cameras}, found {data['camera']!r}")
    channels = tuple(map(str, data["channels"]))
    if len(set(channels)) != 2 or not set(channels) <= set(interface.action.names):
        raise InputError(f"pointing: channels: expected two of {list(interface.action.names)}, found {list(channels)}")
    pixels, places = (_points(data[key], f"pointing: {key}") for key in ("pixels", "places"))
    return Pointing(data["camera"], (channels[0], channels[1]), pixels, places)


def _points(value: Any, where: str) -> np.ndarray:
    try:
        return np.asarray(value, float)
    except (TypeError, ValueError):
        raise InputError(f"{where}: expected pairs of numbers, found {value!r}") from None


def _same_fields(streams: tuple[Stream, ...], command: CommandSpec) -> None:
    """`InputError` unless what is measured is what is commanded, channel by channel: to hold depends on it."""
    state = next(stream for stream in streams if stream.key == STATE)
    posed = state.type == POSE or state.kinematics is not None
    if posed == (command.type in (POSE, TWIST) or command.inverse is not None) and state.fields != command.fields:
        raise InputError(
            f"action: fields: expected those of {STATE} {list(state.fields)}, found {list(command.fields)}"
        )


def _timeouts(data: Any) -> Timeouts:
    data = data or {}
    _keys(data, "timeouts", set(), {f.name for f in fields(Timeouts)})
    return Timeouts(**{key: _within(value, f"timeouts: {key}", 0.0, LONGEST_TIMEOUT) for key, value in data.items()})


def _fields(value: Any, kind: str, size: int, where: str) -> tuple[str, ...]:
    chosen = tuple(map(str, value))
    if len(chosen) != size or len(set(chosen)) != size:
        raise InputError(f"{where}: fields: expected {size} different ones, one a name, found {list(chosen)}")
    known = {POSE: POSE_FIELDS, TWIST: POSE_FIELDS[:3]}.get(kind, chosen)
    if not set(chosen) <= set(known):
        raise InputError(f"{where}: fields: expected some of {list(known)}, found {list(chosen)}")
    return chosen


def _vector(value: Any, size: int, where: str) -> np.ndarray:
    try:
        array = np.asarray(value, float)
    except (TypeError, ValueError):
        raise InputError(f"action: {where}: expected {size} numbers, found {value!r}") from None
    if array.shape != (size,) or not np.isfinite(array).all():
        raise InputError(f"action: {where}: expected {size} finite numbers, found {value!r}")
    return array


def _positive(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise InputError(f"{where}: expected a number above 0, found {value!r}")
    return float(value)


def _within(value: Any, where: str, least: float, most: float) -> float:
    if not least <= _positive(value, where) <= most:
        raise InputError(f"{where}: expected {least:g} to {most:g}, found {value!r}")
    return float(value)


def _keys(data: Any, where: str, needed: set[str], optional: set[str]) -> None:
    if not isinstance(data, Mapping):
        raise InputError(f"{where}: expected the keys {sorted(needed)}, found {data!r}")
    missing, unknown = sorted(needed - set(data)), sorted(set(data) - needed - optional)
    if missing or unknown:
        found = f"found {unknown}" if unknown else f"{missing} missing"
        raise InputError(f"{where}: expected the keys {sorted(needed | optional)}, {found}")
