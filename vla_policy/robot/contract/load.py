"""Loads contracts; `InputError` names the file and the invalid key."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from vla_policy.interfaces import STATE, Feature, InputError, Interface
from vla_policy.robot.contract import spec, values
from vla_policy.robot.contract.parts import PART, Part, parts, vector
from vla_policy.robot.contract.spec import POSE_FIELDS, CommandSpec, Contract, Output, Source, Stream, Timeouts
from vla_policy.robot.kinematics import Kinematics
from vla_policy.robot.pointing import Pointing

LEAST_RATE = 20.0  # Hz of commands; the gate checks timeouts at this rate
MOST_RATE = 1000.0  # Hz of commands and frames
LONGEST_TIMEOUT = 2.0  # seconds
LARGEST_FILE = 1 << 16  # bytes
LARGEST_SIDE = 8192  # pixels
LONGEST_MESSAGE = 2000  # characters of an error message
UNIT_TOLERANCE = 0.05  # of a quaternion's norm
_KEY = re.compile(r"observation(\.[A-Za-z0-9_-]+)+")
_BROKEN_YAML = (yaml.YAMLError, ValueError, KeyError, AttributeError, RecursionError)  # the latter of odd tags


def find_config(name: str | Path, suffix: str = ".yaml", folder: str = "config") -> Path:
    """A file by its path, or by its name in the package's installed `folder`."""
    prefixes = [sys.prefix, *filter(None, os.environ.get("AMENT_PREFIX_PATH", "").split(":"))]
    roots = [Path(__file__).parents[3], *(Path(prefix) / "share" / "vla_policy" for prefix in prefixes)]
    for path in (Path(name), *(root / folder / f"{name}{suffix}" for root in roots)):
        if _is_file(path):
            return path
    known = sorted({path.stem for root in roots for path in (root / folder).glob(f"*{suffix}")})
    raise InputError(f"{folder}: expected a {suffix} file or one of {known}, found {values.shown(str(name))}")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long, or with a zero byte
        return False


def load_contract(name: str | Path) -> Contract:
    """Load a contract by path or by name in `config/`."""
    path = find_config(name)
    try:
        return _contract(path, _read(path))
    except InputError as error:
        raise InputError(f"{path}: {str(error)[:LONGEST_MESSAGE]}") from None


