"""Bags as the recorder writes them, made without ROS."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vla_policy.robot.bag_writer import BagWriter
from vla_policy.robot.contract import ARRAY, IMAGE, JOINT_STATE, POSE, TRAJECTORY, Contract, load_contract

SAME = Path(__file__).parents[2] / "config" / "pusht_sim.yaml"
PUSHT = load_contract(SAME)
EPOCH = 1_700_000_000


@cache
def type_store() -> Any:
    from rosbags.typesys import Stores, get_typestore

    return get_typestore(Stores.ROS2_JAZZY)


def write_pusht_bag(
    path: Path,
    frames: int,
    lost: Collection[int] = (),
    hands: Mapping[int, bool] | None = None,
    result: str = "success",
    camera: str = "pusht_sim/camera/image_raw",
    executed: str = "command/executed",
    encoding: str = "rgb8",
    names: Sequence[str] = ("x", "y"),
) -> Path:
    """Picture k has the value k, the state is 0.3 + 0.01 k at frame k, five commands lead to that of the next frame.

    Pictures of the frames `lost` are not there; `hands` says from which frame on a person leads the arm, or not.
    """
    store = type_store()
    kinds = store.types
    writer = BagWriter(path)

    def write(topic: str, kind: str, t: float, *values: Any) -> None:
        writer.write(topic, kind, EPOCH + t, bytes(store.serialize_cdr(kinds[kind](*values), kind)))

    def header(t: float) -> Any:
        nanoseconds = round((EPOCH + t) * 1e9)
        time = kinds["builtin_interfaces/msg/Time"](nanoseconds // 10**9, nanoseconds % 10**9)
        return kinds["std_msgs/msg/Header"](time, "base_link")

    point, quaternion = kinds["geometry_msgs/msg/Point"], kinds["geometry_msgs/msg/Quaternion"]
    writer.write_text("task", "push it", EPOCH)
    for k in range(frames):
        t = k / 10
        if hands and k in hands:
            write("teleop/intervention", "std_msgs/msg/Bool", t - 0.01, hands[k])
        if k not in lost:
            pixels = np.full((96, 96, 3), k, np.uint8)
            write(camera, IMAGE, t + 0.02, header(t), 96, 96, encoding, 0, 3 * 96, pixels.ravel())
        place = kinds["geometry_msgs/msg/Pose"](point(0.3 + 0.01 * k, 0.0, 0.0), quaternion(0.0, 0.0, 0.0, 1.0))
        write("pusht_sim/ee_pose", POSE, t + 0.02, header(t), place)
        for tick in range(5):
            there = np.array([0.3 + 0.01 * (k + (tick + 1) / 5), 0.0])
            write(
                executed, JOINT_STATE, t + 0.02 * tick, header(t + 0.02 * tick), list(names), there, *2 * [np.zeros(0)]
            )
    writer.write_text("recorder/result", result, EPOCH + frames / 10)
    writer.close()
    return path


def cut(path: Path, part: float, out: Path) -> Path:
    """The beginning of a file, as a kill leaves it."""
    data = path.read_bytes()
    out.write_bytes(data[: int(part * len(data))])
    return out


JOINTS = """
robot_type: two_joints
task: push the block
fps: 10
frame: joints
observations:
  observation.state:
    topic: /joint_states
    type: sensor_msgs/msg/JointState
    fields: [a, b]
    names: [a, b]
    units: [rad, rad]
  observation.images.front: {topic: /front, type: sensor_msgs/msg/Image, shape: [16, 24, 3]}
action:
  topic: /commands
  type: std_msgs/msg/Float64MultiArray
  frame_id: base_link
  names: [a, b]
  units: [rad, rad]
  fields: [a, b]
  rate: 50
  low: [-1000, -1000]
  high: [1000, 1000]
  speed: [1, 1]
