"""Bags as the recorder writes them, made without ROS."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vla_policy.bags import BagWriter
from vla_policy.contract import IMAGE, JOINT_STATE, POSE, load_contract

SAME = Path(__file__).parents[2] / "config" / "pusht_sim.yaml"
PUSHT = load_contract(SAME)
EPOCH = 1_700_000_000


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
