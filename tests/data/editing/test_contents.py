"""Edits of what an episode has: features, videos, statistics, and what others have written beside them."""

import json
import shutil
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pyarrow.parquet as pq
from helpers.bimanual import HEAD, TASK, WRIST
from helpers.edited import LENGTH, OTHER, assert_whole
from helpers.small_dataset import make_small_dataset

from vla_policy.data import LeRobotDataset, LeRobotWriter
from vla_policy.data.editing import (
    delete,
    drop,
    recompute_stats,
    reencode,
    rename,
    retask,
)
from vla_policy.interfaces import ACTION, EXECUTED, STATE


def test_rename_and_drop(dataset: LeRobotDataset, tmp_path: Path) -> None:
    front = "observation.images.front"
    rename(dataset.root, {HEAD: front, STATE: "observation.joints"}, out=tmp_path / "renamed")
    new = assert_whole(tmp_path / "renamed")
    assert set(new.interface.observations) == {front, WRIST, "observation.joints"}
    assert new.interface.observations["observation.joints"] == dataset.interface.observations[STATE]  # with units
    assert np.array_equal(new.frames(2, front), dataset.frames(2, HEAD))
    assert np.array_equal(new.episode(2).columns["observation.joints"], dataset.episode(2).columns[STATE])
    drop(new.root, [front])
    new = assert_whole(new.root)
    assert new.interface.cameras == [WRIST]
    assert not (new.root / "videos" / front).exists()
    assert np.array_equal(new.frames(5, WRIST), dataset.frames(5, WRIST))
    drop(new.root, [WRIST])
    assert assert_whole(new.root).info["video_path"] is None


def test_what_was_executed_can_become_the_action(tmp_path: Path) -> None:
    both = make_small_dataset(tmp_path / "plain", cameras=(), episodes=2)
    with LeRobotWriter(tmp_path / "both", both.interface, executed=True) as writer:
        for index in both.episodes:
            columns = {key: both.episode(index).columns[key] for key in (STATE, ACTION)}
            writer.add_episode(columns | {EXECUTED: columns[ACTION] + 1}, {}, "push")
    rename(tmp_path / "both", {ACTION: EXECUTED, EXECUTED: ACTION}, out=tmp_path / "swapped")
    new = LeRobotDataset(tmp_path / "swapped")
    assert np.array_equal(new.episode(1).columns[ACTION], both.episode(1).columns[ACTION] + 1)
    assert new.interface == both.interface
    drop(new.root, [EXECUTED])
    assert np.array_equal(LeRobotDataset(new.root).episode(1).executed, both.episode(1).columns[ACTION] + 1)


def test_reencode_keeps_the_pictures_closely(dataset: LeRobotDataset, tmp_path: Path) -> None:
    edited = reencode(dataset.root, "av1", out=tmp_path / "av1")
    new = assert_whole(edited.root)
    assert {new.features[key]["info"]["video.codec"] for key in (HEAD, WRIST)} == {"av1"}
    for path in new.root.rglob("*.mp4"):
        with av.open(str(path)) as container:
            assert container.streams.video[0].codec_context.name in ("av1", "libdav1d")
            assert all(packet.is_keyframe for packet in [p for p in container.demux(video=0) if p.pts is not None][::2])
    difference = np.abs(new.frames(3, HEAD).astype(int) - dataset.frames(3, HEAD))
    assert 0 < difference.mean() < 4
    assert delete(new.root, [1], out=tmp_path / "cut").notes == []
    assert np.array_equal(LeRobotDataset(tmp_path / "cut").frames(1, HEAD), new.frames(2, HEAD))


