"""Frames decoded on the fly are those of the frame cache, byte for byte."""

import pickle
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from helpers.bimanual import HEAD, WRIST, make_bimanual_dataset
from torch.utils.data import DataLoader

from vla_policy.data import LeRobotDataset, WindowDataset, video_frames
from vla_policy.data.video_frames import VideoFrames
from vla_policy.data.writing.compact import compact
from vla_policy.interfaces import STATE, InputError


def both(root: Path, episodes: list[int] | None = None) -> tuple[WindowDataset, WindowDataset]:
    dataset = LeRobotDataset(root)
    return tuple(
        WindowDataset(dataset, [STATE, HEAD, WRIST], 2, 16, 7, episodes, cache=cache) for cache in (True, False)
    )  # type: ignore[return-value]


def assert_same(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    for key, value in one.items():
        assert value == other[key] if key == "task" else torch.equal(value, other[key])


@pytest.mark.parametrize("layout", ["a file an episode", "one file"])
def test_batches_are_those_of_the_cache(bimanual_dataset: Path, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_frames, "OPEN_VIDEOS", 2)
    if layout == "one file":
        compact(bimanual_dataset)
        dataset = LeRobotDataset(bimanual_dataset)
        assert len({record.videos[HEAD].path for record in dataset.records.values()}) == 1
    cached, decoded = both(bimanual_dataset, [4, 0, 2])
    rng = np.random.default_rng(0)
    for chosen in (rng.integers(0, len(cached), 12), np.arange(5), np.array([3]), np.array([7, 7, 0])):
        assert_same(cached.__getitems__(chosen), decoded.__getitems__(chosen))


def test_without_a_cache_nothing_is_written(bimanual_dataset: Path) -> None:
    windows = WindowDataset(LeRobotDataset(bimanual_dataset), [WRIST], 2, 16, 7, cache=False)
    windows.__getitems__([0, 50])
    assert not (bimanual_dataset / ".cache").exists()


def test_long_groups_of_pictures_and_pictures_shown_out_of_order(bimanual_dataset: Path) -> None:
    """As other recorders write them: key frames far apart, frames that need later ones."""
    dataset = LeRobotDataset(bimanual_dataset)
    frames = dataset.frames(0, HEAD)
    with av.open(str(dataset.records[0].videos[HEAD].path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"g": "25", "bf": "3", "preset": "veryfast"})
        stream.height, stream.width, stream.pix_fmt = 64, 80, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    whole, some = dataset.frames(0, HEAD), VideoFrames(dataset, HEAD)
    assert not np.array_equal(whole, frames)
    for row in np.random.default_rng(0).permutation(len(whole)):
        assert np.array_equal(some[np.array([row])][0], whole[row])
    assert np.array_equal(some[np.arange(len(whole))], whole)


def test_av1_as_well(tmp_path: Path) -> None:
    dataset = make_bimanual_dataset(tmp_path / "av1", episodes=1, length=20, codec="av1")
    whole, some = dataset.frames(0, WRIST), VideoFrames(dataset, WRIST)
    rows = np.array([[13, 14], [2, 3], [19, 19]])
    assert np.array_equal(some[rows], whole[rows])


def test_loader_processes_open_videos_of_their_own(bimanual_dataset: Path) -> None:
    cached, decoded = both(bimanual_dataset)
    decoded.__getitems__([0, 100])  # open in this process before it forks
    batches = [[5, 100], [101, 6], [200, 7], [8, 201]]
    loader = DataLoader(decoded, batch_sampler=batches, collate_fn=lambda batch: batch, num_workers=2)
    for chosen, batch in zip(batches, loader, strict=True):
        assert_same(cached.__getitems__(chosen), batch)
    copied = pickle.loads(pickle.dumps(decoded._frames[HEAD]))
    assert np.array_equal(copied[np.array([4])], cached._frames[HEAD][np.array([4])])


def test_broken_videos_are_named(bimanual_dataset: Path) -> None:
    dataset = LeRobotDataset(bimanual_dataset)
    path = dataset.records[1].videos[HEAD].path
    path.write_bytes(path.read_bytes()[:500])
    frames = VideoFrames(dataset, HEAD)
    frames[np.array([0])]
    with pytest.raises(InputError, match=str(path)):
        frames[np.array([60])]
    short = dataset.records[3].videos[HEAD].path
    short.write_bytes(dataset.records[0].videos[HEAD].path.read_bytes())  # 60 frames in place of 63
    start = int(dataset.lengths[:3].sum())
    frames[np.array([start + 59])]
    with pytest.raises(InputError, match=rf"{short}: expected a frame at 2\.0667 s, found the video's end"):
        frames[np.array([start + 62])]
