"""What is said of a contract beside a URDF and beside the messages of a robot."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace as Message
from typing import Any

import numpy as np
import pytest
import yaml

from vla_policy.interfaces import InputError
from vla_policy.robot.contract import IMAGE, JOINT_STATE, Contract, findings, load_contract, urdf
from vla_policy.robot.contract.findings import NOTE, OK, WRONG, Finding
from vla_policy.robot.contract_check import ReceivedTopic, check_observations

CONFIG = Path(__file__).parents[2] / "config"
JOINTS = ["shoulder_pan_joint", "shoulder_lift_joint", "elbow_joint", "wrist_1_joint", "wrist_2_joint", "wrist_3_joint"]
HOME = [0.0, -1.57, 1.57, -1.57, -1.57, 0.0]


def texts(found: list[Finding], level: str) -> str:
    return "\n".join(finding.text for finding in found if finding.level == level)


def description(folder: Path, joints: list[str] = JOINTS, low: float = -3.3, kind: str = "revolute") -> Path:
    parts = [
        f'<joint name="{name}" type="{kind}"><limit lower="{low}" upper="3.3" velocity="3.0"/></joint>'
        for name in joints
    ]
    file = folder / "arm.urdf"
    file.write_text(f'<robot name="arm"><link name="base_link"/>{"".join(parts)}</robot>')
    return file


def test_a_urdf_with_the_joints_and_limits_fits(tmp_path: Path) -> None:
    found = urdf.compare(load_contract("ur5e"), description(tmp_path))
    assert texts(found, WRONG) == texts(found, NOTE) == ""
    assert "/joint_states: all of its joints are in arm.urdf" in texts(found, OK)


@pytest.mark.parametrize(
    ("options", "level", "expected"),
    [
        ({"joints": JOINTS[:5]}, WRONG, r"/joint_states: expected the joints ['wrist_3_joint'] in arm.urdf"),
        ({"kind": "fixed"}, WRONG, "expected joints that move, found the fixed ['shoulder_pan_joint'"),
        ({"low": -2.0}, WRONG, "shoulder_lift_joint: the box is -2.4 to -0.5, arm.urdf has -2 to 3.3"),
        (
            {"low": -3.15},
            NOTE,
            "wrist_3_joint: the box is -3.2 to 3.2, arm.urdf has -3.15 to 3.3: the driver has to clip",
        ),
    ],
)
def test_what_a_urdf_lacks_is_named(tmp_path: Path, options: dict, level: str, expected: str) -> None:
    assert expected in texts(urdf.compare(load_contract("ur5e"), description(tmp_path, **options)), level)


def test_limits_are_compared_in_the_units_of_the_messages(tmp_path: Path) -> None:
    joints = ["shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper"]
    found = urdf.compare(load_contract("so101_lerobot"), description(tmp_path, joints))
    assert texts(found, WRONG) == ""  # 166 degrees are 2.9 rad
    data = yaml.safe_load((CONFIG / "so101_lerobot.yaml").read_text())
    for output in data["action"]["outputs"]:
        output.pop("message_units")
        output.pop("ranges", None)
    (tmp_path / "robot.yaml").write_text(yaml.safe_dump(data))
    wrong = texts(urdf.compare(load_contract(tmp_path / "robot.yaml"), description(tmp_path, joints)), WRONG)
    assert "shoulder_pan: the box is -113 to 113, arm.urdf has -3.3 to 3.3; degrees?" in wrong


def test_joints_of_a_message_without_names_are_compared_by_its_fields(tmp_path: Path) -> None:
    data = yaml.safe_load((CONFIG / "xarm6_gripper.yaml").read_text())
    hand = data["action"]["outputs"][1]
    hand["type"] = "std_msgs/msg/Float64MultiArray"
    file, arm = tmp_path / "robot.yaml", description(tmp_path, [*(f"joint{k}" for k in range(1, 7)), "drive_joint"])
    file.write_text(yaml.safe_dump(data))
    assert "expected the joints" not in texts(urdf.compare(load_contract(file), arm), WRONG)
    del hand["fields"]
    file.write_text(yaml.safe_dump(data))
    wrong = texts(urdf.compare(load_contract(file), arm), WRONG)
    assert "expected the joints ['gripper'] in arm.urdf" in wrong
    assert "`fields` names them" in wrong


@pytest.mark.parametrize(
    "text",
    ["", "<robot", "<html/>", "<robot/>", '<robot><joint name="${x}"/></robot>']
    + [f'<robot><joint name="a" type="revolute"><limit lower="{low}"/></joint></robot>' for low in ("x", "", "1,5")],
)
def test_an_invalid_urdf_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "arm.urdf"
    file.write_text(text)
    with pytest.raises(InputError, match=r"arm\.urdf: .*expected"):
        urdf.compare(load_contract("ur5e"), file)


def received(
    joints: list[str] = JOINTS, places: list[float] = HOME, rate: float = 100.0, camera: float = 30.0, **changes: Any
) -> dict[str, ReceivedTopic]:
    """Three seconds of a UR5e and its camera; `changes` are of the pictures."""
    states, pictures = ReceivedTopic((JOINT_STATE,)), ReceivedTopic((IMAGE,))
    for k in range(int(3 * rate)):
        t = 100.0 + k / rate
        states.add(t, Message(header=header(t), name=joints, position=places))
    pixels = np.zeros((480, 640, 3), np.uint8)
    for k in range(int(3 * camera)):
        t = 100.0 + k / camera
        picture = {"height": 480, "width": 640, "encoding": "rgb8", "step": 1920, "data": pixels.ravel()}
        pictures.add(t, Message(**{"header": header(t - 0.03), **picture, **changes}))
    return {"joint_states": states, "front/color/image_raw": pictures}


def header(t: float) -> Message:
    return Message(stamp=Message(sec=int(t), nanosec=round(t % 1 * 1e9)))


def test_a_robot_that_fits(tmp_path: Path) -> None:
    found = check_observations(load_contract("ur5e"), received(), live=True)
    assert texts(found, WRONG) == texts(found, NOTE) == ""
    assert "/joint_states: 100 Hz" in texts(found, OK)
    assert "stamps are 30 ms old on arrival" in texts(found, OK)


def test_joints_in_another_order_are_reported(tmp_path: Path) -> None:
    order = [*JOINTS[2::-1], *JOINTS[3:]]
    there = received(order, [HOME[2], HOME[1], HOME[0], *HOME[3:]])
    found = check_observations(load_contract("ur5e"), there, live=False)
    assert texts(found, WRONG) == ""
    assert "/joint_states: joints come as ['elbow_joint', 'shoulder_lift_joint', 'shoulder_pan_joint'" in texts(
        found, OK
    )


@pytest.mark.parametrize(
    ("options", "level", "expected"),
    [
        ({"joints": [f"j{k}" for k in range(6)]}, WRONG, "would be refused: /joint_states: expected the joints"),
        ({"places": [0.0, -90.0, 90.0, -90.0, -90.0, 0.0]}, WRONG, "box of -2.4 to -0.5 rad, found -90; degrees?"),
        ({"rate": 5.0}, WRONG, "/joint_states: 5 Hz, slower than timeouts.state of 0.1 s allows: the arm would hold"),
        ({"camera": 5.0}, WRONG, "/front/color/image_raw: 5 Hz, slower than timeouts.camera of 0.12 s allows"),
        ({"camera": 15.0}, NOTE, "/front/color/image_raw: 15 Hz, below the control rate of 30 Hz"),
        ({"height": 240, "data": bytes(240 * 1920)}, WRONG, "expected 480 x 640 pixels, found 240 x 640"),
        ({"encoding": "16UC1"}, WRONG, "encoding: expected one of"),
        ({"header": header(0.0)}, WRONG, "/front/color/image_raw: expected time stamps, found 0"),
        ({"header": header(40.0)}, WRONG, "are the clocks the same?"),
    ],
)  # fmt: skip
def test_what_would_not_work_is_named(options: dict, level: str, expected: str) -> None:
    assert expected in texts(check_observations(load_contract("ur5e"), received(**options), live=True), level)


def test_topics_of_another_name_or_type_are_named() -> None:
    there = received()
    there["camera/image"] = there.pop("front/color/image_raw")
    there["joint_states"].types = ("std_msgs/msg/String",)
    wrong = texts(check_observations(load_contract("ur5e"), there, live=True), WRONG)
    assert "/front/color/image_raw: expected sensor_msgs/msg/Image, found no such topic" in wrong
    assert "of this type are ['/camera/image']" in wrong
    assert "/joint_states: expected sensor_msgs/msg/JointState, found std_msgs/msg/String" in wrong


def test_parts_that_never_meet_are_named() -> None:
    arm, gripper = ReceivedTopic((JOINT_STATE,)), ReceivedTopic((JOINT_STATE,))
    for k in range(100):
        t = 100.0 + k / 50
        arm.add(t, Message(header=header(t), name=[f"joint{i}" for i in range(1, 7)], position=[0.1] * 6))
        gripper.add(t, Message(header=header(t - 1.0), name=["drive_joint"], position=[0.1]))
    there = {"xarm/joint_states": arm, "xarm_gripper/joint_states": gripper}
    wrong = texts(check_observations(load_contract("xarm6_gripper"), there, live=False), WRONG)
    assert "observation.state: its parts were never within 0.25 s of each other (slop)" in wrong


@pytest.mark.parametrize(
    ("offset", "met", "level"),
    [(0.033, 0, WRONG), (0.033, 4, WRONG), (0.033, 1.4, NOTE), (0.033, 1.05, OK), (0.01, 0, OK)],
)
def test_slow_streams_out_of_phase_are_named(offset: float, met: float, level: str) -> None:
    """Where every `met`-th picture is in phase all the same."""
    there = received(rate=15.0, camera=15.0)
    for k, (t, message) in enumerate(there["front/color/image_raw"].messages):
        in_phase = met and k % met < 1.0
        message.header = header(t if in_phase else t + offset)
    found = check_observations(load_contract("ur5e"), there, live=False)
    for other in (WRONG, NOTE):
        assert ("they would not form an observation" in texts(found, other)) == (level == other)


def test_a_contract_is_described_in_words() -> None:
    told = {finding.text: finding.level for finding in findings.describe(load_contract("xarm6_gripper"))}
    assert told["gripper: 0 to 1 are 0.85 to 0 rad on /xarm_gripper/joint_states"] == OK
    assert any("combined where they are within 0.25 s" in text for text in told)
    told = {finding.text: finding.level for finding in findings.describe(load_contract("bi_so101"))}
    assert any("of which 720 x 960 from row 0 and column 160, scaled to 240 x 320" in text for text in told)


def stretched(folder: Path) -> Contract:
    data = yaml.safe_load((CONFIG / "ur5e.yaml").read_text())
    data["observations"]["observation.images.front"]["size"] = [720, 1280]
    (folder / "robot.yaml").write_text(yaml.safe_dump(data))
    return load_contract(folder / "robot.yaml")


def test_pictures_that_are_stretched_are_a_note(tmp_path: Path) -> None:
    assert "stretches their height by 1.33: crop them?" in texts(findings.describe(stretched(tmp_path)), NOTE)
