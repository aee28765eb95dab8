"""LeRobotDataset v2.1, written here as its description says, not by the project."""

import json
from fractions import Fraction

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.plain_dataset import FRONT, write_plain_dataset

from vla_policy.data import LeRobotDataset, LeRobotWriter, WindowDataset
from vla_policy.data.editing import convert, delete
from vla_policy.data.writing.compact import compact
from vla_policy.interfaces import ACTION, IMAGES, STATE, InputError

CAMERA = IMAGES + "front"
LENGTHS = (20, 25, 30)


@pytest.fixture
def old(tmp_path):
    root = tmp_path / "old"
    features = {
        STATE: {"dtype": "float32", "shape": [3], "names": {"motors": ["a", "b", "c"]}},
        ACTION: {"dtype": "float64", "shape": [3], "names": ["a", "b", "c"]},
        CAMERA: {"dtype": "video", "shape": [3, 48, 64], "names": ["channels", "height", "width"]},
        "next.done": {"dtype": "bool", "shape": [1], "names": None},
    }
    integers = ("frame_index", "episode_index", "index", "task_index")
    features |= {key: {"dtype": "int64", "shape": [1], "names": None} for key in integers}
    features["timestamp"] = {"dtype": "float32", "shape": [1], "names": None}
    info = {
        "codebase_version": "v2.1",
        "robot_type": "arm",
        "total_episodes": 3,
        "total_frames": sum(LENGTHS),
        "total_tasks": 2,
        "total_videos": 3,
        "total_chunks": 2,
        "chunks_size": 2,
        "fps": 20,
        "splits": {"train": "0:3"},
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
        "features": features,
    }
    (root / "meta").mkdir(parents=True)
    (root / "meta/info.json").write_text(json.dumps(info))
    episodes = [{"episode_index": i, "tasks": [f"task {i % 2}"], "length": n} for i, n in enumerate(LENGTHS)]
    (root / "meta/episodes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in episodes))
    tasks = [{"task_index": i, "task": f"task {i}"} for i in range(2)]
    (root / "meta/tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in tasks))
    for i, length in enumerate(LENGTHS):
        write_episode(root, i, length, sum(LENGTHS[:i]))
    return root


def write_episode(root, i, length, start):
    chunk = f"chunk-{i // 2:03d}"
    t = np.arange(length)
    vectors = (np.arange(length * 3) + 100 * i).reshape(length, 3)
    table = {
        STATE: pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel(), pa.float32()), 3),
        ACTION: pa.array((vectors + 0.5).tolist(), pa.list_(pa.float64())),
        "next.done": pa.array(t == length - 1),
        "timestamp": pa.array(t / 20, pa.float32()),
        "frame_index": pa.array(t),
        "episode_index": pa.array(np.full(length, i)),
        "index": pa.array(start + t),
        "task_index": pa.array(np.full(length, i % 2)),
    }
    path = root / "data" / chunk / f"episode_{i:06d}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(table), path)
    video = root / "videos" / chunk / CAMERA / f"episode_{i:06d}.mp4"
    video.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(video), "w") as container:
        stream = container.add_stream("libx264", rate=20, options={"g": "2", "crf": "10", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for k in range(length):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 40 * i + 3 * k, np.uint8), format="rgb24")
            frame.pts, frame.time_base = k, Fraction(1, 20)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def test_reads_all_of_it(old):
    dataset = LeRobotDataset(old)
    assert (dataset.num_episodes, dataset.num_frames, dataset.fps) == (3, sum(LENGTHS), 20)
    assert dataset.interface.observations[STATE].names == ("a", "b", "c")
    assert dataset.interface.observations[CAMERA].shape == (48, 64, 3)
    for i, length in enumerate(LENGTHS):
        episode = dataset.episode(i)
        vectors = (np.arange(length * 3) + 100 * i).reshape(length, 3)
        assert episode.task == f"task {i % 2}"
        assert np.array_equal(episode.columns[STATE], vectors)
        assert np.array_equal(episode.columns[ACTION], vectors + 0.5)
        assert episode.columns["next.done"][-1]
        frames = dataset.frames(i, CAMERA)
        assert frames.shape == (length, 48, 64, 3)
        assert np.abs(frames[:, 0, 0, 0].astype(int) - (40 * i + 3 * np.arange(length))).max() <= 2


