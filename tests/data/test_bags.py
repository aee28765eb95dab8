"""Bags written, cut off, read again and turned into episodes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.ros_bags import PUSHT, SAME, cut, type_store, write_pusht_bag

from vla_policy.bags import read_bag
from vla_policy.cli.dataset import main as vla_dataset
from vla_policy.contract import load_contract
from vla_policy.data import LeRobotDataset
from vla_policy.data.bag_import import bag_episode, find_bags
from vla_policy.interfaces import ACTION, IMAGES, STATE, InputError

TOP = IMAGES + "top"


def test_frames_lie_where_the_pictures_do_and_actions_are_the_last_commands(tmp_path: Path) -> None:
    bag = write_pusht_bag(tmp_path / "a.mcap", frames=20)
    episode = bag_episode(bag, PUSHT)
    assert (episode.length, episode.task, episode.result) == (20, "push it", "success")
    np.testing.assert_array_equal(episode.images[TOP][:, 0, 0, 0], np.arange(20))
    np.testing.assert_allclose(episode.columns[STATE][:, 0], 0.3 + 0.01 * np.arange(20), atol=1e-6)
    # Commands come at 50 Hz and reach the frame's action with the last one before the next frame.
    np.testing.assert_allclose(episode.columns[ACTION][:, 0], 0.31 + 0.01 * np.arange(20), atol=1e-6)
    assert episode.repeated == {}
    assert episode.refused == {}


def test_lost_pictures_are_repeated_and_reported_and_a_long_gap_is_refused(tmp_path: Path) -> None:
    bag = write_pusht_bag(tmp_path / "a.mcap", frames=20, lost={5, 6})
    episode = bag_episode(bag, PUSHT)
    assert episode.repeated == {TOP: 2}
    np.testing.assert_array_equal(episode.images[TOP][4:8, 0, 0, 0], [4, 4, 4, 7])
    bag = write_pusht_bag(tmp_path / "b.mcap", frames=20, lost=set(range(5, 12)))
    with pytest.raises(
        InputError, match=r"/pusht_sim/camera/image_raw: expected no gap above 0\.5 s, found one of 0\.70 s"
    ):
        bag_episode(bag, PUSHT)


def test_interventions_are_spans_of_frames(tmp_path: Path) -> None:
    bag = write_pusht_bag(tmp_path / "a.mcap", frames=20, hands={3: True, 8: False, 15: True})
    assert bag_episode(bag, PUSHT).interventions == [(3, 8), (15, 20)]


def test_a_bag_that_lost_its_end_is_read_up_to_there(tmp_path: Path) -> None:
    whole = write_pusht_bag(tmp_path / "a.mcap", frames=20)
    part = cut(whole, 0.6, tmp_path / "b.mcap")
    assert 10 <= bag_episode(part, PUSHT).length <= 13
    with pytest.raises(InputError, match="expected an MCAP file with messages"):
        list(read_bag(cut(whole, 0.0001, tmp_path / "c.mcap"), ["task"]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"camera": "camera/other"}, r"expected sensor_msgs/msg/Image on /pusht_sim/camera/image_raw, found only \["),
        ({"encoding": "16UC1"}, "encoding: expected one of"),
        ({"executed": "unheard/of"}, "expected commands on command/executed or of type geometry_msgs/msg/PoseStamped"),
        ({"names": ["x", "z"]}, r"command/executed: expected the channels \['x', 'y'\], found \['x', 'z'\]"),
        ({"frames": 1}, "expected 2 frames or more seen by every stream, found 1"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    bag = write_pusht_bag(tmp_path / "a.mcap", **{"frames": 5, **changes})
    with pytest.raises(InputError, match=message):
        bag_episode(bag, PUSHT)


def test_other_peoples_bags_of_commands_in_the_contracts_type(tmp_path: Path) -> None:
    """A sqlite3 bag with a slash before its topics and no node of ours."""
    from rosbags.rosbag2 import StoragePlugin, Writer

    ours, store = write_pusht_bag(tmp_path / "a.mcap", frames=12), type_store()
    pose = store.types["geometry_msgs/msg/PoseStamped"]
    with Writer(tmp_path / "theirs", version=9, storage_plugin=StoragePlugin.SQLITE3) as writer:
        connections: dict[str, Any] = {}
        for topic, kind, t, message in read_bag(
            ours, ["pusht_sim/camera/image_raw", "pusht_sim/ee_pose", "command/executed"]
        ):
            if topic == "command/executed":
                x, y = message.position
                orientation = store.types["geometry_msgs/msg/Quaternion"](0.0, 0.0, 0.0, 1.0)
                place = store.types["geometry_msgs/msg/Pose"](
                    store.types["geometry_msgs/msg/Point"](x, y, 0.0), orientation
                )
                topic, kind, message = (
                    "pusht_sim/target_pose",
                    "geometry_msgs/msg/PoseStamped",
                    pose(message.header, place),
                )
            if topic not in connections:
                connections[topic] = writer.add_connection(f"/{topic}", kind, typestore=store)
            writer.write(connections[topic], round(t * 1e9), store.serialize_cdr(message, kind))
    mine, theirs = bag_episode(ours, PUSHT), bag_episode(tmp_path / "theirs", PUSHT)
    np.testing.assert_array_equal(mine.images[TOP], theirs.images[TOP])
    np.testing.assert_allclose(mine.columns[ACTION], theirs.columns[ACTION])
    assert theirs.task == PUSHT.task
    assert find_bags(tmp_path) == [ours, tmp_path / "theirs"]


def test_import_bag_is_resumed_and_leaves_failures_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bags, out = tmp_path / "bags", tmp_path / "dataset"
    write_pusht_bag(bags / "episode_000000.mcap", frames=12)
    write_pusht_bag(bags / "episode_000001.mcap", frames=12, result="failure")
    vla_dataset(["import-bag", str(bags), str(out)])
    write_pusht_bag(bags / "episode_000002.mcap", frames=14, hands={2: True, 4: False})
    vla_dataset(["import-bag", str(bags), str(out)])
    said = capsys.readouterr().out
    assert "left out, a failure" in said
    assert "episode 1, 14 frames, success, 1 interventions" in said.replace("\n", " ")
    dataset = LeRobotDataset(out)
    assert dataset.lengths.tolist() == [12, 14]
    assert dataset.interface.differences(load_contract(SAME).interface) == []
    about = json.loads((out / "recordings.json").read_text())
    assert [entry["interventions"] for entry in about] == [[], [[2, 4]]]


def test_import_bag_without_bags_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        vla_dataset(["import-bag", str(tmp_path), str(tmp_path / "out")])
    assert "expected a bag, or a folder of bags, found none" in capsys.readouterr().err