def test_statistics_are_computed_from_what_is_there(dataset: LeRobotDataset) -> None:
    path = dataset.root / "meta/stats.json"
    right = json.loads(path.read_text())
    for meta in {record.meta for record in dataset.records.values()}:
        table = pq.read_table(meta)
        for name in (f"stats/{ACTION}/max", f"stats/{HEAD}/mean"):
            table = table.set_column(
                table.column_names.index(name), name, table[name.replace("max", "min").replace("mean", "std")]
            )
        pq.write_table(table, meta)
    path.write_text("{}")
    recompute_stats(dataset.root)
    found = json.loads(path.read_text())
    assert np.allclose(found[ACTION]["max"], right[ACTION]["max"])
    assert np.allclose(found[HEAD]["mean"], right[HEAD]["mean"], atol=0.02)  # of decoded frames, after the codec
    assert_whole(dataset.root)


def test_columns_and_records_of_others_are_carried_along(separate: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(separate, tmp_path / "d"))
    for index, record in LeRobotDataset(root).records.items():
        meta, data = pq.read_table(record.meta), pq.read_table(record.data)
        pq.write_table(meta.append_column("operator", [[f"person {index}"]]), record.meta)
        pq.write_table(data.append_column("note", [[f"{index}, {k}" for k in range(len(data))]]), record.data)
    info = json.loads((root / "meta/info.json").read_text())
    sentences = pq.read_table(root / "meta/tasks.parquet")
    pq.write_table(sentences.append_column("rating", [[4, 5]]), root / "meta/tasks.parquet")
    info |= {"licence": "mine", "splits": {"train": "0:4", "val": "4:6"}}
    info["features"]["note"] = {"dtype": "string", "shape": [1], "names": None}
    (root / "meta/info.json").write_text(json.dumps(info))
    delete(root, [2])
    new = LeRobotDataset(root)
    assert new.info["licence"] == "mine"
    assert new.info["splits"] == {"train": "0:3", "val": "3:5"}
    rows = pq.read_table(new.records[2].meta).to_pylist()
    assert [row["operator"] for row in rows] == [f"person {i}" for i in (0, 1, 3, 4, 5)]
    notes = pq.read_table(new.records[2].data)
    assert notes["note"].to_pylist()[LENGTH + LENGTH + 1] == "3, 0"
    retask(root, "fold it", old=TASK)
    ratings = pq.read_table(root / "meta/tasks.parquet").to_pylist()
    assert [(row["task"], row["rating"]) for row in ratings] == [("fold it", None), (OTHER, 5)]
    drop(root, ["note"])
    assert "note" not in pq.read_table(LeRobotDataset(root).records[2].data).column_names


def longer_groups(root: Path, key: str) -> None:
    """Encode a camera's shared video anew, with a key frame every 50 frames."""
    (path,) = (root / "videos" / key).rglob("*.mp4")
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            "libx264", rate=30, options={"g": "50", "bf": "0", "crf": "10", "sc_threshold": "0"}
        )
        stream.width, stream.height, stream.pix_fmt = frames[0].width, frames[0].height, "yuv420p"
        for number, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame.to_ndarray(format="rgb24"), format="rgb24")
            picture.pts, picture.time_base = number, Fraction(1, 30)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


def test_a_video_without_key_frames_there_is_encoded_anew_and_that_is_said(shared: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(shared, tmp_path / "d"))
    longer_groups(root, HEAD)
    before = LeRobotDataset(root)
    shown = [before.frames(i, HEAD) for i in range(6)]
    (note,) = delete(root, [0], out=tmp_path / "new").notes
    assert "file-006.mp4: the frames of episodes 1 to 5 are encoded anew, because of: no key frame at 0.2667 s" in note
    assert HEAD in note
    new = assert_whole(tmp_path / "new")
    assert np.abs(new.frames(1, HEAD).astype(int) - shown[2]).mean() < 4
    assert np.array_equal(new.frames(1, WRIST), before.frames(2, WRIST))
    assert delete(root, [5], out=tmp_path / "head").notes == []  # what lies before needs none
    assert np.array_equal(LeRobotDataset(tmp_path / "head").frames(4, HEAD), shown[4])
