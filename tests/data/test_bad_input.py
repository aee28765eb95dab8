"""Whatever is wrong with a dataset or an episode: one InputError that names it, and nothing half-written."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.bimanual import HEAD, TASK, WRIST, bimanual_episode, bimanual_interface

from vla_policy.data import LeRobotDataset, LeRobotWriter, WindowDataset
from vla_policy.data.writing.compact import compact
from vla_policy.interfaces import ACTION, STATE, Feature, InputError, Interface


def snapshot(root: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file() and path.name != ".lock"}


def edit_info(root: Path, **changes: object) -> None:
    path = root / "meta/info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_data(root: Path, episode: int, change) -> Path:
    path = LeRobotDataset(root).records[episode].data
    pq.write_table(change(pq.read_table(path)), path)
    return path


def nan_in_actions(columns, images):
    columns[ACTION][7, 3] = np.nan


def missing_key(columns, images):
    columns["observation.stat"] = columns.pop(STATE)


def wrong_width(columns, images):
    columns[STATE] = columns[STATE][:, :13]


def other_length(columns, images):
    columns[STATE] = columns[STATE][:-1]


def few_frames(columns, images):
    images[WRIST] = images[WRIST][:-1]


def small_frames(columns, images):
    images[HEAD] = images[HEAD][:, :32]


def float_frames(columns, images):
    images[HEAD] = images[HEAD] / 255


def failing_camera(columns, images):
    def frames():
        yield images_of_wrist[0]
        raise InputError("camera unplugged")

    images_of_wrist = images[WRIST]
    images[WRIST] = frames()


def no_camera(columns, images):
    del images[WRIST]


def empty(columns, images):
    for group in (columns, images):
        for key in group:
            group[key] = group[key][:0]


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (nan_in_actions, "'action': expected finite numbers, found nan in frame 7, channel 3"),
        (missing_key, r"expected the keys.*observation\.state'.*found.*observation\.stat'"),
        (wrong_width, r"observation\.state.*\(20, 14\), found \(20, 13\)"),
        (other_length, r"observation\.state.*\(20, 14\), found \(19, 14\)"),
        (few_frames, r"wrist'.*expected 20 frames, found 19"),
        (small_frames, r"head', frame 0: expected uint8 \(64, 80, 3\), found uint8 \(32, 80, 3\)"),
        (float_frames, r"head', frame 0: expected uint8 .* found float64"),
        (failing_camera, r"wrist'.*camera unplugged"),
        (no_camera, r"images: expected the keys.*found \['observation\.images\.head'\]"),
        (empty, "at least one frame"),
    ],
)
def test_a_bad_episode_changes_nothing(bimanual_dataset, spoil, says):
    columns, images = bimanual_episode(np.random.default_rng(0), 20)
    spoil(columns, images)
    before = snapshot(bimanual_dataset)
    with LeRobotWriter(bimanual_dataset, bimanual_interface()) as writer:
        with pytest.raises(InputError, match=says):
            writer.add_episode(columns, images, TASK)
        assert snapshot(bimanual_dataset) == before
        assert writer.add_episode(*bimanual_episode(np.random.default_rng(0), 20), TASK) == 6
    assert LeRobotDataset(bimanual_dataset).num_episodes == 7


def test_another_interface_is_refused(bimanual_dataset):
    interface = bimanual_interface()
    seven = Feature("float32", (7,))
    before = snapshot(bimanual_dataset)
    for other, says in [
        (Interface(interface.observations, seven, 30, "base"), r"action: shape expected \[7\], found \[14\]"),
        (Interface(interface.observations, interface.action, 20, "base"), "fps: expected 20, found 30"),
        (interface.select([STATE, HEAD]), r"images\.wrist"),
    ]:
        with pytest.raises(InputError, match=says):
            LeRobotWriter(bimanual_dataset, other)
    with pytest.raises(InputError, match=r"codec.*'h264'.*'av1'"):
        LeRobotWriter(bimanual_dataset, interface, codec="av1")
    assert snapshot(bimanual_dataset) == before


@pytest.mark.parametrize(
    ("interface", "codec", "says"),
    [
        (Interface({HEAD: Feature("image", (63, 80, 3))}, Feature("float32", (1,)), 10), "h264", "even height"),
        (Interface({STATE: Feature("float32", (2, 2))}, Feature("float32", (1,)), 10), "h264", r"vector.*\(2, 2\)"),
        (Interface({"a/b": Feature("float32", (2,))}, Feature("float32", (1,)), 10), "h264", "a/b"),
        (Interface({}, Feature("float32", (1,)), 29.97), "h264", r"29\.97"),
        (bimanual_interface(), "mpeg2", "mpeg2"),
    ],
)
def test_what_the_format_cannot_hold_is_refused(tmp_path, interface, codec, says):
    with pytest.raises(InputError, match=says):
        LeRobotWriter(tmp_path / "d", interface, codec=codec)
    assert not (tmp_path / "d").exists()


def test_a_folder_of_other_files_is_not_a_dataset(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match=r"thesis\.tex"):
        LeRobotWriter(tmp_path, bimanual_interface())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(InputError, match=r"meta/info\.json"):
        LeRobotDataset(tmp_path)


@pytest.mark.parametrize("size", [0, 100, -50])
def test_truncated_parquet(bimanual_dataset, size):
    path = LeRobotDataset(bimanual_dataset).records[2].data
    path.write_bytes(path.read_bytes()[:size])
    dataset = LeRobotDataset(bimanual_dataset)
    assert dataset.episode(1).length == 61
    with pytest.raises(InputError, match=f"{path}: expected a whole parquet file"):
        dataset.episode(2)


@pytest.mark.parametrize("size", [0, 48, -1500])
def test_truncated_video(bimanual_dataset, size):
    path = LeRobotDataset(bimanual_dataset).records[2].videos[HEAD].path
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(InputError, match=str(path)):
        LeRobotDataset(bimanual_dataset).frames(2, HEAD)


def test_video_of_another_episode(bimanual_dataset):
    records = LeRobotDataset(bimanual_dataset).records
    path = records[5].videos[HEAD].path
    path.write_bytes(records[0].videos[HEAD].path.read_bytes())
    with pytest.raises(InputError, match=f"{path}: expected 65 frames from 0 s on, found 60"):
        LeRobotDataset(bimanual_dataset).frames(5, HEAD)
    path.write_bytes(records[5].videos[WRIST].path.read_bytes())
    with pytest.raises(InputError, match=rf"{path}: expected frames of shape \(64, 80, 3\), found \(48, 48, 3\)"):
        LeRobotDataset(bimanual_dataset).frames(5, HEAD)


def test_missing_files_are_all_found_at_once(bimanual_dataset):
    records = LeRobotDataset(bimanual_dataset).records
    records[1].videos[WRIST].path.unlink()
    records[4].data.unlink()
    with pytest.raises(InputError, match=r"wrist.*file-001\.mp4.*bad episodes: 1, 4.*exclude_episodes=\[1, 4\]"):
        WindowDataset(LeRobotDataset(bimanual_dataset), [WRIST], 2, 16, 7)
    with pytest.raises(InputError, match=r"episode 4, data: .*file-004\.parquet.*exclude_episodes=\[4\]"):
        WindowDataset(LeRobotDataset(bimanual_dataset), [HEAD], 2, 16, 7)
    before = snapshot(bimanual_dataset)
    for write in (compact, lambda root: LeRobotWriter(root, bimanual_interface())):
        with pytest.raises(InputError, match=r"episode 1, observation\.images\.wrist: expected the file"):
            write(bimanual_dataset)
    assert snapshot(bimanual_dataset) == before
    rest = LeRobotDataset(bimanual_dataset, exclude=[1, 4])
    assert rest.episodes == [0, 2, 3, 5]
    windows = WindowDataset(rest, [STATE, WRIST], 2, 16, 14)
    assert len(windows) == 60 + 62 + 63 + 65
    assert np.array_equal(windows.columns[STATE][60:122], LeRobotDataset(bimanual_dataset).episode(2).columns[STATE])
    picture = LeRobotDataset(bimanual_dataset).frames(3, WRIST)[10]
    index = next(i for i in range(len(windows)) if windows.window(i) == (3, 10))
    assert np.array_equal(windows[index][WRIST][-1].numpy(), picture)
    with pytest.raises(InputError, match="expected episodes 0 to 5 to exclude, found 9"):
        LeRobotDataset(bimanual_dataset, exclude=[9])


def spoil_action(table: pa.Table, values: list) -> pa.Table:
    return table.set_column(table.column_names.index(ACTION), ACTION, pa.array(values, pa.list_(pa.float32())))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.rename_columns(["actions" if n == ACTION else n for n in t.column_names]), "'action'.*'actions'"),
        (lambda t: spoil_action(t, [[0.0] * 13] * len(t)), r"'action' of shape \(14,\).*13 x float"),
        (
            lambda t: spoil_action(t, [[float("nan")] * 14] * len(t)),
            "episode 2, 'action': expected finite numbers, found nan in frame 0",
        ),
        (lambda t: spoil_action(t, [None] * len(t)), r"'action' of shape \(14,\)"),
        (lambda t: t.slice(1), "expected 62 rows of episode 2, found 61"),
        (lambda t: pa.concat_tables([t, t]), "expected 62 rows of episode 2, found 124"),
    ],
)
def test_wrong_columns(bimanual_dataset, change, says):
    path = edit_data(bimanual_dataset, 2, change)
    with pytest.raises(InputError, match=says) as error:
        LeRobotDataset(bimanual_dataset).episode(2)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"total_episodes": 9}, "total_episodes is 9, found 6"),
        ({"total_episodes": 4}, "total_episodes is 4, found 6"),
        ({"total_frames": 376}, "total_frames is 376, found 375"),
        ({"codebase_version": "v1.6"}, r"v3\.0 or v2\.1, found v1\.6"),
        ({"fps": 0}, "fps > 0"),
        ({"fps": 25}, "fps: expected 30, found 25"),
        ({"features": {STATE: {"dtype": "float32"}}}, "dtype and shape"),
        ({"features": {STATE: {"dtype": "float32", "shape": [14]}}}, "'action'"),
    ],
)
def test_info_that_disagrees(bimanual_dataset, changes, says):
    edit_info(bimanual_dataset, **changes)
    before = snapshot(bimanual_dataset)
    with pytest.raises(InputError, match=says):
        LeRobotDataset(bimanual_dataset)
    with pytest.raises(InputError):
        LeRobotWriter(bimanual_dataset, bimanual_interface())
    assert snapshot(bimanual_dataset) == before


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}"])
def test_invalid_info(bimanual_dataset, text):
    (bimanual_dataset / "meta/info.json").write_text(text)
    with pytest.raises(InputError, match=r"info\.json"):
        LeRobotDataset(bimanual_dataset)


def test_episodes_that_are_not_there(bimanual_dataset):
    dataset = LeRobotDataset(bimanual_dataset)
    for index in (-1, 6):
        with pytest.raises(InputError, match=f"from 0 to 5, found {index}"):
            dataset.episode(index)
    with pytest.raises(InputError, match=r"'observation\.images\.side', found"):
        dataset.frames(0, "observation.images.side")
