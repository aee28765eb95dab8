"""What is written comes back: vectors exactly, pictures within what 4:2:0 video can do, counts and statistics."""

import json

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers.bimanual import HEAD, TASK, WRIST, bimanual_episode, bimanual_interface, make_bimanual_dataset

from vla_policy.data import LeRobotDataset, LeRobotWriter
from vla_policy.interfaces import ACTION, ENVIRONMENT_STATE, STATE, Feature, Interface


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)))


@pytest.mark.parametrize(("codec", "least"), [("h264", 32.0), ("av1", 32.0)])
def test_vectors_return_exactly_and_pictures_closely(tmp_path, codec, least):
    rng = np.random.default_rng(1)
    given = [bimanual_episode(rng, length) for length in (31, 45)]
    with LeRobotWriter(tmp_path / "d", bimanual_interface(), codec=codec) as writer:
        assert [writer.add_episode(*episode, TASK) for episode in given] == [0, 1]
    dataset = LeRobotDataset(tmp_path / "d")
    assert (dataset.num_episodes, dataset.num_frames, list(dataset.lengths)) == (2, 76, [31, 45])
    assert dataset.interface == bimanual_interface()
    for index, (columns, images) in enumerate(given):
        episode = dataset.episode(index)
        assert episode.task == TASK
        for key, values in columns.items():
            assert np.array_equal(episode.columns[key], values)
        assert np.allclose(episode.columns["timestamp"], np.arange(len(values)) / 30, atol=1e-6)
        for key, frames in images.items():
            read = dataset.frames(index, key)
            assert read.dtype == np.uint8
            assert psnr(read, frames) > least
            flat = np.zeros_like(frames[0], bool)
            flat[40:, :] = True  # away from edges only the codec's own loss is left
            assert psnr(read[:, flat[..., 0]], frames[:, flat[..., 0]]) > 42


@pytest.mark.parametrize("codec", ["h264", "av1"])
def test_video_has_exact_times_close_key_frames_and_no_b_frames(tmp_path, codec):
    dataset = make_bimanual_dataset(tmp_path / "d", episodes=1, length=40, codec=codec)
    with av.open(str(dataset.records[0].videos[HEAD].path)) as container:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.pts is not None]
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert [packet.pts * packet.time_base * 30 for packet in packets] == list(range(40))
        assert all(packet.pts == packet.dts for packet in packets)
        assert all(packet.is_keyframe for packet in packets[::2])
    assert dataset.features[HEAD]["info"]["video.codec"] == codec


def test_any_shape_and_rate(tmp_path):
    one = Feature("float32", (1,))
    interface = Interface({STATE: one, ENVIRONMENT_STATE: Feature("float32", (7,))}, one, 50)
    columns = {key: np.random.default_rng(0).normal(size=(9, n)) for key, n in ((STATE, 1), (ENVIRONMENT_STATE, 7))}
    columns[ACTION] = columns[STATE] * 2
    with LeRobotWriter(tmp_path, interface) as writer:
        writer.add_episode(columns, {}, "wait")
    episode = LeRobotDataset(tmp_path).episode(0)
    for key, values in columns.items():
        assert np.array_equal(episode.columns[key], values.astype(np.float32))
    stored = pq.read_schema(tmp_path / "data/chunk-000/file-000.parquet")
    assert str(stored.field(STATE).type) == "float"
    assert str(stored.field(ENVIRONMENT_STATE).type).startswith("fixed_size_list")


def test_frames_may_come_from_a_generator(tmp_path):
    columns, images = bimanual_episode(np.random.default_rng(0), 12)
    with LeRobotWriter(tmp_path / "d", bimanual_interface()) as writer:
        writer.add_episode(columns, {key: (frame for frame in frames) for key, frames in images.items()}, TASK)
    assert len(LeRobotDataset(tmp_path / "d").frames(0, WRIST)) == 12


