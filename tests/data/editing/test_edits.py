"""Edited datasets: what was asked for is there, everything else is as it was, and it is a whole dataset again."""

import json
import shutil
from fractions import Fraction
from pathlib import Path
from unittest.mock import Mock

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.bimanual import HEAD, TASK, WRIST, add_bimanual_episode, make_bimanual_dataset
from helpers.small_dataset import TOP, make_small_dataset

from vla_policy.data import LeRobotDataset, LeRobotWriter
from vla_policy.data.editing import (
    delete,
    divided,
    drop,
    merge,
    parse_episodes,
    recompute_stats,
    reencode,
    rename,
    retask,
    split,
)
from vla_policy.data.inspection import inspect
from vla_policy.data.writing.compact import compact
from vla_policy.interfaces import ACTION, EXECUTED, STATE, InputError

LENGTH = 8  # of the first episode; each is a frame longer than the one before it
OTHER = "another task"


@pytest.fixture(scope="module")
def separate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five episodes and one of another task, in files of their own."""
    root = tmp_path_factory.mktemp("separate") / "d"
    make_bimanual_dataset(root, episodes=5, length=LENGTH)
    add_bimanual_episode(root)
    return root


@pytest.fixture(scope="module")
def shared(separate: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in files that they share."""
    root = Path(shutil.copytree(separate, tmp_path_factory.mktemp("shared") / "d"))
    compact(root)
    return root


@pytest.fixture(params=["separate", "shared"])
def dataset(request: pytest.FixtureRequest, tmp_path: Path) -> LeRobotDataset:
    """A copy that a test may change."""
    return LeRobotDataset(shutil.copytree(request.getfixturevalue(request.param), tmp_path / "d"))