def test_windows_of_it(old):
    windows = WindowDataset(LeRobotDataset(old), [STATE, CAMERA], 2, 16, 7)
    batch = windows.__getitems__([0, len(windows) - 1])
    assert batch["task"] == ["task 0", "task 0"]
    assert batch[ACTION].dtype == batch[STATE].dtype
    assert len(windows) == sum(LENGTHS) - 3 * 7


def test_is_converted_without_encoding(old, tmp_path):
    stats = [{"episode_index": i, "stats": {CAMERA: camera_stats(0.1 * (i + 1))}} for i in range(3)]
    (old / "meta/episodes_stats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in stats))
    edited = convert(old, tmp_path / "new")
    assert (edited.episodes, edited.frames, edited.notes) == (3, sum(LENGTHS), [])
    before, after = LeRobotDataset(old), LeRobotDataset(tmp_path / "new")
    after.require_whole()
    assert after.info["codebase_version"] == "v3.0"
    assert after.features[CAMERA]["shape"] == [48, 64, 3]
    assert not {"total_videos", "total_chunks"} & after.info.keys()
    for i in range(3):
        one, two = before.episode(i), after.episode(i)
        assert one.tasks == two.tasks
        assert all(np.array_equal(one.columns[key], two.columns[key]) for key in one.columns)
        assert before.records[i].videos[CAMERA].path.read_bytes() == after.records[i].videos[CAMERA].path.read_bytes()
    (path,) = {record.data for record in after.records.values()}
    schema = pq.read_schema(path)
    assert str(schema.field(ACTION).type).startswith("fixed_size_list<element: double")
    assert pq.read_metadata(path).num_row_groups == 3
    found = json.loads((after.root / "meta/stats.json").read_text())
    mean = sum(0.1 * (i + 1) * length for i, length in enumerate(LENGTHS)) / sum(LENGTHS)
    assert np.allclose(found[CAMERA]["mean"], mean)
    assert found["next.done"]["max"] == [1.0]
    with pytest.raises(InputError, match=r"expected a v2\.1 dataset to convert, found v3\.0"):
        convert(after.root, tmp_path / "again")
    with pytest.raises(InputError, match=r"expected a v3\.0 dataset to edit, found v2\.1; vla-dataset convert"):
        delete(old, [0])


def camera_stats(mean):
    """As LeRobot writes them."""
    values = dict.fromkeys(("min", "max", "std"), [[[0.5]]] * 3) | {"mean": [[[mean]]] * 3}
    return values | {"count": [LENGTHS[round(mean * 10) - 1]]}


def test_pictures_in_data_files_are_converted(tmp_path):
    root = write_plain_dataset(tmp_path / "old", {0: 4, 2: 5}, declare_counters=False)
    convert(root, tmp_path / "new")
    before, after = LeRobotDataset(root), LeRobotDataset(tmp_path / "new")
    assert before.episodes == [0, 2]
    assert after.episodes == [0, 1]
    assert np.array_equal(before.frames(2, FRONT), after.frames(1, FRONT))
    stats = json.loads((after.root / "meta/stats.json").read_text())
    frames = np.concatenate([after.frames(i, FRONT) for i in range(2)]) / 255
    assert np.allclose(np.ravel(stats[FRONT]["mean"]), frames.mean((0, 1, 2)))
    assert after.info["video_path"] is None


def test_is_only_read(old):
    interface = LeRobotDataset(old).interface
    with pytest.raises(InputError, match=r"v3\.0 dataset to append to, found v2\.1"):
        LeRobotWriter(old, interface)
    with pytest.raises(InputError, match=r"v3\.0 dataset to compact, found v2\.1"):
        compact(old)


def test_mistakes_are_named(old):
    path = old / "meta/tasks.jsonl"
    path.write_text('{"task_index": 0}\n')
    with pytest.raises(InputError, match=r"tasks\.jsonl.*'task'"):
        LeRobotDataset(old)
    path.write_text("{no json\n")
    with pytest.raises(InputError, match=r"tasks\.jsonl, line 1"):
        LeRobotDataset(old)
    path.unlink()
    with pytest.raises(InputError, match=r"tasks\.jsonl"):
        LeRobotDataset(old)
