"""LeRobotDataset v2.1 without videos, written from the format's description, to be made odd in one way each."""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from vla_policy.interfaces import ACTION, IMAGES, STATE

FRONT = IMAGES + "front"
SIZE = (16, 24)  # height and width of its pictures
COUNTERS = {"timestamp": "float32"} | dict.fromkeys(("frame_index", "episode_index", "index", "task_index"), "int64")


def picture(episode: int, frame: int) -> np.ndarray:
    return np.full((*SIZE, 3), (10 * episode, 20 * frame + 10, 100), np.uint8)


def png(pixels: np.ndarray) -> dict[str, Any]:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return {"bytes": file.getvalue(), "path": "frame.png"}


def write_plain_dataset(
    root: Path,
    lengths: Mapping[int, int] | Sequence[int] = (12, 9, 10),
    features: Mapping[str, Any] | None = None,
    columns: Callable[[int, int], Mapping[str, Any]] | None = None,
    tasks: Sequence[str] = ("push",),
    declare_counters: bool = True,
) -> Path:
    """Episodes at 10 Hz by index, of a state and an action (2,) that count frames, and pictures in the data files.

    `features` and `columns` (of an episode and its length) come on top; None takes one away.
    """
    by_index = dict(lengths) if isinstance(lengths, Mapping) else dict(enumerate(lengths))
    declared: dict[str, Any] = {
        STATE: {"dtype": "float32", "shape": [2], "names": ["x", "y"]},
        ACTION: {"dtype": "float32", "shape": [2], "names": ["x", "y"]},
        FRONT: {"dtype": "image", "shape": [*SIZE, 3], "names": ["height", "width", "channels"]},
    }
    if declare_counters:
        declared |= {key: {"dtype": dtype, "shape": [1], "names": None} for key, dtype in COUNTERS.items()}
    declared = {key: value for key, value in (declared | dict(features or {})).items() if value is not None}
    (root / "meta").mkdir(parents=True)
    (root / "data/chunk-000").mkdir(parents=True)
    start = 0
    for episode, length in by_index.items():
        t = np.arange(length)
        values: dict[str, Any] = {
            STATE: pa.array(np.stack([episode + t / 100, t / 10], 1).tolist(), pa.list_(pa.float32())),
            ACTION: pa.array(np.stack([episode + t / 100, t / 10], 1).tolist(), pa.list_(pa.float32())),
            FRONT: pa.array([png(picture(episode, frame)) for frame in range(length)]),
            "timestamp": pa.array(t / 10, pa.float32()),
            "frame_index": t,
            "episode_index": np.full(length, episode),
            "index": start + t,
            "task_index": np.zeros(length, np.int64),
        }
        values |= columns(episode, length) if columns else {}
        table = pa.table({key: value for key, value in values.items() if value is not None})
        pq.write_table(table, root / f"data/chunk-000/episode_{episode:06d}.parquet")
        start += length
    info = {"codebase_version": "v2.1", "fps": 10, "features": declared, "chunks_size": 1000, "video_path": None}
    info |= {"total_episodes": len(by_index), "total_frames": start}
    (root / "meta/info.json").write_text(json.dumps(info))
    lines = [json.dumps({"episode_index": i, "tasks": list(tasks), "length": n}) + "\n" for i, n in by_index.items()]
    (root / "meta/episodes.jsonl").write_text("".join(lines))
    lines = [json.dumps({"task_index": i, "task": task}) + "\n" for i, task in enumerate(tasks)]
    (root / "meta/tasks.jsonl").write_text("".join(lines))
    return root
