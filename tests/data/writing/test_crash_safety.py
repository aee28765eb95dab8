"""Killed at any moment, a writer or a compaction leaves whole episodes, and work goes on afterwards."""

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from helpers.bimanual import (
    HEAD,
    TASK,
    WRIST,
    add_bimanual_episode,
    bimanual_episode,
    bimanual_interface,
    make_bimanual_dataset,
)
from helpers.kill import compact_repeatedly, kill_after, killed, numbered_episode, write_episodes

from vla_policy.data import LeRobotDataset, LeRobotWriter
from vla_policy.data.format import video
from vla_policy.data.writing.compact import compact
from vla_policy.data.writing.journal import JOURNAL
from vla_policy.interfaces import ACTION, Failure, InputError
from vla_policy.utils.exchange import Exchange


def check_whole(root: Path) -> int:
    """Every episode is the one that was written; returns how many."""
    dataset = LeRobotDataset(root)
    for i in range(dataset.num_episodes):
        columns, images = numbered_episode(i)
        assert np.array_equal(dataset.episode(i).columns[ACTION], columns[ACTION])
        assert dataset.frames(i, HEAD).shape == images[HEAD].shape
    return dataset.num_episodes


@pytest.mark.slow
def test_killed_writer(tmp_path):
    draw = random.Random(0)
    episodes = 0
    for _ in range(4):
        kill_after(draw.uniform(0.1, 0.5), write_episodes, tmp_path / "d")
        now = check_whole(tmp_path / "d")
        assert now >= episodes
        episodes = now
    assert episodes > 0
    with LeRobotWriter(tmp_path / "d", bimanual_interface()) as writer:
        assert writer.num_episodes == episodes
        writer.add_episode(*numbered_episode(episodes), TASK)
    assert check_whole(tmp_path / "d") == episodes + 1
    assert not list((tmp_path / "d").rglob("*.tmp"))
    assert len(list((tmp_path / "d").glob("data/*/*.parquet"))) == episodes + 1
    assert len(list((tmp_path / "d").glob("videos/*/*/*.mp4"))) == 2 * (episodes + 1)


@pytest.mark.slow
def test_killed_compaction(tmp_path):
    with LeRobotWriter(tmp_path / "d", bimanual_interface()) as writer:
        for i in range(12):
            writer.add_episode(*numbered_episode(i), TASK)
    draw = random.Random(1)
    for _ in range(4):
        kill_after(draw.uniform(0.02, 0.4), compact_repeatedly, tmp_path / "d")
        assert check_whole(tmp_path / "d") == 12
    compact(tmp_path / "d")
    assert check_whole(tmp_path / "d") == 12
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def test_kill_between_the_renames_of_a_compaction(tmp_path):
    make_bimanual_dataset(tmp_path / "d", episodes=1, length=10)
    beside = Exchange(tmp_path / "d")
    compact(tmp_path / "d")
    (tmp_path / "d").rename(beside.building)
    make_bimanual_dataset(beside.replaced, episodes=1, length=10)
    assert LeRobotDataset(tmp_path / "d").num_episodes == 1
    assert not beside.building.exists()