class _Loader(yaml.SafeLoader):
    """Rejects duplicate keys, of which YAML would take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"the key {twice[0]!r} twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _read(path: Path) -> Any:
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise InputError(f"expected {LARGEST_FILE} bytes at most, found {path.stat().st_size}")
        return yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"expected a file that can be read, found {error.strerror}") from None
    except _BROKEN_YAML as error:
        raise InputError(f"expected YAML, found {' '.join(str(error).split())[:200]}") from None


def _contract(path: Path, data: Any) -> Contract:
    needed = {"robot_type", "task", "fps", "frame", "observations", "action"}
    values.mapping(data, "contract", needed, {"timeouts", "kinematics", "pointing", "units_unknown"})
    timeouts = _timeouts(data.get("timeouts"))
    action = values.mapping(data["action"], "action", _ACTION_NEEDED, _ACTION_OPTIONAL | PART | {"constants"})
    feature, frame_id = vector(action, "action"), values.text(action["frame_id"], "action: frame_id", empty=True)
    kinematics = _kinematics(path.parent, data["kinematics"], frame_id) if "kinematics" in data else None
    observations = values.by_name(data["observations"], "observations")
    streams = tuple(_stream(key, value, kinematics, frame_id, timeouts) for key, value in observations.items())
    fps, frame = values.within(data["fps"], "fps", 0.0, MOST_RATE), values.text(data["frame"], "frame", empty=True)
    interface = Interface({stream.key: stream.feature for stream in streams}, feature, fps, frame)
    _require_state(interface)
    command = _command(action, feature, frame_id, kinematics)
    _require_same_fields(streams, command, feature.names)
    _require_topics(streams, command)
    pointing = _pointing(data["pointing"], interface) if "pointing" in data else None
    robot_type, task = values.text(data["robot_type"], "robot_type"), values.text(data["task"], "task", empty=True)
    unknown = values.choice(data.get("units_unknown", "refuse"), "units_unknown", ["refuse", "accept"])
    accepts = unknown == "accept"
    return Contract(path.stem, robot_type, task, interface, streams, command, timeouts, pointing, accepts)


_ACTION_NEEDED = {"frame_id", "names", "units", "rate", "low", "high", "speed"}
_ACTION_OPTIONAL = {"outputs", "acceleration", "following_error"}


def _kinematics(folder: Path, data: Any, base: str) -> Kinematics:
    values.mapping(data, "kinematics", {"urdf", "tip", "joints"}, {"speed"})
    name = values.text(data["urdf"], "kinematics: urdf")
    beside = folder / name
    urdf = beside if _is_file(beside) else find_config(name, ".urdf", "urdf")
    joints = values.texts(data["joints"], "kinematics: joints")
    speed = list(values.numbers(data["speed"], "kinematics: speed")) if "speed" in data else None
    return Kinematics(urdf, base, values.text(data["tip"], "kinematics: tip"), joints, speed)


def _stream(key: str, data: Any, kinematics: Kinematics | None, frame_id: str, timeouts: Timeouts) -> Stream:
    if not _KEY.fullmatch(key):
        raise InputError(f"observations: expected keys such as {STATE} or observation.images.front, found {key!r}")
    values.mapping(data, key, set(), PART | {"shape", "size", "crop", "names", "units", "sources", "slop"})
    if data.get("type") in spec.IMAGE_TYPES:
        return _camera(key, data)
    values.mapping(data, key, {"names", "units"}, PART | {"sources", "slop"})
    feature = vector(data, key)
    if key != STATE:
        kinematics, frame_id = None, ""
    sources = tuple(_source(part, kinematics, frame_id) for part in parts(data, "sources", key, {"frame_id"}))
    slop = values.within(data.get("slop", timeouts.slop), f"{key}: slop", 0.0, LONGEST_TIMEOUT)
    return Stream(key, feature, sources, slop)


def _source(part: Part, kinematics: Kinematics | None, frame_id: str) -> Source:
    kind = part.type(spec.STATE_TYPES if not part.alone else (*spec.IMAGE_TYPES, *spec.STATE_TYPES))
    tip = part.kinematics(kinematics) if part.alone or kind == spec.JOINT_STATE else None
    if tip is not None and kind != spec.JOINT_STATE:
        raise InputError(f"{part.where}: type: expected {spec.JOINT_STATE} for the kinematics, found {kind!r}")
    return Source(
        topic=part.topic,
        type=kind,
        fields=part.fields(kind if tip is None else spec.POSE),
        channels=part.channels,
        conversion=part.conversion(tip),
        kinematics=tip,
        frame_id=part.frame_id(frame_id) if kind == spec.POSE else "",
    )


def _camera(key: str, data: Any) -> Stream:
    values.mapping(data, key, {"topic", "type", "shape"}, {"size", "crop"})
    shape = data["shape"]
    shape = values.integers(shape, f"{key}: shape", len(shape) if isinstance(shape, list) else 3, 1, LARGEST_SIDE)
    feature = Feature("image", shape)
    rows, columns = values.integers(data.get("size", list(shape[:2])), f"{key}: size", 2, 1, LARGEST_SIDE)
    crop = values.integers(data.get("crop", [0, 0, rows, columns]), f"{key}: crop", 4, 0, LARGEST_SIDE)
    top, left, height, width = crop
    if not (height and width and top + height <= rows and left + width <= columns):
        expected = f"[top, left, height, width] within an image of {rows} x {columns}"
        raise InputError(f"{key}: crop: expected {expected}, found {list(crop)}")
    topic = values.topic(data["topic"], f"{key}: topic")
    region = spec.ImageRegion((rows, columns), (top, left, height, width))
    return Stream(key, feature, (Source(topic, data["type"], region=region),))


def _command(data: Mapping[str, Any], feature: Feature, frame_id: str, kinematics: Kinematics | None) -> CommandSpec:
    size = len(feature.names)
    low, high, speed = (np.array(values.numbers(data[key], f"action: {key}", size)) for key in ("low", "high", "speed"))
    acceleration, error = None, speed / 2
    if "acceleration" in data:
        acceleration = np.array(values.numbers(data["acceleration"], "action: acceleration", size))
    if "following_error" in data:
        error = np.array(values.numbers(data["following_error"], "action: following_error", size))
    positive = [speed, error] + ([] if acceleration is None else [acceleration])
    if not (low < high).all() or not all((limit > 0).all() for limit in positive):
        raise InputError(
            "action: expected low < high, speed > 0, acceleration > 0 and following_error > 0 in every channel"
        )
    rate = values.within(data["rate"], "action: rate", LEAST_RATE, MOST_RATE)
    found = parts(data, "outputs", "action", {"frame_id", "constants"})
    limits = _Limits(low, high, speed, acceleration)
    outputs = tuple(_output(part, rate, limits, frame_id, kinematics) for part in found)
    if sum(output.inverse is not None for output in outputs) > 1:
        raise InputError("action: outputs: expected one at most with the fields of the kinematics' tip, found several")
    return CommandSpec(outputs, frame_id, rate, low, high, speed, acceleration, error)


class _Limits(NamedTuple):
    """Limits of the action's channels (D,), in the interface's units."""

    low: np.ndarray
    high: np.ndarray
    speed: np.ndarray
    acceleration: np.ndarray | None


def _output(part: Part, rate: float, limits: _Limits, frame_id: str, kinematics: Kinematics | None) -> Output:
    kind = part.type(spec.COMMAND_TYPES)
    known = part.kinematics(kinematics)
    tip = known is not None and kind in (spec.TRAJECTORY, spec.ARRAY)
    chosen = part.fields(spec.POSE if tip else kind)
    if (
        kind == spec.ARRAY
        and not tip
        and any(f in part.names and f != n for f, n in zip(chosen, part.names, strict=True))
    ):
        raise InputError(
            f"{part.where}: fields: expected the names {list(part.names)}, in whose order a Float64MultiArray has its "
            f"numbers, found {list(chosen)}"
        )
    change, channels = part.conversion(known if tip else None), list(part.channels)
    ends = change.outward(limits.low[channels]), change.outward(limits.high[channels])
    return Output(
        topic=part.topic,
        type=kind,
        frame_id=part.frame_id(frame_id),
        fields=chosen,
        channels=part.channels,
        rate=rate,
        low=np.minimum(*ends),
        high=np.maximum(*ends),
        speed=change.rates(limits.speed[channels]),
        acceleration=None if limits.acceleration is None else change.rates(limits.acceleration[channels]),
        constants=_constants(part, chosen, posed=tip or kind == spec.POSE),
        conversion=change,
        kinematics=known,
    )


def _constants(part: Part, chosen: tuple[str, ...], posed: bool) -> dict[str, float]:
    """The pose fields that are not commanded."""
    where = f"{part.where}: constants"
    given = values.by_name(part.data.get("constants", {}), where)
    if (given and not posed) or not set(given) <= set(POSE_FIELDS):
        raise InputError(f"{where}: expected some of {list(POSE_FIELDS)} of a pose, found {values.shown(dict(given))}")
    found = {field: values.number(value, f"{where}: {field}") for field, value in given.items()}
    both = sorted(set(found) & set(chosen)) if posed else []
    if both:
        raise InputError(f"{where}: expected none of the fields, found {both}")
    missing = [field for field in POSE_FIELDS if field not in {*found, *chosen}]
    if posed and missing:
        raise InputError(f"{where}: expected what fields leave of a pose, found none for {missing}")
    turn = [found[field] for field in POSE_FIELDS[3:] if field in found]
    if posed and len(turn) == 4 and abs(float(np.linalg.norm(turn)) - 1.0) > UNIT_TOLERANCE:
        raise InputError(f"{where}: expected qx, qy, qz, qw of a quaternion of length 1, found {turn}")
    return found


def _require_state(interface: Interface) -> None:
    """`InputError` unless the state has the action's channels, which holding and alignment need."""
    state, action = interface.observations.get(STATE), interface.action
    if state is None or (state.names, state.units) != (action.names, action.units):
        found = None if state is None else list(zip(state.names, state.units, strict=True))
        expected = list(zip(action.names, action.units, strict=True))
        raise InputError(f"{STATE}: expected the action's channels {expected}, found {found}")