def test_writer_continues_a_dataset(tmp_path):
    make_bimanual_dataset(tmp_path / "two", episodes=2)
    rng = np.random.default_rng(5)
    with LeRobotWriter(tmp_path / "two", bimanual_interface(), robot_type="bimanual") as writer:
        assert writer.num_episodes == 2
        assert writer.add_episode(*bimanual_episode(rng, 20), "Another task.") == 2
    dataset = LeRobotDataset(tmp_path / "two")
    assert dataset.tasks == [TASK, "Another task."]
    assert dataset.episode(2).task == "Another task."
    assert np.array_equal(dataset.episode(2).columns["index"], np.arange(121, 141))
    assert dataset.info["splits"] == {"train": "0:3"}


def test_statistics_of_the_dataset_are_those_of_all_frames(bimanual_dataset):
    dataset = LeRobotDataset(bimanual_dataset)
    stats = json.loads((bimanual_dataset / "meta/stats.json").read_text())
    actions = np.concatenate([dataset.episode(i).columns[ACTION] for i in range(6)]).astype(float)
    for name, value in (
        ("min", actions.min(0)),
        ("max", actions.max(0)),
        ("mean", actions.mean(0)),
        ("std", actions.std(0)),
    ):
        assert np.allclose(stats[ACTION][name], value, atol=1e-9)
    assert stats[ACTION]["count"] == [len(actions)]
    assert set(stats[HEAD]) == {"min", "max", "mean", "std", "count", "q01", "q10", "q50", "q90", "q99"}
    rng = np.random.default_rng(0)
    frames = np.concatenate([bimanual_episode(rng, 60 + i)[1][HEAD] for i in range(6)]) / 255
    assert np.shape(stats[HEAD]["mean"]) == (3, 1, 1)
    assert np.allclose(np.ravel(stats[HEAD]["mean"]), frames.mean((0, 1, 2)))
    assert np.allclose(np.ravel(stats[HEAD]["std"]), frames.std((0, 1, 2)))
    assert np.allclose(np.ravel(stats[HEAD]["min"]), frames.min((0, 1, 2)))


def test_files_have_what_lerobot_reads(bimanual_dataset):
    rows = pq.read_table(bimanual_dataset / "meta/episodes/chunk-000/file-002.parquet").to_pylist()
    expected = {
        "episode_index": 2,
        "tasks": [TASK],
        "length": 62,
        "data/chunk_index": 0,
        "data/file_index": 2,
        "dataset_from_index": 121,
        "dataset_to_index": 183,
        f"videos/{HEAD}/chunk_index": 0,
        f"videos/{HEAD}/file_index": 2,
        f"videos/{HEAD}/from_timestamp": 0.0,
        f"videos/{HEAD}/to_timestamp": 62 / 30,
        "meta/episodes/chunk_index": 0,
        "meta/episodes/file_index": 2,
    }
    assert {key: rows[0][key] for key in expected} == expected
    tasks = pq.read_table(bimanual_dataset / "meta/tasks.parquet")
    assert json.loads(tasks.schema.metadata[b"pandas"])["index_columns"] == ["task"]
    data = pq.ParquetFile(bimanual_dataset / "data/chunk-000/file-000.parquet")
    assert data.num_row_groups == 1
    assert set(data.schema_arrow.names) == {
        STATE,
        ACTION,
        "timestamp",
        "frame_index",
        "episode_index",
        "index",
        "task_index",
    }
    info = json.loads((bimanual_dataset / "meta/info.json").read_text())
    assert (info["codebase_version"], info["fps"], info["total_episodes"], info["total_frames"]) == ("v3.0", 30, 6, 375)
    assert info["features"][STATE]["dtype"] == "float32"
    assert info["features"][HEAD] | {"info": None} == {
        "dtype": "video",
        "shape": [64, 80, 3],
        "names": ["height", "width", "channels"],
        "info": None,
    }
