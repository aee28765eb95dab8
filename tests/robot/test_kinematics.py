"""From joints to the tip and back: against the simulation's closed form, at the limits, and what is refused."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import SimpleNamespace as Message
from typing import Any

import numpy as np
import pytest
import yaml

pytest.importorskip("pink")

from sim import PushTEnv
from sim.arm import inverse_kinematics, write_urdf
from sim.config import PushTConfig
from vla_policy.interfaces import STATE, InputError
from vla_policy.robot.contract import ARRAY, TWIST, load_contract
from vla_policy.robot.kinematics import FAR, JointTargets, Kinematics, NoSolution, between
from vla_policy.robot.messages import away_from_constants, decode, decode_command

ROOT = Path(__file__).parents[2]
URDF = ROOT / "urdf" / "xarm6_pusher.urdf"
CONTRACT = ROOT / "config" / "xarm6_joints.yaml"
JOINTS = [f"joint{k}" for k in range(1, 7)]
DOWN = [1.0, 0.0, 0.0, 0.0]  # the quaternion of a tool that points down
RATE = 50.0
STICK = PushTConfig().arm.stick_length
NUMBER = re.compile(r"-?\b\d+(?:\.\d+)?(?:e-?\d+)?\b")


@pytest.fixture(scope="module")
def arm() -> Kinematics:
    return Kinematics(URDF, "link_base", "pusher", JOINTS)


def pose(x: float, y: float, z: float = 0.01) -> np.ndarray:
    return np.array([x, y, z, *DOWN])


def start() -> np.ndarray:
    return inverse_kinematics(np.array([0.45, 0.0, 0.01]), STICK)


def test_the_tip_is_where_the_closed_form_has_it(arm: Kinematics) -> None:
    tips = np.random.default_rng(0).uniform([0.26, -0.19, 0.0], [0.64, 0.19, 0.2], (50, 3))
    for tip, joints in zip(tips, inverse_kinematics(tips, STICK), strict=True):
        np.testing.assert_allclose(arm.pose(joints)[:3], tip, atol=1e-5)
    # The URDF's offsets with all joints at zero: the wrist 0.131 m ahead of the base, flange and stick below it.
    np.testing.assert_allclose(arm.pose(np.zeros(6)), [0.207, 0.0, 0.267 - 0.058 - 0.097 - STICK, *DOWN], atol=1e-5)


def test_the_tip_is_where_the_simulation_has_it() -> None:
    arm, env = Kinematics(URDF, "base_link", "pusher", JOINTS), PushTEnv(cameras=())
    env.reset(seed=3)
    np.testing.assert_allclose(arm.pose(env.scene.save().joints)[:3], env.scene.pusher_state()[0], atol=1e-5)
    env.close()


def test_joints_lead_back_to_the_pose_over_the_workspace_without_changing_the_branch(arm: Kinematics) -> None:
    corners = [(0.27, -0.18), (0.63, -0.18), (0.63, 0.18), (0.27, 0.18)]
    joints, way = start(), []
    for (x0, y0), (x1, y1) in zip([(0.45, 0.0), *corners], [*corners, (0.45, 0.0)], strict=True):
        for part in np.linspace(0, 1, 20):
            target = pose(x0 + part * (x1 - x0), y0 + part * (y1 - y0))
            solved = arm.solve(target, joints)
            np.testing.assert_allclose(arm.pose(solved)[:3], target[:3], atol=2e-5)
            assert abs(arm.pose(solved)[3:] @ DOWN) > 1 - 1e-8
            way.append(np.abs(solved - joints).max())
            joints = solved
    assert max(way) < 0.15
    np.testing.assert_allclose(joints, start(), atol=1e-3)  # there and back
    np.testing.assert_array_equal(arm.solve(pose(0.5, 0.1), joints), arm.solve(pose(0.5, 0.1), joints))


def test_the_order_of_the_joints_is_the_contracts(arm: Kinematics) -> None:
    turned = Kinematics(URDF, "link_base", "pusher", JOINTS[::-1], speed=[1, 2, 3, 4, 5, 6])
    target = pose(0.5, 0.1)
    np.testing.assert_allclose(turned.solve(target, start()[::-1])[::-1], arm.solve(target, start()), atol=1e-9)
    np.testing.assert_array_equal(turned.low[::-1], arm.low)
    np.testing.assert_array_equal(turned.speed, [1, 2, 3, 3.14, 3.14, 3.14])


@pytest.mark.parametrize("far", [(1.3, 0.0, 0.01), (0.4, 0.0, -1.0), (0.4, 0.0, 1.5)])
def test_a_pose_out_of_reach_is_refused(arm: Kinematics, far: tuple[float, ...]) -> None:
    with pytest.raises(NoSolution, match=r"expected a pose that 'pusher' can reach, found \["):
        arm.solve(pose(*far), start())


def test_joints_stay_within_their_limits(arm: Kinematics, tmp_path: Path) -> None:
    tree = ElementTree.parse(URDF)
    limit = tree.find("joint[@name='joint1']/limit")
    assert limit is not None
    limit.set("upper", "0.1")  # what lies further to the left has to be refused
    tree.write(tmp_path / "narrow.urdf")
    narrow = Kinematics(tmp_path / "narrow.urdf", "link_base", "pusher", JOINTS)
    assert narrow.solve(pose(0.45, 0.04), start())[0] == pytest.approx(np.arctan2(0.04, 0.45), abs=1e-4)
    with pytest.raises(NoSolution, match="can reach"):
        narrow.solve(pose(0.45, 0.1), start())
    assert arm.solve(pose(0.45, 0.1), start())[0] > 0.1


def test_joints_keep_their_speed_limits_and_the_tip_its_path() -> None:
    slow = Kinematics(URDF, "link_base", "pusher", JOINTS, speed=[0.4] * 6)
    targets = JointTargets(slow, RATE, followed=False)
    targets.measure(start())
    told = [start()]
    while np.linalg.norm(slow.pose(told[-1])[:3] - [0.45, 0.025, 0.01]) > 1e-4 and len(told) < 100:
        told.append(targets.follow(pose(0.45, 0.025)))
    speeds = np.abs(np.diff(told, axis=0)).max(axis=0) * RATE
    assert speeds.max() == pytest.approx(0.4, rel=1e-3)
    tips = np.array([slow.pose(joints)[:3] for joints in told])
    np.testing.assert_allclose(tips[:, [0, 2]], [[0.45, 0.01]] * len(tips), atol=1e-4)
    assert len(told) == pytest.approx(1 + np.arctan2(0.025, 0.45) / 0.4 * RATE, abs=2)


def test_joints_too_slow_for_the_tip_are_named() -> None:
    targets = JointTargets(Kinematics(URDF, "link_base", "pusher", JOINTS, speed=[0.1] * 6), RATE, followed=False)
    targets.measure(start())
    ways = iter(np.linspace(0.003, 0.18, 60))

    def go() -> None:
        for y in ways:
            targets.follow(pose(0.45, y))

    with pytest.raises(NoSolution, match=r"joint\d is too slow: expected .* within 0.03 m of its target, found 0.03"):
        go()
    assert 0 < targets.hold()[0] < np.arctan2(next(ways) - 0.03, 0.45)


def test_a_far_solution_is_refused_and_the_last_joints_are_kept(arm: Kinematics) -> None:
    targets = JointTargets(arm, RATE)
    with pytest.raises(NoSolution, match="expected measured joints, found none yet"):
        targets.follow(pose(0.45, 0.0))
    targets.measure(start())
    targets.measure(np.full(6, np.nan))
    told = targets.follow(pose(0.45, 0.001))
    with pytest.raises(NoSolution, match=rf"joint1: expected a target within {FAR:g} of the last, found \+"):
        targets.follow(pose(0.3, 0.3))
    np.testing.assert_array_equal(targets.hold(), told)
    targets.reset()
    np.testing.assert_array_equal(targets.hold(), start())


def test_a_joint_that_does_not_follow_is_named_and_its_commands_restart_where_it_is() -> None:
    targets = JointTargets(Kinematics(URDF, "link_base", "pusher", JOINTS, speed=[1.0] * 6), RATE)
    targets.measure(start())
    told = targets.follow(pose(0.45, 0.0))
    stuck = told.copy()
    stuck[5] += 0.6  # the wrist does not move the tip in x, y
    targets.measure(stuck)
    with pytest.raises(NoSolution, match=r"kinematics: joint6: expected it within 0.5 of its target, found 0.6"):
        targets.follow(pose(0.45, 0.0))
    np.testing.assert_array_equal(targets.hold(), stuck)


def test_a_stuck_joint_is_led_no_further_than_it_may_be_behind() -> None:
    targets = JointTargets(Kinematics(URDF, "link_base", "pusher", JOINTS, speed=[0.2] * 6), RATE)
    targets.measure(start())
    led = []

    def go() -> None:
        for y in np.linspace(0.001, 0.18, 180):
            led.append(targets.follow(pose(0.45, y)))

    with pytest.raises(NoSolution, match=r"kinematics: joint\d: expected it within 0.1 of its target, found 0.10"):
        go()
    for _ in range(3):
        with pytest.raises(NoSolution):
            targets.follow(pose(0.45, 0.18))
    np.testing.assert_array_equal(targets.hold(), led[-1])
    np.testing.assert_array_equal(targets.velocity, 0.0)
    assert np.abs(led[-1] - start()).max() <= 0.1


def test_the_path_between_two_poses_is_straight() -> None:
    half = between(pose(0.4, 0.0), np.array([0.5, 0.2, 0.01, np.sqrt(0.5), np.sqrt(0.5), 0.0, 0.0]), 0.5)
    np.testing.assert_allclose(half[:3], [0.45, 0.1, 0.01])
    assert abs(half[3:] @ [np.cos(np.pi / 8), np.sin(np.pi / 8), 0, 0]) == pytest.approx(1.0)


def changed(folder: Path, *path: Any) -> Path:
    """The contract with the value at a path of keys replaced by the last argument."""
    data = yaml.safe_load(CONTRACT.read_text())
    place = data
    for key in path[:-2]:
        place = place[key]
    place[path[-2]] = path[-1]
    (folder / "robot.yaml").write_text(yaml.safe_dump(data))
    return folder / "robot.yaml"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("kinematics", "joints", [*JOINTS[:5], "elbow"]),
            r"joints: expected those that move 'pusher'.*'joint6'.*elbow",
        ),
        (("kinematics", "joints", JOINTS[:5]), r"joints: expected those that move 'pusher'"),
        (("kinematics", "tip", "gripper"), r"xarm6_pusher\.urdf: expected the link 'gripper', found \['base_link', "),
        (("action", "frame_id", "table"), r"expected the link 'table', found"),
        (("action", "frame_id", "link3"), r"expected a base that does not move, found 'link3'|those that move"),
        (
            ("kinematics", "urdf", "nowhere"),
            r"urdf: expected a \.urdf file or one of \['xarm6_pusher'\], found 'nowhere'",
        ),
        (("kinematics", "urdf", str(CONTRACT)), r"urdf: expected a robot description, found"),
        (("kinematics", "speed", [1.0]), r"kinematics: speed: expected 6 numbers above 0, found \[1\.0\]"),
        (("kinematics", "wrist", 1), r"kinematics: expected the keys .*found \['wrist'\]"),
        (
            ("observations", STATE, "type", "geometry_msgs/msg/PoseStamped"),
            r"observation\.state: type: expected sensor_",
        ),
        (
            ("observations", STATE, "fields", ["joint1", "joint2"]),
            r"observation\.state: fields: expected some of \['x'",
        ),
        (("observations", STATE, "fields", ["y", "x"]), r"action: fields: expected those of observation\.state"),
        (
            ("action", "constants", {"z": 0.01}),
            r"constants: expected what fields leave of a pose, found none for \['qx'",
        ),
    ],
)
def test_contracts_with_a_mistake_are_refused(tmp_path: Path, change: tuple, message: str) -> None:
    with pytest.raises(InputError, match=rf"robot\.yaml: .*(?:{message})"):
        load_contract(changed(tmp_path, *change))


def test_the_tip_is_computed_from_joint_messages(tmp_path: Path) -> None:
    contract = load_contract(CONTRACT)
    stream, joints = contract.stream(STATE), start()
    names, position = ["finger", *JOINTS[::-1]], [0.5, *joints[::-1]]
    state = Message(name=names, position=position)
    np.testing.assert_allclose(decode(state, stream), [0.45, 0.0], atol=1e-5)
    assert away_from_constants(state, contract.command.outputs[0]) == ""
    state.position[5] += 0.2  # joint2: lower, and tilted
    assert "z: expected 0.01, found" in away_from_constants(state, contract.command.outputs[0])
    with pytest.raises(InputError, match=r"/joint_states: expected the joints \['joint6'\]"):
        decode(Message(name=JOINTS[:5], position=joints[:5]), stream)
    trajectory = Message(joint_names=names, points=[Message(positions=[0.5, *joints[::-1]])])
    np.testing.assert_allclose(decode_command(trajectory, contract.command.outputs[0]), [0.45, 0.0], atol=1e-5)
    array = load_contract(changed(tmp_path, "action", "type", ARRAY)).command.outputs[0]
    np.testing.assert_allclose(decode_command(Message(data=joints), array), [0.45, 0.0], atol=1e-5)
    with pytest.raises(InputError, match="expected 6 numbers, found 2"):
        decode_command(Message(data=joints[:2]), array)


def test_a_controller_of_twists_needs_no_other_word_of_where_the_tip_is(tmp_path: Path) -> None:
    data = yaml.safe_load(CONTRACT.read_text())
    data["action"] |= {"topic": "/servo_node/delta_twist_cmds", "type": TWIST}
    del data["action"]["constants"]
    (tmp_path / "servo.yaml").write_text(yaml.safe_dump(data))
    contract, state = load_contract(tmp_path / "servo.yaml"), Message(name=JOINTS, position=start())
    assert contract.command.ik_output is None
    np.testing.assert_allclose(decode(state, contract.stream(STATE)), [0.45, 0.0], atol=1e-5)
    assert away_from_constants(state, contract.command.outputs[0]) == ""


def test_one_checkpoint_serves_poses_and_joints() -> None:
    interfaces = [load_contract(ROOT / "config" / f"{name}.yaml").interface for name in ("pusht_sim", "xarm6_joints")]
    assert interfaces[0].digest() == interfaces[1].digest()


def test_the_robot_description_is_the_simulated_arm(tmp_path: Path) -> None:
    config = PushTConfig()
    write_urdf(tmp_path / "arm.urdf", config.arm.stick_length, config.colours, "base_link")
    texts = [ElementTree.canonicalize(from_file=path, strip_text=True) for path in (tmp_path / "arm.urdf", URDF)]
    written, shipped = ([float(number) for number in NUMBER.findall(text)] for text in texts)
    assert NUMBER.sub("", texts[0]) == NUMBER.sub("", texts[1])
    np.testing.assert_allclose(written, shipped, atol=1e-9)  # other processors round their last digits differently
