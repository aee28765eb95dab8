"""The words of a LeRobotDataset's `meta/`: where files lie, how features are declared, what is known of an episode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vla_policy.interfaces import ACTION, Feature, InputError, Interface

CHUNKS_SIZE = 1000
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
DATA_FILE_MB = 100
VIDEO_FILE_MB = 200
# Columns that every dataset has besides its features; scalars.
BOOKKEEPING = {
    "timestamp": "float32",
    "frame_index": "int64",
    "episode_index": "int64",
    "index": "int64",
    "task_index": "int64",
}


@dataclass(frozen=True)
class VideoSpan:
    """Where an episode lies in an mp4, from `start` to `stop` seconds; `problem` says why that is not known."""

    path: Path
    start: float
    stop: float
    problem: str = ""

    def known(self) -> VideoSpan:
        """The span itself; `InputError` if it cannot be relied on."""
        if self.problem:
            raise InputError(self.problem)
        return self


@dataclass(frozen=True)
class EpisodeRecord:
    """What `meta/` says about one episode; `meta` is the file that says so."""

    index: int
    length: int
    data: Path
    videos: Mapping[str, VideoSpan]
    meta: Path


def features_of(interface: Interface, codec: str) -> dict[str, Any]:
    """The `features` of info.json for an interface; `InputError` for shapes that LeRobot's format cannot hold."""
    features: dict[str, Any] = {}
    for key, feature in {**interface.observations, ACTION: interface.action}.items():
        if "/" in key or key in BOOKKEEPING:
            raise InputError(f"feature {key!r}: expected a name without '/' that is none of {sorted(BOOKKEEPING)}")
        if feature.dtype == "image":
            features[key] = _video_feature(key, feature, interface.fps, codec)
        elif len(feature.shape) != 1:
            raise InputError(f"feature {key!r}: expected a vector, found shape {feature.shape}")
        else:
            features[key] = {"dtype": "float32", "shape": list(feature.shape), "names": list(feature.names) or None}
    for key, dtype in BOOKKEEPING.items():
        features[key] = {"dtype": dtype, "shape": [1], "names": None}
    return features


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


def interface_of(info: Mapping[str, Any], path: Path) -> Interface:
    """The interface that info.json at `path` implies; units and frame stay undeclared."""
    features = info["features"]
    if ACTION not in features:
        raise InputError(f"{path}: expected a feature {ACTION!r}, found {sorted(features)}")
    observations = {}
    for key, entry in features.items():
        if not key.startswith("observation."):
            continue
        if entry["dtype"] == "video":
            observations[key] = Feature("image", image_shape(entry))
        elif entry["dtype"] in ("float32", "float64") and len(entry["shape"]) == 1:
            observations[key] = _vector(entry)
    return Interface(observations, _vector(features[ACTION]), info["fps"])


def image_shape(entry: Mapping[str, Any]) -> tuple[int, int, int]:
    """(H, W, 3) of a video feature, also where older datasets declared (3, H, W)."""
    shape = [int(n) for n in entry["shape"]]
    names = entry.get("names") or []
    channels_first = "channel" in str(names[0]) if len(names) == 3 else shape[0] == 3 != shape[-1]
    if channels_first:
        shape = [*shape[1:], shape[0]]
    return shape[0], shape[1], shape[2]


def _vector(entry: Mapping[str, Any]) -> Feature:
    names = entry.get("names") or ()
    if isinstance(names, Mapping):  # e.g. {"motors": [...]}
        names = next(iter(names.values()), ())
    size = int(np.prod(entry["shape"]))
    flat = tuple(map(str, names)) if isinstance(names, Sequence) and len(names) == size else ()
    return Feature("float32", tuple(entry["shape"]), flat)
