"""Bags written, cut off, read again and turned into episodes."""

from __future__ import annotations

import json
import resource
import shutil
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.commands import error_of
from helpers.ros_bags import PUSHT, SAME, cut, type_store, write_pusht_bag

from vla_policy.cli.dataset import main as vla_dataset
from vla_policy.data import LeRobotDataset
from vla_policy.importers.bag_episode import BagEpisode, bag_episode
from vla_policy.interfaces import ACTION, IMAGES, STATE, InputError
from vla_policy.robot.bag_writer import BagThread, BagWriter
from vla_policy.robot.bags import bag_digest, find_bags, name_result, read_bag
from vla_policy.robot.contract import load_contract
from vla_policy.utils.recordings import read_recordings

TOP = IMAGES + "top"
BOOL, TRUE = "std_msgs/msg/Bool", b"\0\1\0\0\1"


def pictures(episode: BagEpisode) -> np.ndarray:
    """(T, H, W, 3)."""
    return np.stack(list(episode.images[TOP]))


def test_frames_lie_where_the_pictures_do_and_actions_are_the_last_commands(tmp_path: Path) -> None:
    bag = write_pusht_bag(tmp_path / "a.mcap", frames=20)
    episode = bag_episode(bag, PUSHT)
    assert (episode.length, episode.task, episode.result) == (20, "push it", "success")
    np.testing.assert_array_equal(pictures(episode)[:, 0, 0, 0], np.arange(20))
    np.testing.assert_allclose(episode.columns[STATE][:, 0], 0.3 + 0.01 * np.arange(20), atol=1e-6)
    # Commands come at 50 Hz and reach the frame's action with the last one before the next frame.
    np.testing.assert_allclose(episode.columns[ACTION][:, 0], 0.31 + 0.01 * np.arange(20), atol=1e-6)
    assert episode.repeated == {}
    assert episode.refused == {}


def test_lost_pictures_are_repeated_and_reported_and_a_long_gap_is_refused(tmp_path: Path) -> None:
    bag = write_pusht_bag(tmp_path / "a.mcap", frames=20, lost={5, 6})
    episode = bag_episode(bag, PUSHT)
    assert episode.repeated == {TOP: 2}
    np.testing.assert_array_equal(pictures(episode)[4:8, 0, 0, 0], [4, 4, 4, 7])
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
    np.testing.assert_array_equal(pictures(mine), pictures(theirs))
    np.testing.assert_allclose(mine.columns[ACTION], theirs.columns[ACTION])
    assert theirs.task == PUSHT.task
    assert [bag.path for bag in find_bags(tmp_path)] == [ours, tmp_path / "theirs"]
    known = bag_digest(tmp_path / "theirs")
    assert bag_digest((tmp_path / "theirs").rename(tmp_path / "elsewhere")) == known


def test_import_bag_is_resumed_and_leaves_failures_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bags, out = tmp_path / "bags", tmp_path / "dataset"
    write_pusht_bag(bags / "episode_000000.mcap", frames=12)
    write_pusht_bag(bags / "episode_000001.mcap", frames=12, result="failure")
    vla_dataset(["import-bag", str(bags), str(out)])
    write_pusht_bag(bags / "episode_000002.mcap", frames=14, hands={2: True, 4: False})
    vla_dataset(["import-bag", str(bags), str(out)])
    said = capsys.readouterr().out
    assert "left out, a failure" in said
    assert "episode 1, 14 frames, success, nothing dropped, 1 interventions" in said.replace("\n", " ")
    dataset = LeRobotDataset(out)
    assert dataset.lengths.tolist() == [12, 14]
    assert dataset.interface.differences(load_contract(SAME).interface) == []
    about = json.loads((out / "recordings.json").read_text())
    assert [entry["interventions"] for entry in about] == [[], [[2, 4]]]