def contents(root: Path) -> dict[str, bytes]:
    files = (path for path in sorted(root.rglob("*")) if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def encoded(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.pts is not None]


def assert_same_episode(one: LeRobotDataset, i: int, other: LeRobotDataset, j: int) -> None:
    a, b = one.episode(i), other.episode(j)
    assert list(a.tasks) == list(b.tasks)
    assert a.columns.keys() == b.columns.keys()
    for key in a.columns.keys() - {"episode_index", "index", "task_index"}:
        assert np.array_equal(a.columns[key], b.columns[key])
    assert one.interface.cameras == other.interface.cameras
    for key in one.interface.cameras:
        assert np.array_equal(one.frames(i, key), other.frames(j, key))


def assert_whole(root: Path) -> LeRobotDataset:
    """A dataset in LeRobot's layout whose metadata, rows, videos and statistics agree, and that a writer takes."""
    dataset = LeRobotDataset(root)
    dataset.require_whole()
    assert dataset.span_findings == []
    assert inspect(dataset)["warnings"] == []
    assert dataset.info["codebase_version"] == "v3.0"
    assert dataset.info["splits"]["train"] == f"0:{dataset.num_episodes}"
    assert dataset.info["total_tasks"] == len(dataset.tasks)
    rows = {}
    for path in sorted((root / "meta/episodes").rglob("*.parquet")):
        rows |= {row["episode_index"]: row for row in pq.read_table(path).to_pylist()}
    assert list(rows) == dataset.episodes
    stats = json.loads((root / "meta/stats.json").read_text())
    declared = {key for key, entry in dataset.features.items()}
    assert stats.keys() == declared
    start = 0
    for index, row in rows.items():
        episode = dataset.episode(index)
        assert (row["dataset_from_index"], row["dataset_to_index"]) == (start, start + episode.length)
        assert np.array_equal(episode.columns["index"], np.arange(start, start + episode.length))
        assert np.array_equal(episode.columns["frame_index"], np.arange(episode.length))
        assert row["tasks"] == list(dict.fromkeys(episode.tasks))
        assert np.allclose(row[f"stats/{ACTION}/mean"], episode.columns[ACTION].mean(0))
        assert row["stats/index/max"] == [start + episode.length - 1]
        assert {name.split("/")[1] for name in row if name.startswith("stats/")} == declared
        for key in dataset.interface.cameras:
            seconds = row[f"videos/{key}/to_timestamp"] - row[f"videos/{key}/from_timestamp"]
            assert seconds == pytest.approx(episode.length / dataset.fps)
        start += episode.length
    actions = np.concatenate([dataset.episode(i).columns[ACTION] for i in dataset.episodes]).astype(float)
    assert np.allclose(stats[ACTION]["std"], actions.std(0))
    assert stats[ACTION]["count"] == [start]
    for path in {record.data for record in dataset.records.values()}:
        columns = {key for key, entry in dataset.features.items() if entry["dtype"] != "video"}
        assert set(pq.read_schema(path).names) == columns
    return dataset


def test_delete_leaves_the_others_as_they_were(dataset: LeRobotDataset, tmp_path: Path) -> None:
    before = contents(dataset.root)
    edited = delete(dataset.root, [0, 3], out=tmp_path / "new")
    assert (edited.episodes, edited.frames, edited.notes) == (4, 9 + 10 + 12 + 5, [])
    assert contents(dataset.root) == before
    new = assert_whole(tmp_path / "new")
    for number, index in enumerate([1, 2, 4, 5]):
        assert_same_episode(dataset, index, new, number)
    assert new.tasks == [TASK, OTHER]
    frames = sum(len(encoded(path)) for path in (new.root / "videos" / HEAD).rglob("*.mp4"))
    assert frames == edited.frames  # those of deleted episodes are gone
    (edit,) = json.loads((new.root / "meta/edits.json").read_text())
    assert edit["edit"] == "delete"
    assert edit["episodes"] == [0, 3]
    assert {path.name for path in tmp_path.iterdir()} == {"d", "new"}


def test_delete_in_place_keeps_what_it_does_not_know(dataset: LeRobotDataset, tmp_path: Path) -> None:
    kept = shutil.copytree(dataset.root, tmp_path / "kept")
    (dataset.root / "README.md").write_text("mine")
    (dataset.root / "data/chunk-000/notes.parquet").write_text("mine")
    delete(dataset.root, [5])
    delete(dataset.root, [1])
    new, old = assert_whole(dataset.root), LeRobotDataset(kept)
    for number, index in enumerate([0, 2, 3, 4]):
        assert_same_episode(old, index, new, number)
    assert new.tasks == [TASK]
    assert (new.root / "README.md").read_text() == "mine"
    assert (new.root / "data/chunk-000/notes.parquet").read_text() == "mine"
    assert [edit["episodes"] for edit in json.loads((new.root / "meta/edits.json").read_text())] == [[5], [1]]
    assert {path.name for path in tmp_path.iterdir()} == {"d", "kept"}
    assert not list(new.root.rglob("*.old"))
    add_bimanual_episode(new.root)
    assert_whole(new.root)


def test_split_by_numbers_and_merge_give_the_same_again(dataset: LeRobotDataset, tmp_path: Path) -> None:
    parts = split(dataset.root, tmp_path / "parts", {"a": [4, 0, 1], "b": [5, 2, 3]})
    assert {name: part.episodes for name, part in parts.items()} == {"a": 3, "b": 3}
    merge([tmp_path / "parts/b", tmp_path / "parts/a"], tmp_path / "merged")
    merged = assert_whole(tmp_path / "merged")
    for number, index in enumerate([2, 3, 5, 0, 1, 4]):
        assert_same_episode(dataset, index, merged, number)
    assert merged.interface == dataset.interface
    edits = json.loads((tmp_path / "merged/meta/edits.json").read_text())
    assert [(edit["edit"], edit.get("dataset")) for edit in edits] == [("split", "b"), ("split", "a"), ("merge", None)]
    assert edits[-1]["of"] == [["b", 3], ["a", 3]]


def test_shares_of_a_dataset_are_drawn_by_a_seed() -> None:
    parts = divided(range(10), {"train": 0.75, "val": 0.25}, seed=0)
    assert {name: len(part) for name, part in parts.items()} == {"train": 8, "val": 2}
    assert sorted(parts["train"] + parts["val"]) == list(range(10))
    assert divided(range(10), {"train": 0.75, "val": 0.25}, seed=0) == parts
    assert divided(range(10), {"train": 0.75, "val": 0.25}, seed=1) != parts
    thirds = divided(range(100), {"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}, seed=0)
    assert sum(map(len, thirds.values())) == 100
    assert len(divided(range(10), {"some": 0.3}, seed=0)["some"]) == 3
    for shares in ({"a": 0.0}, {"a": 0.8, "b": 0.3}, {"a": -1.0}, {"a": 0.99, "b": 0.01}):
        with pytest.raises(InputError, match=r"expected (shares above 0|a share)"):
            divided(range(10), shares, seed=0)


def test_numbers_and_ranges() -> None:
    assert parse_episodes("3, 7,10-12,11") == [3, 7, 10, 11, 12]
    assert parse_episodes("[0]") == [0]
    for text in ("", "a", "1,,2", "5-3", "-1", "1.5"):
        with pytest.raises(InputError, match="expected numbers and ranges"):
            parse_episodes(text)


def test_retask_all_some_or_a_sentence(dataset: LeRobotDataset) -> None:
    retask(dataset.root, "fold it", episodes=[1, 2])
    assert [assert_whole(dataset.root).episode(i).task for i in range(6)] == [
        TASK,
        "fold it",
        "fold it",
        *[TASK] * 2,
        OTHER,
    ]
    retask(dataset.root, "put it away", old=OTHER)
    new = assert_whole(dataset.root)
    assert new.episode(5).task == "put it away"
    assert new.tasks == [TASK, "fold it", "put it away"]
    films = {path.stat().st_ino for path in new.root.rglob("*.mp4")}
    retask(dataset.root, "all alike")
    assert assert_whole(dataset.root).tasks == ["all alike"]
    assert {path.stat().st_ino for path in new.root.rglob("*.mp4")} == films  # the very files


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


def test_an_unreadable_episode_can_be_deleted(separate: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(separate, tmp_path / "d"))
    record = LeRobotDataset(root).records[2]
    record.data.write_bytes(b"broken")
    record.videos[WRIST].path.unlink()
    with pytest.raises(InputError, match=r"episode 2, .*wrist: expected the file"):
        delete(root, [0])
    delete(root, [2])
    assert_whole(root)


def test_a_reader_of_the_old_dataset_finds_no_other_episodes(dataset: LeRobotDataset) -> None:
    episode = dataset.episode(5)
    for change in (lambda: delete(dataset.root, [0]), lambda: compact(dataset.root), lambda: delete(dataset.root, [0])):
        old = LeRobotDataset(dataset.root)
        change()
        for index in old.episodes:
            with pytest.raises(InputError, match=r"expected .*found none"):
                old.episode(index)
            with pytest.raises(InputError, match=r"file-\d+\.mp4"):
                old.frames(index, HEAD)
    assert np.array_equal(assert_whole(dataset.root).episode(3).columns[ACTION], episode.columns[ACTION])


def test_an_episode_that_a_killed_writer_left_is_removed(dataset: LeRobotDataset, monkeypatch) -> None:
    writing = "vla_policy.data.writing.writer"
    with monkeypatch.context() as patch:
        patch.setattr(f"{writing}.remove_unfinished", lambda root: None)
        patch.setattr(f"{writing}.LeRobotWriter._commit", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            add_bimanual_episode(dataset.root)
    assert LeRobotDataset(dataset.root).uncounted is not None
    delete(dataset.root, [0])
    assert assert_whole(dataset.root).num_episodes == 5


def test_values_that_are_not_finite_hinder_no_edit(separate: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(separate, tmp_path / "d"))
    record = LeRobotDataset(root).records[2]
    rows = pq.read_table(record.data)
    effort = pa.array(np.where(np.arange(len(rows)) == 3, np.nan, 0.5).astype(np.float32))
    for other in LeRobotDataset(root).records.values():
        table = pq.read_table(other.data)
        column = effort if other.index == 2 else pa.array(np.zeros(len(table), np.float32))
        pq.write_table(table.append_column("observation.effort", column), other.data)
    info = json.loads((root / "meta/info.json").read_text())
    info["features"]["observation.effort"] = {"dtype": "float32", "shape": [1], "names": None}
    (root / "meta/info.json").write_text(json.dumps(info))
    with pytest.raises(InputError, match="expected finite numbers, found nan"):
        LeRobotDataset(root).episode(2)
    delete(root, [0])
    assert np.isnan(LeRobotDataset(root).episode(1, finite=False).columns["observation.effort"]).sum() == 1
    drop(root, ["observation.effort"])
    assert_whole(root)


def test_a_camera_of_which_videos_are_missing_can_be_dropped(separate: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(separate, tmp_path / "d"))
    LeRobotDataset(root).records[2].videos[WRIST].path.unlink()
    drop(root, [WRIST])
    assert assert_whole(root).num_episodes == 6


MISTAKES = [
    (lambda root, out: delete(root, [6], out), "delete: expected episodes from 0 to 5, found 6"),
    (lambda root, out: delete(root, range(6), out), "delete: expected at least one episode in the new dataset"),
    (lambda root, out: delete(root / "none", [0], out), "expected a LeRobotDataset"),
    (lambda root, out: drop(root, [ACTION], out), "expected a feature 'action' of numbers"),
    (lambda root, out: drop(root, ["depth"], out), "expected a feature out of .*, found 'depth'"),
    (lambda root, out: drop(root, ["timestamp"], out), "expected a feature that is none of"),
    (lambda root, out: rename(root, {HEAD: WRIST}, out), f"expected every feature once, found '{WRIST}' again"),
    (lambda root, out: rename(root, {HEAD: "a/b"}, out), "expected a feature's name without '/', found 'a/b'"),
    (lambda root, out: retask(root, "", out=out), "task: expected a sentence"),
    (
        lambda root, out: retask(root, "x", old="y", out=out),
        "old: expected one of the dataset's sentences .*, found 'y'",
    ),
    (lambda root, out: reencode(root, "vp8", out), "codec: expected one of .*, found 'vp8'"),
    (lambda root, out: merge([root, root], out), "merge: expected two or more different datasets"),
    (lambda root, out: split(root, out, {"a": [0, 1], "b": [1]}), "every episode once at most, found 1 more often"),
    (lambda root, out: split(root, out, {"a": [0, 2, 2]}), "every episode once at most, found 2 more often"),
    (lambda root, out: split(root, out, {"../a": [0]}), "expected names of folders"),
    (lambda root, out: delete(root, [0], out=root), "expected a new folder, found a dataset"),
]


@pytest.mark.parametrize(("act", "says"), MISTAKES)
def test_mistakes_change_nothing(shared: Path, tmp_path: Path, act, says: str) -> None:
    before = contents(shared)
    with pytest.raises(InputError, match=says):
        act(shared, tmp_path / "new")
    assert contents(shared) == before
    assert list(tmp_path.iterdir()) == []


def test_datasets_that_do_not_fit_are_not_merged(tmp_path: Path) -> None:
    one = make_small_dataset(tmp_path / "one", episodes=1, length=4).root
    for name, changes, says in [
        ("slow", {"fps": 5}, "expected fps as in .*, 10, found 5"),
        ("blind", {"cameras": ()}, f"expected {TOP} as in .*, found none"),
        ("large", {"size": 64}, rf"expected {TOP} as in .*32, 32, 3.*64, 64, 3"),
    ]:
        other = make_small_dataset(tmp_path / name, episodes=1, length=4, **changes).root
        with pytest.raises(InputError, match=f"{other}: {says}"):
            merge([one, other], tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
