"""Robot contracts, and what messages say under them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace as Message
from typing import Any

import numpy as np
import pytest
import yaml

from sim.interface import pusht_interface
from vla_policy.cli import sim
from vla_policy.interfaces import IMAGES, STATE, Feature, InputError, Interface
from vla_policy.models import DiffusionPolicy
from vla_policy.robot.contract import IMAGE, JOINT_STATE, POSE, TWIST, ImageRegion, Source, Stream, load_contract
from vla_policy.robot.messages import decode, require_frame

ROOT = Path(__file__).parents[2]


def test_simulated_and_real_arm_serve_the_shipped_checkpoint_and_another_robot_does_not() -> None:
    policy = DiffusionPolicy.from_pretrained(ROOT / "checkpoints" / "pusht_image")
    for name in ("pusht_sim", "xarm6"):
        load_contract(ROOT / "config" / f"{name}.yaml").require(policy.interface, "the checkpoint")
    with pytest.raises(InputError, match=r"so101 do not fit.*images\.top: missing.*fps: expected 10, found 30"):
        load_contract(ROOT / "config" / "so101.yaml").require(policy.interface, "the checkpoint")


def test_the_simulation_provides_what_its_contract_declares() -> None:
    contract = load_contract(ROOT / "config" / "pusht_sim.yaml")
    provided: Interface = pusht_interface({"top": 96})
    assert contract.interface.differences(provided) == []


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("fps",), 0, "fps: expected a number above 0, found 0"),
        (("action", "type"), "std_msgs/msg/String", r"action: type: expected one of .*found 'std_msgs/msg/String'"),
        (("action", "low"), [0.7, -0.2], "low < high"),
        (("action", "speed"), [1.5], r"action: speed: expected 2 finite numbers, found \[1.5\]"),
        (("action", "following_error"), [0.1, -1], "following_error > 0"),
        (("action", "fields"), ["x", "x"], "fields: expected 2 different ones"),
        (("action", "fields"), ["x", "yaw"], r"fields: expected some of .*found \['x', 'yaw'\]"),
        (("action", "fields"), ["y", "x"], r"fields: expected those of observation.state \['x', 'y'\], found"),
        (("action", "units"), ["mm", "mm"], r"observation\.state: expected the action's channels .*'mm'"),
        (("observations", STATE, "type"), "sensor_msgs/msg/Imu", r"observation\.state: type: expected one of"),
        (("observations", IMAGES + "top", "shape"), [96, 96], r"image feature shape: expected \(height"),
        (("action", "constants", "z"), float("nan"), "action: constants: z: expected a finite number, found nan"),
        (("action", "constants", "z"), "low", "action: constants: z: expected a finite number, found 'low'"),
        (("action", "constants", "qx"), 0.0, "action: constants: .*quaternion of length 1, found .*0.0, 0.0, 0.0, 0.0"),
        (("action", "constants", "qw"), 1.0, "action: constants: .*quaternion of length 1, found .*1.0, 0.0, 0.0, 1.0"),
        (("timeouts", "policy"), -1, "timeouts: policy: expected a number above 0, found -1"),
        (("timeouts", "state"), 30, "timeouts: state: expected 0 to 2, found 30"),
        (("action", "rate"), 5, "action: rate: expected 20 to 1000, found 5"),
        (("timeouts", "patience"), 1, r"timeouts: expected the keys .*found \['patience'\]"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, path: tuple[str, ...], value: Any, message: str) -> None:
    place = data = shipped("pusht_sim")
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    refused(tmp_path, data, message)


def shipped(name: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / "config" / f"{name}.yaml").read_text())


def refused(folder: Path, data: dict[str, Any], message: str) -> None:
    """A file of this content is refused, by its name."""
    file = folder / "robot.yaml"
    file.write_text(yaml.safe_dump(data))
    with pytest.raises(InputError, match=rf"robot\.yaml: .*{message}"):
        load_contract(file)


def test_a_pose_needs_a_constant_for_every_other_channel(tmp_path: Path) -> None:
    data = shipped("xarm6")
    del data["action"]["constants"]["z"]
    refused(tmp_path, data, r"constants: expected what fields leave of a pose, found none for \['z'\]")


def test_a_twist_has_linear_channels_only(tmp_path: Path) -> None:
    data = shipped("pusht_sim")
    data["action"] |= {"type": TWIST, "fields": ["x", "qz"]}
    del data["action"]["constants"]
    refused(tmp_path, data, r"action: fields: expected some of \['x', 'y', 'z'\], found \['x', 'qz'\]")


def test_an_array_is_in_the_order_of_the_names(tmp_path: Path) -> None:
    data = shipped("so101")
    data["action"]["fields"] = data["observations"][STATE]["fields"] = data["action"]["fields"][::-1]
    refused(tmp_path, data, r"action: fields: expected the names \['shoulder_pan', .*found \['gripper', ")


def test_poses_of_another_frame_are_refused() -> None:
    source = Source("pose", POSE, ("x", "y"), (0, 1))
    pose = Message(header=Message(frame_id="world"))
    require_frame(pose, source, "world")
    require_frame(pose, source, "")
    with pytest.raises(InputError, match="pose: frame_id: expected 'base', found 'world'"):
        require_frame(pose, source, "base")


def image_message(pixels: np.ndarray, encoding: str, padding: int = 0) -> Message:
    rows = np.pad(pixels.reshape(len(pixels), -1), ((0, 0), (0, padding)))
    return Message(
        height=len(pixels), width=pixels.shape[1], encoding=encoding, step=rows.shape[1], data=rows.tobytes()
    )


TOP = Stream(
    IMAGES + "top", Feature("image", (3, 4, 3)), (Source("camera", IMAGE, region=ImageRegion((3, 4), (0, 0, 3, 4))),)
)


def test_images_of_any_channel_order_and_padding_are_rgb() -> None:
    rgb = np.random.default_rng(0).integers(0, 255, (3, 4, 3), np.uint8)
    alpha = np.full((3, 4, 1), 9, np.uint8)
    for message in (
        image_message(rgb, "rgb8", padding=5),
        image_message(rgb[..., ::-1], "bgr8"),
        image_message(np.concatenate([rgb[..., ::-1], alpha], axis=2), "bgra8", padding=2),
    ):
        np.testing.assert_array_equal(decode(message, TOP), rgb)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoding": "16UC1"}, "camera: encoding: expected one of .*found '16UC1'"),
        ({"height": 6}, "expected 3 x 4 pixels, found 6 x 4"),
        ({"data": b"short"}, "expected 3 rows of 12 bytes or more, found 5 bytes"),
    ],
)
def test_images_that_do_not_fit_are_refused(change: dict, message: str) -> None:
    image = image_message(np.zeros((3, 4, 3), np.uint8), "rgb8")
    with pytest.raises(InputError, match=message):
        decode(Message(**{**vars(image), **change}), TOP)


def test_joints_are_taken_by_name_and_missing_ones_named() -> None:
    stream = Stream(STATE, Feature("float32", (2,)), (Source("joint_states", JOINT_STATE, ("elbow", "wrist"), (0, 1)),))
    np.testing.assert_allclose(
        decode(Message(name=["wrist", "hip", "elbow"], position=[0.1, 0.2, 0.3]), stream), [0.3, 0.1]
    )
    with pytest.raises(InputError, match=r"joint_states: expected the joints \['elbow'\], found \['hip', 'wrist'\]"):
        decode(Message(name=["wrist", "hip"], position=[0.1, 0.2]), stream)


def test_poses_give_the_chosen_fields() -> None:
    stream = Stream(STATE, Feature("float32", (3,)), (Source("pose", POSE, ("y", "x", "qw"), (0, 1, 2)),))
    pose = Message(position=Message(x=1.0, y=2.0, z=3.0), orientation=Message(x=0.0, y=0.0, z=0.0, w=1.0))
    np.testing.assert_allclose(decode(Message(pose=pose), stream), [2.0, 1.0, 1.0])


def test_what_moves_by_itself_is_for_the_simulated_arm_alone() -> None:
    simulated, real = (load_contract(ROOT / "config" / f"{name}.yaml") for name in ("pusht_sim", "xarm6"))
    simulated.require_simulated()
    outputs, streams = simulated.command.outputs, simulated.streams
    topics = {part.topic for part in (*outputs, *(source for stream in streams for source in stream.sources))}
    assert all(topic.startswith("/pusht_sim/") for topic in topics)
    with pytest.raises(InputError, match="xarm6: robot_type: expected the simulated 'pusht_sim', found 'xarm6_pusher'"):
        real.require_simulated()
    with pytest.raises(InputError, match="expected the simulated"):
        sim.run_episodes("nowhere", sim.GraphConfig(contract="xarm6"))


def test_a_simulated_graph_has_a_domain_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", "3")
    assert sim.graph_environment(sim.GraphConfig().domain_id)["ROS_DOMAIN_ID"] == "77"
    assert "ROS_DOMAIN_ID" not in sim.graph_environment(None)


def test_a_name_that_is_not_known_lists_the_contracts_of_every_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "share" / "vla_policy" / "config"
    installed.mkdir(parents=True)
    (installed / "installed_arm.yaml").touch()
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"one of \[.*'installed_arm', .*'xarm6'.*\], found 'nowhere'"):
        load_contract("nowhere")