def test_bags_are_known_wherever_they_lie(tmp_path: Path) -> None:
    bags, moved, out = tmp_path / "bags", tmp_path / "moved", tmp_path / "dataset"
    write_pusht_bag(bags / "episode_000000.mcap", frames=12)
    vla_dataset(["import-bag", str(bags), str(out)])
    bags.rename(moved)
    write_pusht_bag(moved / "episode_000001.mcap", frames=13)
    shutil.copy(moved / "episode_000001.mcap", moved / "copy.mcap")
    vla_dataset(["import-bag", str(moved), str(out)])
    assert LeRobotDataset(out).lengths.tolist() == [12, 13]
    write_pusht_bag(bags / "episode_000000.mcap", frames=14)  # where another one lay
    vla_dataset(["import-bag", str(bags), str(out)])
    assert LeRobotDataset(out).lengths.tolist() == [12, 13, 14]


def test_recordings_without_digests_are_known_by_their_places(tmp_path: Path) -> None:
    bags, out = tmp_path / "bags", tmp_path / "dataset"
    write_pusht_bag(bags / "a.mcap", frames=12)
    vla_dataset(["import-bag", str(bags), str(out)])
    (entry,) = read_recordings(out)
    del entry["digest"]
    (out / "recordings.json").write_text(json.dumps([entry]))
    write_pusht_bag(bags / "b.mcap", frames=14)
    vla_dataset(["import-bag", str(bags), str(out)])
    assert LeRobotDataset(out).lengths.tolist() == [12, 14]
    assert ["digest" in about for about in read_recordings(out)] == [False, True]


@pytest.mark.parametrize(
    "text", ["{}", '[{"episode": "0"}]', "[3]", "[" * 100_000, '[{"episode": 0, "bag": "a", "digest": []}]']
)
def test_recordings_that_were_edited_are_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "recordings.json").write_text(text)
    with pytest.raises(InputError, match=r"recordings\.json: expected (a list of entries with episode|JSON)"):
        read_recordings(tmp_path)


def test_a_digest_is_of_what_a_bag_holds(tmp_path: Path) -> None:
    bag = write_pusht_bag(tmp_path / "a.mcap", frames=12)
    digest = bag_digest(bag)
    assert bag_digest(bag.rename(tmp_path / "b.mcap")) == digest
    others = [write_pusht_bag(tmp_path / "failure.mcap", frames=12, result="failure")]
    others += [write_pusht_bag(tmp_path / "longer.mcap", frames=13), cut(tmp_path / "b.mcap", 0.6, tmp_path / "c.mcap")]
    assert len({digest, *map(bag_digest, others)}) == 4
    with pytest.raises(InputError, match=r"none\.mcap: expected a bag that can be read, found No such file"):
        bag_digest(tmp_path / "none.mcap")