"""
TRAJECTORIES = JOINTS.replace("/commands", "/trajectory").replace(ARRAY, TRAJECTORY)
FRONT, STATES, COMMANDS, TRAJECTORY_TOPIC = "front", "joint_states", "commands", "trajectory"


class Message(NamedTuple):
    """As recorded at `t` seconds."""

    t: float
    topic: str
    type: str
    content: Any


def trajectory_message(
    t: float, points: Mapping[float, Sequence[float]], stamp: float | None = None, names: Sequence[str] = ("a", "b")
) -> Message:
    """Recorded at `t` seconds, and stamped then too if nothing else is said."""
    return Message(t, TRAJECTORY_TOPIC, TRAJECTORY, trajectory(t if stamp is None else stamp, points, names))


def contract_of(folder: Path, text: str) -> Contract:
    """Of a YAML text."""
    path = folder / "robot.yaml"
    path.write_text(text)
    return load_contract(path)


def ros(kind: str, *values: Any) -> Any:
    return type_store().types[kind](*values)


def header(t: float) -> Any:
    nanoseconds = round(t * 1e9)
    time = ros("builtin_interfaces/msg/Time", nanoseconds // 10**9, nanoseconds % 10**9)
    return ros("std_msgs/msg/Header", time, "")


def picture(stamp: float, value: int) -> Any:
    pixels = np.full((16, 24, 3), value, np.uint8)
    return ros(IMAGE, header(stamp), 16, 24, "rgb8", 0, 72, pixels.ravel())


def joints(stamp: float, values: Sequence[float], names: Sequence[str] = ("a", "b")) -> Any:
    return ros(JOINT_STATE, header(stamp), list(names), np.array(values, float), np.zeros(0), np.zeros(0))


def numbers(values: Sequence[float]) -> Any:
    return ros(ARRAY, ros("std_msgs/msg/MultiArrayLayout", [], 0), np.array(values, float))


def trajectory(stamp: float, points: Mapping[float, Sequence[float]], names: Sequence[str] = ("a", "b")) -> Any:
    """Positions by time_from_start."""
    none = np.zeros(0)
    made = [
        ros(f"{TRAJECTORY}Point", np.array(position, float), none, none, none, duration(due))
        for due, position in points.items()
    ]
    return ros(TRAJECTORY, header(stamp), list(names), made)


def duration(t: float) -> Any:
    nanoseconds = round(t * 1e9)
    return ros("builtin_interfaces/msg/Duration", nanoseconds // 10**9, nanoseconds % 10**9)


def joint_messages(
    seconds: float = 2.0, stamped: float = EPOCH, received: float = EPOCH, commands: bool = True
) -> list[Message]:
    """Picture k, at k / 10 s, has the value k; at t, in 50 Hz, the joints are (t, -t) and are told (100 + t, 0).

    `stamped` and `received` are where the two clocks begin. Pictures come 4 ms after their stamps, states 2 ms, and
    commands, which have none, 1 ms after they were sent.
    """
    found = [
        Message(received + k / 10 + 0.004, FRONT, IMAGE, picture(stamped + k / 10, k))
        for k in range(round(seconds * 10))
    ]
    for k in range(round(seconds * 50)):
        t = k / 50
        found.append(Message(received + t + 0.002, STATES, JOINT_STATE, joints(stamped + t, (t, -t))))
        if commands:
            found.append(Message(received + t + 0.001, COMMANDS, ARRAY, numbers((100 + t, 0))))
    return sorted(found, key=lambda message: message.t)


def write_mcap(path: Path, messages: Iterable[Message]) -> Path:
    """As our recorder does, in the order given."""
    writer, store = BagWriter(path), type_store()
    for t, topic, kind, content in messages:
        data = content if isinstance(content, bytes) else bytes(store.serialize_cdr(content, kind))
        writer.write(topic, kind, t, data)
    writer.close()
    return path


def write_rosbag(path: Path, messages: Iterable[Message], storage: str = "MCAP", compression: str = "") -> Path:
    """As `ros2 bag record` does: a folder with metadata.yaml. `compression` is NONE, MESSAGE, FILE or STORAGE."""
    from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

    store, connections = type_store(), {}
    writer = Writer(path, version=9, storage_plugin=StoragePlugin[storage])
    if compression:
        writer.set_compression(CompressionMode[compression], CompressionFormat.ZSTD)
    with writer:
        for t, topic, kind, content in messages:
            if (topic, kind) not in connections:
                connections[topic, kind] = writer.add_connection(f"/{topic}", kind, typestore=store)
            writer.write(connections[topic, kind], round(t * 1e9), store.serialize_cdr(content, kind))
    return path
