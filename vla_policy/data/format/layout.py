"""The format of a LeRobotDataset's `meta/`: file paths, feature declarations, episode records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vla_policy.interfaces import ACTION, EXECUTED, Feature, InputError, Interface

CHUNKS_SIZE = 1000
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
DATA_FILE_MB = 100
VIDEO_FILE_MB = 200
COLLECTION = Path("meta/collection.json")  # how scripted demonstrations were collected
# Scalar columns that every dataset has besides its features.
BOOKKEEPING = {
    "timestamp": "float32",
    "frame_index": "int64",
    "episode_index": "int64",
    "index": "int64",
    "task_index": "int64",
}


@dataclass(frozen=True)
class VideoSpan:
    """An episode's span in an mp4, `start` to `stop` seconds; `problem` is the reason if it is unreliable."""

    path: Path
    start: float
    stop: float
    problem: str = ""


@dataclass(frozen=True)
class EpisodeRecord:
    """One episode in `meta/`; `meta` is the file with its record."""

    index: int
    length: int
    data: Path
    videos: Mapping[str, VideoSpan]
    meta: Path

    def span(self, key: str) -> VideoSpan:
        """A camera's span; `InputError` if it is unknown or unreliable."""
        if key not in self.videos:
            raise InputError(f"{self.meta}, episode {self.index}: expected a video of {key!r}, found none")
        if self.videos[key].problem:
            raise InputError(self.videos[key].problem)
        return self.videos[key]


def features_of(interface: Interface, codec: str, executed: bool = False) -> dict[str, Any]:
    """The `features` of info.json for an interface, with `executed` those of executed actions too.

    `InputError` for shapes that LeRobot's format does not support.
    """
    features: dict[str, Any] = {}
    actions = {ACTION: interface.action, **({EXECUTED: interface.action} if executed else {})}
    for key, feature in {**interface.observations, **actions}.items():
        if "/" in key or key in BOOKKEEPING:
            raise InputError(f"feature {key!r}: expected a name without '/' that is none of {sorted(BOOKKEEPING)}")
        if feature.dtype == "image":
            features[key] = _video_feature(key, feature, interface.fps, codec)
        elif len(feature.shape) != 1:
            raise InputError(f"feature {key!r}: expected a vector, found shape {feature.shape}")
        else:
            features[key] = {"dtype": "float32", "shape": list(feature.shape), "names": list(feature.names) or None}
    return features | bookkeeping_features()


def bookkeeping_features() -> dict[str, Any]:
    """The declarations of the counters in info.json."""
    return {key: {"dtype": dtype, "shape": [1], "names": None} for key, dtype in BOOKKEEPING.items()}


def _video_feature(key: str, feature: Feature, fps: float, codec: str) -> dict[str, Any]:
    height, width, channels = (int(n) for n in feature.shape)
    if height % 2 or width % 2:
        raise InputError(f"camera {key!r}: expected an even height and width (yuv420p), found {height} x {width}")
    return {
        "dtype": "video",
        "shape": [height, width, channels],
        "names": ["height", "width", "channels"],
        "info": {
            "video.height": height,
            "video.width": width,
            "video.codec": codec,
            "video.pix_fmt": "yuv420p",
            "video.is_depth_map": False,
            "video.fps": int(fps),
            "video.channels": channels,
            "has_audio": False,
        },
    }
