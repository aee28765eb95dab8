"""Spans of episodes in the videos that they share: right, corrected with a warning, or refused."""

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.bimanual import HEAD, WRIST, make_bimanual_dataset

from vla_policy.data import LeRobotDataset, WindowDataset
from vla_policy.data.format import spans
from vla_policy.data.format.video import encode
from vla_policy.data.inspection import inspect
from vla_policy.data.video_frames import VideoFrames
from vla_policy.data.writing.compact import compact
from vla_policy.interfaces import STATE, InputError

LENGTHS = np.arange(20, 26)
FPS = 30
FRAGMENTED = {"movflags": "frag_keyframe+empty_moov"}
META = "meta/episodes/chunk-000/file-000.parquet"
VIDEO = f"videos/{HEAD}/chunk-000/file-006.mp4"  # numbered behind those that it was joined of


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six episodes in one file a camera."""
    root = tmp_path_factory.mktemp("joined") / "d"
    make_bimanual_dataset(root, 6, 20)
    return compact(root).root


@pytest.fixture
def dataset(joined: Path, tmp_path: Path) -> Path:
    (tmp_path / "d").mkdir()
    for path in sorted(joined.rglob("*")):
        new = tmp_path / "d" / path.relative_to(joined)
        new.mkdir(exist_ok=True) if path.is_dir() else new.write_bytes(path.read_bytes())
    return tmp_path / "d"


@pytest.fixture(scope="module")
def pictures(joined: Path) -> list[np.ndarray]:
    sound = LeRobotDataset(joined)
    return [sound.frames(i, HEAD) for i in range(6)]


def edit_spans(root: Path, change: Callable[[np.ndarray], np.ndarray], key: str = HEAD, stops: bool = False) -> None:
    """Change from_timestamp, and to_timestamp as well or not."""
    table = pq.read_table(root / META)
    for what in ("from", "to") if stops else ("from",):
        name = f"videos/{key}/{what}_timestamp"
        values = change(table[name].to_numpy().copy())
        table = table.set_column(table.column_names.index(name), name, pa.array(values, pa.float64()))
    pq.write_table(table, root / META)


def write_film(root: Path, frames: np.ndarray) -> None:
    encode(root / VIDEO, frames, (64, 80, 3), FPS, "h264")


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    assert np.abs(found.astype(int) - expected).mean() < 4


FAULTS = {
    "sums that drift": lambda starts: starts + 0.3 * np.arange(6) / FPS,
    "sums that fall behind": lambda starts: starts - 0.03 * np.arange(6) / FPS,
    "a frame more each": lambda starts: starts + np.arange(6) / FPS,
    "all zero": np.zeros_like,
    "overlapping": lambda starts: starts / 2,
    "all late": lambda starts: starts + 2 / FPS,
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("stops", [False, True])
def test_wrong_spans_follow_from_the_lengths(dataset, pictures, fault, stops, caplog):
    edit_spans(dataset, FAULTS[fault], stops=stops)
    found = LeRobotDataset(dataset)
    (warning,) = caplog.messages
    assert all(name in warning for name in (str(dataset / VIDEO), HEAD, "episode ", "from_timestamp"))
    some = VideoFrames(found, HEAD)
    for i, frames in enumerate(pictures):
        assert np.array_equal(found.frames(i, HEAD), frames)
        assert np.array_equal(some[np.arange(found.lengths[i]) + found.lengths[:i].sum()], frames)


def test_every_reader_has_the_right_pictures(dataset, pictures):
    WindowDataset(LeRobotDataset(dataset), [STATE, HEAD], 2, 16, 7)  # its frame cache must not be taken for the new one
    edit_spans(dataset, FAULTS["all zero"])
    found = LeRobotDataset(dataset)
    for cache in (True, False):
        windows = WindowDataset(found, [STATE, HEAD], 1, 16, 15, cache=cache)
        shown = windows.__getitems__(range(len(windows)))[HEAD].numpy()[:, 0]
        assert np.array_equal(shown, np.concatenate(pictures))
    about = [warning["text"] for warning in inspect(LeRobotDataset(dataset, strict=False))["warnings"]]
    assert len(about) == 1
    assert HEAD in about[0]
    assert np.array_equal(compact(dataset).frames(4, HEAD), pictures[4])
    assert LeRobotDataset(dataset).span_findings == []


def test_a_camera_is_judged_by_its_own_spans(dataset, caplog):
    edit_spans(dataset, lambda starts: starts + 1e-11, HEAD)
    edit_spans(dataset, np.zeros_like, WRIST)
    LeRobotDataset(dataset)
    assert [WRIST in message for message in caplog.messages] == [True]


REFUSED = {
    "frames missing somewhere": (
        lambda starts: starts,
        slice(3, None),
        "expected 135 frames of episodes 0 to 5.*132",
    ),
    "drift and too few": (FAULTS["sums that drift"], slice(3, None), "expected from_timestamp 0.6667 of episode 1"),
    "drift and too many": (FAULTS["sums that drift"], None, "expected from_timestamp 0.6667 of episode 1"),
    "out of order": (lambda starts: np.where(starts > 2, 0, starts), slice(None), "2.1000 of episode 3.*found 0.0000"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_spans_that_contradict_the_film_are_refused(dataset, pictures, case):
    change, kept, says = REFUSED[case]
    edit_spans(dataset, change)
    film = np.concatenate(pictures)
    write_film(dataset, film[kept] if kept else np.concatenate([film, film[:7]]))
    found = LeRobotDataset(dataset)
    for i in range(6):
        with pytest.raises(InputError, match=f"{dataset / VIDEO}: .*{says}"):
            found.frames(i, HEAD)
        with pytest.raises(InputError, match=says):
            VideoFrames(found, HEAD)[np.array([found.lengths[:i].sum()])]
        assert len(found.frames(i, WRIST)) == found.lengths[i]
    with pytest.raises(InputError, match=says):
        WindowDataset(found, [HEAD], 1, 16, 7)
    assert any(HEAD in warning["text"] for warning in inspect(found)["warnings"])
    before = {path: path.read_bytes() for path in dataset.rglob("*.*") if path.is_file()}
    with pytest.raises(InputError, match=says):
        compact(dataset)
    assert before == {path: path.read_bytes() for path in dataset.rglob("*.*") if path.is_file()}


def test_episodes_without_a_span_have_no_pictures_of_others(dataset, pictures):
    edit_spans(dataset, lambda starts: np.where(starts > 2, np.nan, starts))
    found = LeRobotDataset(dataset)
    some = VideoFrames(found, HEAD)
    for i in range(3):
        assert np.array_equal(found.frames(i, HEAD), pictures[i])
    for i in range(3, 6):
        with pytest.raises(InputError, match=f"episode {i}: expected a video of '{HEAD}', found none"):
            found.frames(i, HEAD)
        with pytest.raises(InputError, match=f"episode {i}: expected a video of '{HEAD}', found none"):
            some[np.array([found.lengths[:i].sum()])]


def test_frames_between_the_episodes(dataset, pictures, caplog):
    """As a recorder leaves them whose films are longer than its tables."""
    film = [np.concatenate([frames, frames[-1:]]) for frames in pictures]
    write_film(dataset, np.concatenate(film))
    table = pq.read_table(dataset / META)
    edges = np.concatenate([[0], np.cumsum(LENGTHS + 1)]) / FPS
    for what, values in (("from", edges[:-1]), ("to", edges[1:])):
        name = f"videos/{HEAD}/{what}_timestamp"
        table = table.set_column(table.column_names.index(name), name, pa.array(values))
    pq.write_table(table, dataset / META)
    found = LeRobotDataset(dataset)
    assert "divide the file without overlap" in caplog.text
    for i, frames in enumerate(pictures):
        assert_close(found.frames(i, HEAD), frames)


def test_a_film_that_lacks_frames_of_one_episode_has_those_of_the_others(dataset, pictures):
    """Known where from_timestamp and to_timestamp are those of the film, not of the table."""
    film = [frames[:-1] if i == 2 else frames for i, frames in enumerate(pictures)]
    write_film(dataset, np.concatenate(film))
    edit_spans(dataset, lambda edges: np.where(edges > 2.05, edges - 1 / FPS, edges), stops=True)
    found = LeRobotDataset(dataset)
    with pytest.raises(InputError, match="expected 22 frames of episode 2, found 21"):
        found.frames(2, HEAD)
    for i in (0, 1, 3, 4, 5):
        assert_close(found.frames(i, HEAD), pictures[i])


def test_a_file_without_a_frame_count(dataset, pictures):
    film = dataset / VIDEO
    with av.open(str(film)) as whole, av.open(str(film.with_suffix(".new")), "w", "mp4", FRAGMENTED) as parts:
        stream = parts.add_stream_from_template(whole.streams.video[0], opaque=True)
        for packet in whole.demux(video=0):
            if packet.pts is not None:
                packet.stream = stream
                parts.mux(packet)
    film.with_suffix(".new").rename(film)
    with av.open(str(film)) as parts:
        assert parts.streams.video[0].frames == 0
    edit_spans(dataset, FAULTS["all zero"])
    assert np.array_equal(LeRobotDataset(dataset).frames(5, HEAD), pictures[5])


def test_episodes_out_of_order_in_a_file_are_read_with_a_warning(dataset, pictures, caplog):
    """Swapped spans of equally long episodes would look the same."""
    write_film(dataset, np.concatenate([pictures[1], pictures[0], *pictures[2:]]))
    edit_spans(dataset, lambda starts: np.concatenate([[LENGTHS[1] / FPS, 0.0], starts[2:]]))
    found = LeRobotDataset(dataset)
    (warning,) = caplog.messages
    assert warning.startswith(f"episode 1, {HEAD}: {dataset / VIDEO}: ")
    assert "episode 1 before episode 0" in warning
    assert "out of order: 0 to 1" in warning
    for i, frames in enumerate(pictures):
        assert_close(found.frames(i, HEAD), frames)


def test_files_of_one_episode_are_not_opened(bimanual_dataset, monkeypatch):
    monkeypatch.setattr(spans, "read_header", None)
    assert LeRobotDataset(bimanual_dataset).span_findings == []
