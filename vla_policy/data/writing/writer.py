"""Crash-safe writing of LeRobotDataset v3.0: a kill at any moment leaves only complete episodes.

Every episode gets its own data, video and meta files and is committed by atomically replacing `info.json`. `compact`
merges the small files later.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vla_policy.data.dataset import LeRobotDataset, check_finite
from vla_policy.data.format import layout, video
from vla_policy.data.format.index import read_stats
from vla_policy.data.format.parquet import write_parquet
from vla_policy.data.format.stats import ImageStats, Stats, merge_stats, to_lists, vector_stats
from vla_policy.data.writing import metadata
from vla_policy.data.writing.journal import lock, mark_unfinished, next_file, remove_unfinished, require_counted
from vla_policy.interfaces import ACTION, EXECUTED, InputError, Interface
from vla_policy.utils.files import sync, write_json, write_whole


class LeRobotWriter:
    """Appends episodes to the dataset at `root`, which is created if needed.

    An existing dataset of the same interface and codec ("h264" or "av1") is continued, and the unfinished episode of an
    interrupted writer is removed. `InputError` for another interface, inconsistent metadata, or if another writer holds
    the lock.

    With `executed` episodes also have executed actions (`interfaces.EXECUTED`), for demonstrators whose actions are not
    carried out as they are. Policies learn the actions, world models what was executed.
    """

    def __init__(
        self, root: str | Path, interface: Interface, robot_type: str = "", codec: str = "h264", executed: bool = False
    ) -> None:
        self.root = Path(root)
        self.interface = interface
        self.actions = [ACTION, EXECUTED] if executed else [ACTION]
        if codec not in video.ENCODERS:
            raise InputError(f"codec: expected one of {sorted(video.ENCODERS)}, found {codec!r}")
        if interface.fps != int(interface.fps) or interface.fps <= 0:
            raise InputError(f"fps: expected a whole number of frames a second, found {interface.fps}")
        self.codec = codec
        self.info = metadata.new_info(interface, robot_type, codec, executed)
        self.tasks: list[str] = []
        self.stats: dict[str, Stats] = {}
        self._next_file = 0
        self._lock = lock(self.root)
        try:
            if (self.root / "meta" / "info.json").exists():
                self._resume()
            else:
                self._create()
        except BaseException:
            self.close()
            raise

    @property
    def num_episodes(self) -> int:
        return int(self.info["total_episodes"])

    @property
    def num_frames(self) -> int:
        return int(self.info["total_frames"])

    def add_episode(
        self,
        columns: Mapping[str, np.ndarray],
        images: Mapping[str, np.ndarray | Iterable[np.ndarray]],
        task: str,
    ) -> int:
        """Write one episode and return its index.

        `columns` has (T, D) finite numbers for the actions and every vector of the interface, `images` T uint8 frames
        (H, W, 3) for every camera, as an array or an iterable. `InputError` names the key that does not match and
        leaves the dataset unchanged.
        """
        arrays = self._check(columns, images)
        length, index, task_index = len(arrays[ACTION]), self.num_episodes, self._task_index(task)
        arrays |= self._bookkeeping(length, index, task_index)
        chunk, file = divmod(self._next_file, layout.CHUNKS_SIZE)
        place = {"chunk_index": chunk, "file_index": file}
        data, meta = (self.root / path.format(**place) for path in (layout.DATA_PATH, layout.EPISODES_PATH))
        videos = {key: self.root / layout.VIDEO_PATH.format(video_key=key, **place) for key in self.interface.cameras}
        self._next_file += 1
        try:
            mark_unfinished(self.root, [*videos.values(), data, meta], index + 1)
            stats: dict[str, Stats] = {
                key: self._write_video(path, key, images[key], length) for key, path in videos.items()
            }
            stats |= {key: vector_stats(values) for key, values in arrays.items()}
            write_parquet(data, metadata.data_table(arrays))
            write_parquet(meta, metadata.episode_table(self.info, index, length, task, place, stats))
            self._commit(length, task_index, task, stats)
        finally:
            remove_unfinished(self.root)
        return index

    def close(self) -> None:
        """Release the lock."""
        self._lock.close()

    def __enter__(self) -> LeRobotWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _check(self, columns: Mapping[str, Any], images: Mapping[str, Any]) -> dict[str, np.ndarray]:
        features = {**self.interface.observations, **dict.fromkeys(self.actions, self.interface.action)}
        vectors = {key: feature for key, feature in features.items() if feature.dtype != "image"}
        for what, expected, found in (("columns", vectors, columns), ("images", self.interface.cameras, images)):
            if set(expected) != set(found):
                raise InputError(f"episode {what}: expected the keys {sorted(expected)}, found {sorted(found)}")
        arrays = {}
        length = len(columns[ACTION])
        if length == 0:
            raise InputError("episode: expected at least one frame, found none")
        for key, feature in vectors.items():
            array = np.asarray(columns[key], np.float32)
            if array.shape != (length, *feature.shape):
                raise InputError(f"episode {key!r}: expected shape {(length, *feature.shape)}, found {array.shape}")
            check_finite(array, f"episode {key!r}")
            arrays[key] = array
        return arrays

    def _bookkeeping(self, length: int, index: int, task_index: int) -> dict[str, np.ndarray]:
        frame = np.arange(length)
        return {
            "timestamp": (frame / self.info["fps"]).astype(np.float32),
            "frame_index": frame,
            "episode_index": np.full(length, index),
            "index": self.num_frames + frame,
            "task_index": np.full(length, task_index),
        }

    def _task_index(self, task: str) -> int:
        if not task:
            raise InputError("episode task: expected a sentence, found none")
        return self.tasks.index(task) if task in self.tasks else len(self.tasks)

    def _write_video(self, path: Path, key: str, frames: Iterable[np.ndarray], length: int) -> Stats:
        shape, stats = self.interface.observations[key].shape, ImageStats()

        def write(temporary: Path) -> None:
            try:
                count = video.encode(temporary, stats.watch(frames), shape, self.info["fps"], self.codec)
            except InputError as error:
                raise InputError(f"episode {key!r}, {error}") from None
            if count != length:
                raise InputError(f"episode {key!r}: expected {length} frames, found {count}")

        write_whole(path, write)
        return stats.result()

    def _commit(self, length: int, task_index: int, task: str, stats: Mapping[str, Stats]) -> None:
        merged = merge_stats(self.stats, stats)
        tasks = self.tasks if task_index < len(self.tasks) else [*self.tasks, task]
        if tasks != self.tasks:
            metadata.write_tasks(self.root, tasks)
        write_json(self.root / "meta" / "stats.json", to_lists(merged))
        episodes = self.num_episodes + 1
        info = self.info | {
            "total_episodes": episodes,
            "total_frames": self.num_frames + length,
            "total_tasks": len(tasks),
            "splits": {"train": f"0:{episodes}"},
        }
        write_json(self.root / "meta" / "info.json", info)
        self.info, self.stats, self.tasks = info, merged, tasks
        sync(self.root / "meta")  # also persists the renames before it, in order

    def _create(self) -> None:
        parts = ("tasks.parquet", "stats.json", "interface.json")
        mark_unfinished(self.root, [self.root / "meta" / name for name in parts], 0)
        metadata.write_tasks(self.root, [])
        write_json(self.root / "meta" / "stats.json", {})
        write_json(self.root / "meta" / "interface.json", self.interface.to_dict())
        write_json(self.root / "meta" / "info.json", self.info)
        remove_unfinished(self.root)

    def _resume(self) -> None:
        dataset = LeRobotDataset(self.root)
        name = str(self.root)
        if dataset.info["codebase_version"] != "v3.0":
            raise InputError(f"{name}: expected a v3.0 dataset to append to, found {dataset.info['codebase_version']}")
        dataset.require_whole()
        self.interface.require(dataset.interface, "the new episodes", name)
        dataset.interface.require(self.interface, name, "the new episodes")
        for what, old, new in metadata.differences(dataset.info, self.info):
            raise InputError(f"{name}: expected {what} {old!r}, as the dataset has it, found {new!r}")
        require_counted(dataset)
        self.info = dataset.info
        self.tasks = dataset.tasks[: dataset.info["total_tasks"]]
        for stats in read_stats(self.root, self.info).values():
            self.stats = merge_stats(self.stats, stats)
        self._next_file = next_file(self.root)
