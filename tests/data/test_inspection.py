"""What `vla-dataset info` finds wrong, by episode and key."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.bimanual import HEAD, TASK, WRIST, bimanual_episode, bimanual_interface, make_bimanual_dataset

from vla_policy.data import LeRobotDataset, LeRobotWriter
from vla_policy.data.inspection import inspect
from vla_policy.data.quality import camera_findings
from vla_policy.interfaces import ACTION, STATE


def texts(root, **options):
    return [warning["text"] for warning in inspect(LeRobotDataset(root, strict=False), **options)["warnings"]]


def test_a_good_dataset_has_no_warnings(bimanual_dataset):
    about = inspect(LeRobotDataset(bimanual_dataset))
    assert about["warnings"] == []
    assert (about["episodes"], about["frames"], about["fps"], about["tasks"]) == (6, 375, 30, [TASK])
    assert about["lengths"] == {"min": 60, "max": 65}
    dataset = LeRobotDataset(bimanual_dataset)
    actions = np.concatenate([dataset.episode(i).columns[ACTION] for i in range(6)])
    assert np.allclose(about["features"][ACTION]["max"], actions.max(0))
    assert about["features"][STATE]["units"] == ["rad"] * 14
    assert about["features"][HEAD]["shape"] == [64, 80, 3]
    assert 0 <= about["features"][HEAD]["min"][0] < about["features"][HEAD]["max"][0] <= 1
    json.dumps(about, allow_nan=False)


@pytest.fixture
def spoiled(tmp_path):
    """Episode 1: head black half of the time; 2: wrist frozen; 3: all state zero; 4: one joint stands still."""
    rng = np.random.default_rng(0)
    with LeRobotWriter(tmp_path / "d", bimanual_interface()) as writer:
        for i in range(5):
            columns, images = bimanual_episode(rng, 90)
            if i == 1:
                images[HEAD][45:] = 0
            if i == 2:
                images[WRIST][10:] = images[WRIST][10]
            if i == 3:
                columns[STATE][:] = 0
            if i == 4:
                columns[ACTION][:, 6] = 0.25
            writer.add_episode(columns, images, TASK)
    return tmp_path / "d"


def test_cameras_and_channels(spoiled):
    assert texts(spoiled) == [
        f"episode 1, {HEAD}: black in 45 of 90 frames",
        f"episode 2, {WRIST}: frozen from frame 10 to 89 of 90",
        f"episode 3, {STATE}: all zero",
        f"episode 4, {ACTION}: channel 6 is constant at 0.25",
    ]
    assert [w["episode"] for w in inspect(LeRobotDataset(spoiled), videos=False)["warnings"]] == [3, 4]


def test_a_stationary_arm_is_not_taken_for_a_frozen_camera(tmp_path):
    columns, images = bimanual_episode(np.random.default_rng(0), 150)
    for group in (columns, images):
        for values in group.values():
            values[75:] = values[75]
    with LeRobotWriter(tmp_path / "d", bimanual_interface()) as writer:
        writer.add_episode(columns, images, TASK)
    assert texts(tmp_path / "d") == []


def test_irregular_timestamps(bimanual_dataset):
    path = LeRobotDataset(bimanual_dataset).records[3].data
    table = pq.read_table(path)
    times = table["timestamp"].to_numpy().copy()
    times[20:] += 0.1
    times[40:] += 0.02
    changed = table.set_column(table.column_names.index("timestamp"), "timestamp", pa.array(times, pa.float32()))
    pq.write_table(changed, path)
    (found,) = texts(bimanual_dataset)
    assert found.startswith("episode 3, timestamp: 2 of 62 steps are not 33.3 ms (median 33.3 ms, largest 133.3 ms")


def test_counts_that_disagree(bimanual_dataset):
    info = bimanual_dataset / "meta/info.json"
    info.write_text(json.dumps(json.loads(info.read_text()) | {"total_frames": 400}))
    records = LeRobotDataset(bimanual_dataset, strict=False).records
    records[0].videos[HEAD].path.write_bytes(records[5].videos[HEAD].path.read_bytes())
    records[4].videos[WRIST].path.write_bytes(records[1].videos[WRIST].path.read_bytes())
    table = pq.read_table(records[2].data)
    pq.write_table(table.append_column("tactile", pa.array(range(len(table)))), records[2].data)
    found = texts(bimanual_dataset)
    assert len(found) == 4
    assert "total_frames is 400, found 375" in found[0]
    assert found[1].startswith(f"episode 0, {HEAD}")
    assert found[1].endswith("expected 60 frames, found 65")
    assert found[2].startswith("episode 2, tactile: column")
    assert found[3].startswith(f"episode 4, {WRIST}")
    assert found[3].endswith("expected 64 frames from 0 s on, found 61")


def test_what_cannot_be_read_is_a_warning(tmp_path):
    records = make_bimanual_dataset(tmp_path / "d", episodes=4, length=20).records
    records[1].data.write_bytes(b"PAR1")
    records[2].videos[HEAD].path.write_bytes(b"")
    records[3].videos[WRIST].path.unlink()
    found = texts(tmp_path / "d")
    assert any(text.startswith("episode 1, data: ") and str(records[1].data) in text for text in found)
    assert any(text.startswith(f"episode 2, {HEAD}: ") and str(records[2].videos[HEAD].path) in text for text in found)
    assert any(str(records[3].videos[WRIST].path) in text for text in found)


def test_slow_motion_is_not_frozen():
    motion = np.linspace(0, 1, 90)[:, None]
    fading = np.linspace(100, 140, 90)[:, None, None] * np.ones((16, 16))
    assert camera_findings(0, HEAD, list(fading), 30, motion) == []
    assert len(camera_findings(0, HEAD, list(0 * fading + 100), 30, motion)) == 1
