"""Contracts whose state and commands are of several topics and other units, and what their messages are read as."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace as Message
from typing import Any

import numpy as np
import pytest
import yaml

from vla_policy.interfaces import IMAGES, STATE, InputError
from vla_policy.robot.contract import ARRAY, JOINT_STATE, load_contract
from vla_policy.robot.messages import CommandReader, Reader
from vla_policy.runtime import ObservationBuffer

CONFIG = Path(__file__).parents[2] / "config"
ARM, GRIPPER = "/xarm/joint_states", "/xarm_gripper/joint_states"


def joints(**positions: float) -> Message:
    return Message(name=list(positions), position=list(positions.values()))


def arm(first: float) -> Message:
    return joints(**{f"joint{k}": first + k - 1 for k in range(6, 0, -1)})  # not in the contract's order


def changed(folder: Path, name: str, *changes: tuple[tuple[Any, ...], Any]) -> Path:
    data = yaml.safe_load((CONFIG / f"{name}.yaml").read_text())
    for path, value in changes:
        place = data
        for key in path[:-1]:
            place = place[key]
        if value is None:
            del place[path[-1]]
        else:
            place[path[-1]] = value
    file = folder / "robot.yaml"
    file.write_text(yaml.safe_dump(data))
    return file


@pytest.mark.parametrize("path", sorted(CONFIG.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_contracts_load(path: Path) -> None:
    if path.stem == "xarm6_joints":
        pytest.importorskip("pinocchio")
    contract = load_contract(path)
    state = contract.stream(STATE)
    size = len(contract.interface.action.names)
    for parts in (state.sources, contract.command.outputs):
        assert sorted(channel for part in parts for channel in part.channels) == list(range(size))


def test_so101_may_begin_folded_with_a_closed_gripper() -> None:
    folded = np.radians([0.0, -100.0, 90.0, 50.0, 0.0, -10.0])
    for name, convert in (("so101", np.array), ("so101_lerobot", in_degrees)):
        command = load_contract(name).command
        assert (command.low < convert(folded)).all()
        assert (convert(folded) < command.high).all()
    assert np.tile(folded, 2).shape == load_contract("bi_so101").command.low.shape
    assert (load_contract("bi_so101").command.low < np.tile(folded, 2)).all()


def in_degrees(pose: np.ndarray) -> np.ndarray:
    return np.append(np.degrees(pose[:5]), 100 * (pose[5] + 0.1745) / (1.7453 + 0.1745))


def test_a_state_of_two_topics_is_put_together_by_name_and_time() -> None:
    reader = Reader([load_contract("xarm6_gripper").stream(STATE)])
    assert reader.topics == {ARM: JOINT_STATE, GRIPPER: JOINT_STATE}
    assert reader.read(ARM, arm(0.0), 10.0) == []
    ((key, stamp, value, _),) = reader.read(GRIPPER, joints(drive_joint=0.85), 10.01)
    assert (key, stamp) == (STATE, 10.01)
    np.testing.assert_allclose(value, [0, 1, 2, 3, 4, 5, 0], atol=1e-6)  # 0.85 rad is closed
    ((_, stamp, value, _),) = reader.read(ARM, arm(0.5), 10.02)
    assert stamp == 10.02  # with the gripper's newest
    np.testing.assert_allclose(value, [0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 0], atol=1e-6)
    assert reader.read(ARM, arm(0.6), 10.27) == []  # the gripper's newest is older than the stream's slop
    ((_, _, value, _),) = reader.read(GRIPPER, joints(drive_joint=0.0), 10.26)
    np.testing.assert_allclose(value, [0.6, 1.6, 2.6, 3.6, 4.6, 5.6, 1], atol=1e-6)


def test_a_part_of_the_same_stamp_that_comes_second_revises_the_whole() -> None:
    stream = load_contract("xarm6_gripper").stream(STATE)
    reader, buffer = Reader([stream]), ObservationBuffer([STATE], 0.02, 0.5)
    reader.read(ARM, arm(0.0), 10.0)
    reader.read(GRIPPER, joints(drive_joint=0.85), 10.0)
    (first,) = reader.read(ARM, arm(0.5), 10.01)
    (second,) = reader.read(GRIPPER, joints(drive_joint=0.0), 10.01)
    assert (first.stamp, first.revises, first.value[6].round(5)) == (10.01, False, 0)
    assert (second.stamp, second.revises, second.value[6].round(5)) == (10.01, True, 1)
    assert buffer.put(STATE, first.value, first.stamp, 10.01)
    buffer.revise(STATE, second.value, second.stamp)
    observation = buffer.newest("")
    assert observation is not None
    np.testing.assert_array_equal(observation.values[STATE], second.value)
    buffer.revise(STATE, first.value, 10.0)  # not the last one's stamp
    assert not buffer.refused


def test_two_publishers_of_one_topic_are_distinguished_by_their_joints(tmp_path: Path) -> None:
    sources = ("observations", STATE, "sources")
    file = changed(tmp_path, "xarm6_gripper", ((*sources, 0, "topic"), ARM), ((*sources, 1, "topic"), ARM))
    reader = Reader([load_contract(file).stream(STATE)])
    assert reader.read(ARM, arm(0.0), 1.0) == []
    assert len(reader.read(ARM, joints(drive_joint=0.2), 1.0)) == 1
    both = Message(name=[*arm(0.0).name, "drive_joint"], position=[*arm(0.0).position, 0.2])
    assert len(reader.read(ARM, both, 1.1)) == 1
    with pytest.raises(
        InputError, match=r"expected the joints \['joint1', .*\] or \['drive_joint'\], found \['wheel'\]"
    ):
        reader.read(ARM, joints(wheel=1.0), 1.2)


def test_commands_of_two_topics_are_split_and_read_back() -> None:
    contract = load_contract("so101_lerobot")
    arm, gripper = contract.command.outputs
    action = np.array([90.0, -45.0, 0.0, 10.0, 180.0, 50.0])
    np.testing.assert_allclose(arm.part(action), np.radians(action[:5]))
    np.testing.assert_allclose(gripper.part(action), [(1.7453 - 0.1745) / 2])
    np.testing.assert_allclose(gripper.speed, [104 * (1.7453 + 0.1745) / 100])
    reader = CommandReader(contract.command)
    assert reader.read(arm.topic, trajectory(arm.fields, arm.part(action))) is None
    read = reader.read(gripper.topic, trajectory(gripper.fields, gripper.part(action)))
    np.testing.assert_allclose(read, action, rtol=1e-5, atol=1e-5)


def trajectory(names: tuple[str, ...], positions: np.ndarray) -> Message:
    return Message(joint_names=list(names), points=[Message(positions=positions.tolist())])


def test_degrees_and_percents_follow_from_each_other(tmp_path: Path) -> None:
    file = changed(
        tmp_path,
        "ur5e",
        (("observations", STATE, "message_units"), ["deg"] * 6),
        (("action", "message_units"), ["deg"] * 6),
    )
    contract = load_contract(file)
    names = contract.interface.action.names
    (sample,) = Reader([contract.stream(STATE)]).read("/joint_states", joints(**dict.fromkeys(names, 90.0)), 0.0)
    np.testing.assert_allclose(sample.value, [math.pi / 2] * 6, rtol=1e-6)
    (output,) = contract.command.outputs
    np.testing.assert_allclose(output.part(sample.value.astype(float)), [90.0] * 6, rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([(("observations", STATE, "topic"), "/joint_states")], r"expected \['topic'\] in the entries of sources"),
        ([(("observations", STATE, "sources"), [])], r"state: sources: expected sources, found \[\]"),
        (
            [(("observations", STATE, "sources", 0, "names"), None)],
            r"sources\[0\]: expected the keys .*'names'\] missing",
        ),
        (
            [(("observations", STATE, "sources", 1, "names"), ["joint1"])],
            r"sources\[1\]: names: expected some of \['gripper'\], found \['joint1'\]",
        ),
        (
            [(("action", "outputs", 0, "names"), ["joint1", "joint2"])],
            r"action: outputs\[0\]: fields: expected|action: outputs: expected every name of .*'joint3'",
        ),
        (
            [(("action", "outputs", 1, "topic"), "/xarm6_traj_controller/joint_trajectory")],
            "outputs: expected a topic each",
        ),
        (
            [(("action", "outputs", 1, "ranges"), None)],
            r"ranges: expected \{gripper: .* is no multiple of '1', found none",
        ),
        (
            [(("action", "outputs", 1, "ranges", "gripper", "message"), [0.0, 0.0])],
            "ranges: gripper: expected two different numbers on each side",
        ),
        (
            [(("action", "outputs", 1, "ranges", "finger"), {"message": [0, 1], "interface": [0, 1]})],
            r"ranges: finger: expected one of \['gripper'\], found 'finger'",
        ),
        (
            [(("action", "outputs", 0, "fields"), ["joint2", "joint1", "joint3", "joint4", "joint5", "joint6"])],
            r"action: fields: expected those of observation\.state \['joint1', 'joint2'",
        ),
        ([(("observations", STATE, "slop"), -1)], "observation.state: slop: expected a number above 0, found -1"),
        (
            [(("observations", IMAGES + "front", "crop"), [0, 0, 481, 640])],
            "crop: expected .* within an image of 480 x 640",
        ),
        ([(("observations", IMAGES + "front", "crop"), [0, 0, 0, 640])], "crop: expected"),
        (
            [(("observations", IMAGES + "front", "topic"), "front image")],
            "topic: expected a topic such as /joint_states",
        ),
    ],
)
def test_mistakes_are_named(tmp_path: Path, changes: list, message: str) -> None:
    with pytest.raises(InputError, match=rf"robot\.yaml: .*(?:{message})"):
        load_contract(changed(tmp_path, "xarm6_gripper", *changes))


def test_a_tip_and_a_gripper_beside_it(tmp_path: Path) -> None:
    pytest.importorskip("pinocchio")
    contract = load_contract(tip_and_gripper(tmp_path))
    led = contract.command.ik_output
    assert led is not None
    assert led.channels == (0, 1)
    assert contract.command.outputs[1].inverse is None
    tip, gripper = contract.stream(STATE).sources
    assert tip.kinematics is not None
    assert gripper.kinematics is None
    start = {f"joint{k}": value for k, value in enumerate([0.0, -0.6, -1.0, 0.0, 1.6, 0.0], start=1)}
    reader = Reader([contract.stream(STATE)])
    assert reader.read("/joint_states", joints(**start), 0.0) == []
    (sample,) = reader.read("/gripper/joint_states", joints(finger=0.04), 0.0)
    place = tip.kinematics.pose(np.array(list(start.values())))[:2]
    np.testing.assert_allclose(sample.value, [*place, 0.04], rtol=1e-5)


def tip_and_gripper(folder: Path) -> Path:
    """The xArm6 led by its tip, with a gripper that has topics of its own."""
    data = yaml.safe_load((CONFIG / "xarm6_joints.yaml").read_text())
    state, action = data["observations"][STATE], data["action"]
    for vector, several in ((state, "sources"), (action, "outputs")):
        part = {key: vector.pop(key) for key in ("topic", "type", "fields", "constants") if key in vector}
        finger = {"topic": "/gripper/joint_states", "type": JOINT_STATE, "names": ["gripper"], "fields": ["finger"]}
        if several == "outputs":
            finger |= {"topic": "/gripper/commands", "type": "std_msgs/msg/Float64MultiArray", "fields": ["gripper"]}
        vector[several] = [{**part, "names": ["x", "y"]}, finger]
        vector["names"], vector["units"] = ["x", "y", "gripper"], ["m", "m", "m"]
    for key, value in (("low", 0.0), ("high", 0.05), ("speed", 0.1), ("acceleration", 1.0)):
        action[key].append(value)
    file = folder / "robot.yaml"
    file.write_text(yaml.safe_dump(data))
    return file


def test_numbers_without_names_may_be_joints_of_other_names(tmp_path: Path) -> None:
    output = {"topic": "/hand/commands", "type": ARRAY, "names": ["gripper"], "fields": ["drive_joint"]}
    contract = load_contract(changed(tmp_path, "xarm6_gripper", (("action", "outputs", 1), output)))
    assert contract.command.outputs[1].joints == ("drive_joint",)


def test_a_duplicate_key_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "robot.yaml"
    file.write_text((CONFIG / "ur5e.yaml").read_text() + "fps: 10\n")
    with pytest.raises(InputError, match=r"robot\.yaml: expected YAML, found the key 'fps' twice"):
        load_contract(file)