def contents(root: Path) -> dict[str, bytes]:
    """Of every file but locks."""
    files = (path for path in sorted(root.rglob("*")) if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def pictures(root: Path) -> list[np.ndarray]:
    dataset = LeRobotDataset(root)
    return [dataset.frames(i, key) for i in range(dataset.num_episodes) for key in (HEAD, WRIST)]


def tables(root: Path) -> list[pa.Table]:
    """The rows of every episode, with columns that only their author knows."""
    files = {record.data: pq.read_table(record.data) for record in LeRobotDataset(root).records.values()}
    rows = pa.concat_tables(files.values())
    return [rows.filter(pc.equal(rows["episode_index"], i)) for i in range(LeRobotDataset(root).num_episodes)]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three small episodes among files that no writer of this project made."""
    root = tmp_path_factory.mktemp("shared") / "d"
    dataset = make_bimanual_dataset(root, episodes=3, length=5)
    shutil.copy(dataset.records[1].data, root / "data/chunk-000/rewards-001.parquet")
    shutil.copy(dataset.records[1].data, root / "data/chunk-000/file-007.parquet")
    shutil.copy(dataset.records[1].videos[HEAD].path, root / "videos" / HEAD / "chunk-000/raw.mp4")
    shutil.copy(dataset.records[1].meta, root / "meta/episodes.parquet")
    for name in FOREIGN_TEXTS:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"this is {name}")
    return root


FOREIGN_TEXTS = (
    "README.md",
    "data/README.md",
    "data/chunk-000/.file-003.parquet.12.tmp",
    f"videos/{HEAD}/chunk-000/file-000.timestamps.json",
    "videos/observation.depth/chunk-000/file-000.mkv",
    "images/head/frame-000000.png",
    "meta/calibration.json",
    "meta/episodes/notes.txt",
    f".cache/{HEAD}-notes.txt",
)
FOREIGN = (
    *FOREIGN_TEXTS,
    "data/chunk-000/rewards-001.parquet",
    "data/chunk-000/file-007.parquet",
    f"videos/{HEAD}/chunk-000/raw.mp4",
    "meta/episodes.parquet",
)
REPLACED_BY_A_WRITER = {"meta/info.json", "meta/stats.json", "meta/tasks.parquet"}


@pytest.mark.slow
def test_a_writer_killed_at_any_change_of_a_file_loses_nothing_and_removes_its_own_alone(shared, tmp_path):
    before = contents(shared)
    finished = set()
    for operation in range(1, 1000):
        root = shutil.copytree(shared, tmp_path / str(operation) / "d")
        died = killed(operation, add_bimanual_episode, root)
        left = contents(root)
        assert all(left[name] == content for name, content in before.items() if name not in REPLACED_BY_A_WRITER)
        episodes = LeRobotDataset(root).num_episodes
        finished.add(episodes)
        assert episodes in (3, 4)
        LeRobotWriter(root, bimanual_interface()).close()
        own = {record.data for record in list(LeRobotDataset(root).records.values())[3:]}
        assert len(contents(root)) == len(before) + 4 * len(own)  # data, meta, two videos
        add_bimanual_episode(root)
        now = contents(root)
        assert all(now[name] == content for name, content in before.items() if name not in REPLACED_BY_A_WRITER)
        assert LeRobotDataset(root).num_episodes == episodes + 1
        shutil.rmtree(root)
        if not died:
            break
    assert operation > 20
    assert finished == {3, 4}


@pytest.mark.slow
def test_a_writer_killed_while_it_makes_a_dataset(tmp_path):
    made = False
    for operation in range(1, 1000):
        root = tmp_path / str(operation)
        killed(operation, add_bimanual_episode, root)
        made = (root / "meta/info.json").exists()
        add_bimanual_episode(root)
        assert LeRobotDataset(root).num_episodes == 1
        assert {path.name for path in root.iterdir()} == {".lock", "data", "meta", "videos"}
        if made:
            break
    assert operation > 8


class Kept:
    """What of a dataset must survive: the rows and pictures of its episodes, and files of others."""

    def __init__(self, root: Path) -> None:
        self.tables, self.pictures = tables(root), pictures(root)
        self.foreign = {name: (root / name).read_bytes() for name in FOREIGN}

    def __eq__(self, other: object) -> bool:
        assert isinstance(other, Kept)
        pairs = zip(self.pictures, other.pictures, strict=True)
        same = self.tables == other.tables and all(np.array_equal(one, two) for one, two in pairs)
        return same and self.foreign == other.foreign


@pytest.fixture(scope="module")
def kept(shared: Path) -> Kept:
    return Kept(shared)


@pytest.mark.slow
def test_a_compaction_killed_at_every_third_change_of_a_file_loses_nothing(shared, kept, tmp_path):
    files = set()
    for operation in range(1, 1000, 3):
        root = shutil.copytree(shared, tmp_path / str(operation) / "d")
        died = killed(operation, compact, root)
        assert Kept(root) == kept
        files.add(len({record.data for record in LeRobotDataset(root).records.values()}))
        LeRobotWriter(root, bimanual_interface()).close()
        assert [path.name for path in root.parent.iterdir()] == ["d"]
        shutil.rmtree(root)
        if not died:
            break
    assert operation > 50
    assert files == {3, 1}


def test_compacting_keeps_what_it_does_not_know(shared, kept, tmp_path):
    root = shutil.copytree(shared, tmp_path / "d")
    for _ in range(2):
        compact(root)
        assert Kept(root) == kept
        assert len({record.data for record in LeRobotDataset(root).records.values()}) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["d"]
    add_bimanual_episode(root)
    check = LeRobotDataset(root)
    assert check.num_episodes == 4
    assert check.records[3].data.name == "file-010.parquet"  # behind somebody's file-007 and what was compacted twice


def test_what_comes_into_a_dataset_while_it_is_compacted_stays(shared, tmp_path):
    root = shutil.copytree(shared, tmp_path / "d")

    def busy(parts):
        (root / "late.txt").write_text("late")
        (root / "meta/calibration.json").unlink()
        (root / "meta/calibration.json").write_text("corrected")
        yield from parts

    compact(root, progress=busy)
    assert (root / "late.txt").read_text() == "late"
    both = [(root / "meta" / name).read_text() for name in ("calibration.json", "calibration.json.old")]
    assert both == ["this is meta/calibration.json", "corrected"]


@pytest.mark.parametrize("name", [".d.building", ".d.replaced"])
def test_a_foreign_folder_is_not_overwritten(shared, tmp_path, name):
    root = shutil.copytree(shared, tmp_path / "d")
    (tmp_path / name).mkdir()
    (tmp_path / name / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match=f"{tmp_path / name}: expected no such folder"):
        compact(root)
    LeRobotWriter(root, bimanual_interface()).close()
    assert (tmp_path / name / "mine.txt").read_text() == "mine"


def stale_data_file(root: Path) -> str:
    path = root / "meta/episodes/chunk-000/file-002.parquet"
    table = pq.read_table(path)
    number = table.column_names.index("data/file_index")
    pq.write_table(table.set_column(number, "data/file_index", pa.array([0])), path)
    return r"file-000\.parquet: expected 7 rows of episode 2.*found 0"


def rows_of_another(root: Path) -> str:
    one, other = (root / f"data/chunk-000/file-00{i}.parquet" for i in (0, 1))
    pq.write_table(pa.concat_tables([pq.read_table(one), pq.read_table(other)]), one)
    return r"file-000\.parquet: expected 0 rows of episode 1.*found 6"


def too_few_rows(root: Path) -> str:
    path = root / "data/chunk-000/file-001.parquet"
    pq.write_table(pq.read_table(path).slice(1), path)
    return r"file-001\.parquet: expected 6 rows of episode 1.*found 5"


def not_counted(root: Path) -> str:
    edit = json.loads((root / "meta/info.json").read_text())
    (root / "meta/info.json").write_text(json.dumps(edit | {"total_episodes": 2, "total_frames": 11}))
    return r"info\.json: expected total_episodes .* count episode 2 in .*file-002\.parquet, found 2 episodes"


@pytest.mark.parametrize("spoil", [stale_data_file, rows_of_another, too_few_rows, not_counted])
def test_records_that_disagree_with_the_files_are_left_alone(shared, tmp_path, spoil):
    root = shutil.copytree(shared, tmp_path / "d")
    says = spoil(root)
    before = contents(root)
    with pytest.raises(InputError, match=says):
        compact(root)
    if spoil is not_counted:
        with pytest.raises(InputError, match=says):
            LeRobotWriter(root, bimanual_interface())
    assert contents(root) == before
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def test_a_merged_file_that_differs_is_not_swapped_in(shared, tmp_path, monkeypatch):
    root = shutil.copytree(shared, tmp_path / "d")
    before = contents(root)

    def backwards(path, sources, fps):
        return video.remux(path, sources[::-1], fps)

    monkeypatch.setattr("vla_policy.data.writing.compact.remux", backwards)
    with pytest.raises(Failure, match=r"expected the frames of episode 0 in .*file-000\.mp4, found others"):
        compact(root)
    assert contents(root) == before
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def test_videos_that_are_not_just_their_episodes_are_taken_over_as_they_are(shared, tmp_path):
    """A longer one and one whose camera dropped pictures would move those behind them."""
    root = shutil.copytree(shared, tmp_path / "d")
    path = LeRobotDataset(root).records[0].videos[HEAD].path
    shutil.copy(LeRobotDataset(root).records[2].videos[HEAD].path, path)  # 7 frames in place of 5
    film, shown = path.read_bytes(), pictures(root)
    after = compact(root)
    assert after.records[0].videos[HEAD].path.read_bytes() == film
    assert after.records[1].videos[HEAD].path == after.records[2].videos[HEAD].path
    assert all(np.array_equal(one, other) for one, other in zip(pictures(root), shown, strict=True))


@pytest.mark.parametrize("missing", ["data", "meta"])
def test_an_unfinished_episode_is_not_there(bimanual_dataset, missing):
    """As a writer killed just before it replaced info.json leaves it."""
    before = (bimanual_dataset / "meta/info.json").read_bytes()
    with LeRobotWriter(bimanual_dataset, bimanual_interface()) as writer:
        writer.add_episode(*bimanual_episode(np.random.default_rng(0), 10), TASK)
    (bimanual_dataset / "meta/info.json").write_bytes(before)
    files = [str(path.relative_to(bimanual_dataset)) for path in bimanual_dataset.rglob("file-006.*")]
    (bimanual_dataset / JOURNAL).write_text(json.dumps({"total_episodes": 7, "files": files}))
    if missing == "meta":
        (bimanual_dataset / "meta/episodes/chunk-000/file-006.parquet").unlink()
    assert LeRobotDataset(bimanual_dataset).num_episodes == 6
    with LeRobotWriter(bimanual_dataset, bimanual_interface()) as writer:
        assert not list(bimanual_dataset.rglob("file-006.*"))
        assert writer.add_episode(*bimanual_episode(np.random.default_rng(1), 10), TASK) == 6
    assert LeRobotDataset(bimanual_dataset).num_episodes == 7


@pytest.mark.parametrize("journal", ["{", "{}", '{"total_episodes": 9, "files": ["../mine.txt"]}'])
def test_an_invalid_journal_removes_nothing(bimanual_dataset, journal):
    (bimanual_dataset.parent / "mine.txt").write_text("mine")
    (bimanual_dataset / JOURNAL).write_text(journal)
    before = contents(bimanual_dataset)
    with pytest.raises(InputError, match=JOURNAL):
        LeRobotWriter(bimanual_dataset, bimanual_interface())
    assert contents(bimanual_dataset) == before
    assert (bimanual_dataset.parent / "mine.txt").exists()


def test_a_folder_with_foreign_metadata_is_refused(tmp_path):
    (tmp_path / "d/meta").mkdir(parents=True)
    (tmp_path / "d/meta/tasks.parquet").write_bytes(b"mine")
    with pytest.raises(
        InputError, match=r"expected a LeRobotDataset or an empty folder, found \['meta/tasks\.parquet'\]"
    ):
        LeRobotWriter(tmp_path / "d", bimanual_interface())
    assert (tmp_path / "d/meta/tasks.parquet").read_bytes() == b"mine"


def test_second_writer_is_refused(bimanual_dataset):
    with (
        LeRobotWriter(bimanual_dataset, bimanual_interface()),
        pytest.raises(InputError, match="one that is running"),
    ):
        LeRobotWriter(bimanual_dataset, bimanual_interface())
    LeRobotWriter(bimanual_dataset, bimanual_interface()).close()


@pytest.mark.parametrize("codec", ["h264", "av1"])
def test_compact_keeps_every_number_and_pixel(tmp_path, codec):
    before = make_bimanual_dataset(tmp_path / "before", codec=codec)
    shutil.copytree(tmp_path / "before", tmp_path / "d")  # an encoder may decide otherwise the second time
    (tmp_path / "d/README.md").write_text("mine")
    largest = max(path.stat().st_size for path in (tmp_path / "d/videos" / HEAD).rglob("*.mp4"))
    after = compact(tmp_path / "d", video_mb=2.5 * largest / 2**20)
    assert 1 < len({record.videos[HEAD].path for record in after.records.values()}) < 6
    assert len(list((tmp_path / "d/data").rglob("*.parquet"))) == 1
    for i in range(6):
        one, two = before.episode(i), after.episode(i)
        assert one.task == two.task
        assert all(np.array_equal(one.columns[key], two.columns[key]) for key in one.columns)
        for key in before.interface.cameras:
            assert np.array_equal(before.frames(i, key), after.frames(i, key))
    assert (tmp_path / "d/README.md").read_text() == "mine"
    with LeRobotWriter(tmp_path / "d", bimanual_interface(), codec=codec) as writer:
        assert writer.add_episode(*bimanual_episode(np.random.default_rng(1), 10), TASK) == 6
    assert LeRobotDataset(tmp_path / "d").frames(6, HEAD).shape == (10, 64, 80, 3)