def test_a_bad_bag_is_named_and_the_others_are_imported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bags, out = tmp_path / "bags", tmp_path / "dataset"
    good = write_pusht_bag(bags / "a.mcap", frames=12)
    (bags / "b.mcap").touch()
    write_pusht_bag(bags / "c.mcap", frames=12, camera="camera/other")
    (bags / "d.mcap").write_bytes(good.read_bytes().replace(b"\0\0\0base_link", b"\xff\xff\xffbase_link"))
    (bags / "e").mkdir()
    (bags / "e" / "metadata.yaml").write_text("of another: program")
    spoilt = bytearray(write_pusht_bag(tmp_path / "whole.mcap", frames=13).read_bytes())
    spoilt[len(spoilt) // 2 : len(spoilt) // 2 + 50_000] = b"\xff" * 50_000
    (bags / "f.mcap").write_bytes(spoilt)
    write_pusht_bag(bags / "g.mcap", frames=14)
    with pytest.raises(SystemExit) as left:
        vla_dataset(["import-bag", str(bags), str(out)])
    assert left.value.code == 1
    *said, last = capsys.readouterr().out.strip().splitlines()
    assert last == f"2 episodes, 26 frames in {out}; 5 of 7 bags left out: b.mcap, c.mcap, d.mcap, e, f.mcap"
    assert f"{bags}/b.mcap: left out: expected an MCAP file with messages, found EndOfFile" in said
    assert f"{bags}/f.mcap: left out: expected a whole bag, found a broken one" in "\n".join(said)
    assert LeRobotDataset(out).lengths.tolist() == [12, 14]
    assert [Path(entry["bag"]).name for entry in json.loads((out / "recordings.json").read_text())] == [
        "a.mcap",
        "g.mcap",
    ]


def test_a_bag_without_its_end_is_reported_and_may_have_its_result_in_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = write_pusht_bag(tmp_path / "whole.mcap", frames=20)
    bags, out = tmp_path / "bags", tmp_path / "dataset"
    bags.mkdir()
    for result in ("success", "failure"):
        cut(whole, 0.6, name_result(bags / f"{result[0]}.mcap", result))
    vla_dataset(["import-bag", str(bags), str(out)])
    said = capsys.readouterr().out
    assert f"{bags}/f.failure.mcap: left out, a failure" in said
    assert "frames, success, the end of the bag is missing" in said
    entry = json.loads((out / "recordings.json").read_text())[0]
    assert (entry["result"], entry["ended"]) == ("success", False)


def test_a_disk_that_fills_up_during_the_import_is_one_line_and_the_dataset_whole(tmp_path: Path) -> None:
    """The limit of a process on its files stands in for the disk."""
    bags, out = tmp_path / "bags", tmp_path / "dataset"
    write_pusht_bag(bags / "a.mcap", frames=12)
    words = ["import-bag", str(bags), str(out)]
    vla_dataset(words)
    write_pusht_bag(bags / "b.mcap", frames=14)

    def full() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))

    command = [sys.executable, "-m", "vla_policy.cli.dataset", *words]
    failed = subprocess.run(command, capture_output=True, text=True, preexec_fn=full)
    assert failed.returncode == 1
    assert failed.stderr.startswith(f"error: {out}: expected to be able to write, found ")
    assert LeRobotDataset(out).lengths.tolist() == [12]
    vla_dataset(words)
    assert LeRobotDataset(out).lengths.tolist() == [12, 14]


def test_a_slow_disk_drops_messages_by_count_and_never_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written, disk = BagWriter.write, threading.Event()

    def slow(self: BagWriter, *message: Any) -> None:
        disk.wait()
        written(self, *message)

    monkeypatch.setattr(BagWriter, "write", slow)
    bag = BagThread(BagWriter(tmp_path / "a.mcap"), room=10 * len(TRUE))
    for k in range(15):
        bag.put("few" if k < 5 else "many", BOOL, float(k), TRUE)
    assert bag.dropped == {"many": 5}
    assert bag.waiting == 10 * len(TRUE)
    disk.set()
    bag.stop().close()
    assert bag.waiting == 0
    assert [(m.topic, m.t) for m in read_bag(tmp_path / "a.mcap", ["few", "many"])] == [
        ("few" if k < 5 else "many", float(k)) for k in range(10)
    ]


def test_any_failure_of_the_writer_is_its_error(tmp_path: Path) -> None:
    bag = BagThread(BagWriter(tmp_path / "a.mcap"))
    bag.put("few", BOOL, 1.0, TRUE)
    bag.put("few", BOOL, -1.0, TRUE)  # MCAP knows no times before 1970
    with pytest.raises(struct.error):
        bag.stop()
    assert isinstance(bag.error, struct.error)
    assert [message.t for message in read_bag(tmp_path / "a.mcap", ["few"])] == [1.0]
    bag.put("few", BOOL, 2.0, TRUE)
    assert bag.dropped == {"few": 1}


def test_what_is_put_is_on_the_disk_within_a_second(tmp_path: Path) -> None:
    bag = BagThread(BagWriter(tmp_path / "a.mcap"))
    bag.put("few", BOOL, 1.0, TRUE)
    end = time.monotonic() + 1.0
    while time.monotonic() < end and not (tmp_path / "a.mcap").read_bytes().endswith(TRUE):
        time.sleep(0.02)
    assert [message.t for message in read_bag(tmp_path / "a.mcap", ["few"])] == [1.0]
    bag.stop().close()


def test_import_bag_without_bags_is_one_line(tmp_path: Path) -> None:
    error = error_of(vla_dataset, "import-bag", tmp_path, tmp_path / "out")
    assert "expected a bag, or a folder of bags, found none" in error