def _require_same_fields(streams: tuple[Stream, ...], command: CommandSpec, names: tuple[str, ...]) -> None:
    """`InputError` unless each channel is measured and commanded in the same field, which holding needs."""
    state = next(stream for stream in streams if stream.key == STATE)
    measured = _by_channel(state.sources)
    commanded = _by_channel(command.outputs)
    for kind in (True, False):
        channels = [c for c in range(len(names)) if measured[c].posed == commanded[c].posed == kind]
        ours, theirs = [commanded[c].field for c in channels], [measured[c].field for c in channels]
        # Joints may have other names in commands, but the same names must not be in another order.
        if ours != theirs and (kind or sorted(ours) == sorted(theirs)):
            raise InputError(f"action: fields: expected those of {STATE} {theirs}, found {ours}")


class _Field(NamedTuple):
    """A message field: of the tip's pose if `posed`, else a joint."""

    field: str
    posed: bool


def _by_channel(parts: Sequence[Source | Output]) -> dict[int, _Field]:
    return {
        channel: _Field(field, not part.joints or part.joints != part.fields)
        for part in parts
        for channel, field in zip(part.channels, part.fields, strict=True)
    }


def _require_topics(streams: tuple[Stream, ...], command: CommandSpec) -> None:
    """`InputError` for a topic with two types, or with two outputs."""
    types: dict[str, str] = {}
    for source in [source for stream in streams for source in stream.sources]:
        if types.setdefault(source.topic, source.type) != source.type:
            raise InputError(
                f"observations: {source.topic}: expected one type, found {types[source.topic]} and {source.type}"
            )
    topics = [output.topic for output in command.outputs]
    if len(set(topics)) < len(topics):
        raise InputError(f"action: outputs: expected a topic each, found {topics}")


def _pointing(data: Any, interface: Interface) -> Pointing:
    values.mapping(data, "pointing", {"camera", "channels", "pixels", "places"}, set())
    camera = values.choice(data["camera"], "pointing: camera", interface.cameras)
    names, channels = list(interface.action.names), data["channels"]
    if (
        not isinstance(channels, list)
        or len(channels) != 2
        or not all(c in names for c in channels)
        or channels[0] == channels[1]
    ):
        raise values.refuse("pointing: channels", f"two of {names}", channels)
    pixels, places = (_points(data[key], f"pointing: {key}") for key in ("pixels", "places"))
    return Pointing(camera, (channels[0], channels[1]), pixels, places)


def _points(value: Any, where: str) -> np.ndarray:
    return np.array([values.numbers(pair, where, 2) for pair in values.items(value, where, "pairs of numbers")])


def _timeouts(data: Any) -> Timeouts:
    data = {} if data is None else data
    values.mapping(data, "timeouts", set(), {f.name for f in fields(Timeouts)})
    given = {key: values.within(value, f"timeouts: {key}", 0.0, LONGEST_TIMEOUT) for key, value in data.items()}
    return Timeouts(**given)
