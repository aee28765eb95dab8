"""Bags whose state, commands and pictures are of several topics and other units become what the contract says."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

pytest.importorskip("rosbags")

from helpers.ros_bags import EPOCH, type_store

from vla_policy.importers.bag_episode import bag_episode
from vla_policy.interfaces import ACTION, IMAGES, STATE
from vla_policy.robot.bag_writer import BagWriter
from vla_policy.robot.contract import COMPRESSED, JOINT_STATE, TRAJECTORY, load_contract

CONFIG = Path(__file__).parents[2] / "config"
ARM = [f"joint{k}" for k in range(1, 7)]
FRONT = IMAGES + "front"


def small_contract(folder: Path) -> Path:
    """The xArm6 with a gripper, and a small compressed camera of which the middle is taken."""
    data = yaml.safe_load((CONFIG / "xarm6_gripper.yaml").read_text())
    camera = {"topic": "/front/compressed", "type": COMPRESSED, "size": [48, 64], "crop": [0, 8, 48, 48]}
    data["observations"][FRONT] = {**camera, "shape": [24, 24, 3]}
    (folder / "arm.yaml").write_text(yaml.safe_dump(data))
    return folder / "arm.yaml"


def write_bag(path: Path, seconds: float) -> Path:
    """Joint k is at k + t, the gripper's joint at 0.85 t; commands are 0.1 ahead. The picture at t is 100 t bright."""
    store = type_store()
    kinds = store.types
    writer = BagWriter(path)

    def write(topic: str, kind: str, t: float, *values: Any) -> None:
        nanoseconds = round((EPOCH + t) * 1e9)
        time = kinds["builtin_interfaces/msg/Time"](nanoseconds // 10**9, nanoseconds % 10**9)
        message = kinds[kind](kinds["std_msgs/msg/Header"](time, ""), *values)
        writer.write(topic, kind, EPOCH + t, bytes(store.serialize_cdr(message, kind)))

    def command(topic: str, names: list[str], t: float, places: np.ndarray) -> None:
        none = np.zeros(0)
        point = kinds["trajectory_msgs/msg/JointTrajectoryPoint"](
            places, none, none, none, kinds["builtin_interfaces/msg/Duration"](0, 40_000_000)
        )
        write(topic, TRAJECTORY, t, names, [point])

    for k in range(round(seconds * 100)):
        t, none = k / 100, np.zeros(0)
        write("/xarm/joint_states", JOINT_STATE, t, ARM[::-1], np.arange(6)[::-1] + t, none, none)
        command("/xarm6_traj_controller/joint_trajectory", ARM, t, np.arange(6) + t + 0.1)
        if k % 10 == 0:
            write("/xarm_gripper/joint_states", JOINT_STATE, t, ["drive_joint"], np.array([0.85 * t]), none, none)
            command("/xarm_gripper_traj_controller/joint_trajectory", ["drive_joint"], t, np.array([0.85 * t]))
            file = io.BytesIO()
            Image.fromarray(np.full((48, 64, 3), round(100 * t), np.uint8)).save(file, "PNG")
            write("/front/compressed", COMPRESSED, t, "png", np.frombuffer(file.getvalue(), np.uint8))
    writer.close()
    return path


def test_parts_are_put_together_in_time_and_in_the_interfaces_units(tmp_path: Path) -> None:
    data = yaml.safe_load(small_contract(tmp_path).read_text())
    data["fps"] = 10
    (tmp_path / "arm.yaml").write_text(yaml.safe_dump(data))
    episode = bag_episode(write_bag(tmp_path / "one.mcap", 1.0), load_contract(tmp_path / "arm.yaml"))
    pictures = np.stack(list(episode.images[FRONT]))
    times = pictures[:, 0, 0, 0] / 100
    np.testing.assert_allclose(np.diff(times), 0.1)
    assert pictures.shape[1:] == (24, 24, 3)
    state, action = episode.columns[STATE], episode.columns[ACTION]
    np.testing.assert_allclose(state[:, :6], np.arange(6) + times[:, None], atol=1e-5)
    np.testing.assert_allclose(state[:, 6], 1 - times, atol=1e-5)  # of the frames' stamps, though it comes second
    np.testing.assert_allclose(action[:, :6], np.arange(6) + times[:, None] + 0.19, atol=1e-5)
    np.testing.assert_allclose(action[1:, 6], 1 - times[1:], atol=1e-5)
