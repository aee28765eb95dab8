"""Episodes on disk, read: LeRobotDataset v3.0 and v2.1 with pyarrow and PyAV, no `lerobot` needed."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from vla_policy.data import video
from vla_policy.data.exchange import Exchange
from vla_policy.data.files import read_json, read_parquet
from vla_policy.data.index import column_shapes, read_index, read_info, video_keys
from vla_policy.data.layout import EpisodeRecord, image_shape, interface_of
from vla_policy.data.spans import locate
from vla_policy.interfaces import InputError, Interface

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Episode:
    """One demonstration: `columns` maps every numeric feature to its values (T, *shape), `timestamp` [s] (T,), ..."""

    index: int
    task: str
    columns: Mapping[str, np.ndarray]

    @property
    def length(self) -> int:
        return len(self.columns["frame_index"])


class LeRobotDataset:
    """A dataset at `root`, opened for reading.

    `InputError` if it is none, or if its own words about itself disagree (see `problems`, which `strict=False` leaves
    to be read instead). `misplaced` are videos whose spans had to be corrected or cannot be relied on, which are logged
    as warnings; frames of the latter are refused with an `InputError`. An episode that was being written when its
    writer was killed is not part of the dataset; `uncounted` is its record.
    """

    def __init__(self, root: str | Path, strict: bool = True) -> None:
        self.root = Path(root)
        Exchange(self.root.resolve()).recover()
        self.info: dict[str, Any] = read_info(self.root)
        self.fps: float = self.info["fps"]
        self.features: dict[str, Any] = self.info["features"]
        self.interface = self._read_interface()
        self.records, self.tasks = read_index(self.root, self.info)
        self.uncounted = self.records.pop() if self._ends_unfinished() else None
        self.records, self.misplaced = locate(self.records, self.fps)
        self.problems: list[str] = self._problems()
        if strict and self.problems:
            more = f" (and {len(self.problems) - 1} more)" if len(self.problems) > 1 else ""
            raise InputError(self.problems[0] + more)
        for finding in self.misplaced if strict else ():
            log.warning("%s", finding)
        self._last_table: tuple[Path, dict[str, np.ndarray]] | None = None

    @property
    def num_episodes(self) -> int:
        return len(self.records)

    @property
    def num_frames(self) -> int:
        return int(self.lengths.sum())

    @property
    def lengths(self) -> np.ndarray:
        """Frames of each episode (num_episodes,)."""
        return np.array([record.length for record in self.records], dtype=np.int64)

    def episode(self, index: int) -> Episode:
        """All vectors of an episode; `InputError` naming file and key for missing, misshapen or non-finite values."""
        record = self._record(index)
        table = self._table(record.data)
        rows = np.flatnonzero(table["episode_index"] == record.index)
        if len(rows) != record.length:
            raise InputError(f"{record.data}: expected {record.length} rows of episode {index}, found {len(rows)}")
        columns = {key: values[rows] for key, values in table.items()}
        for key, values in columns.items():
            check_finite(values, f"{record.data}, episode {index}, {key!r}")
        task = int(columns["task_index"][0]) if len(rows) else -1
        if not 0 <= task < len(self.tasks):
            raise InputError(f"{record.data}: expected a task_index below {len(self.tasks)}, found {task}")
        return Episode(record.index, self.tasks[task], columns)

    def frames(self, index: int, key: str) -> np.ndarray:
        """All frames of a camera in an episode, (T, H, W, 3) uint8 RGB."""
        frames = np.empty((self._record(index).length, *self.image_shape(key)), np.uint8)
        for row, frame in zip(frames, self.iter_frames(index, key), strict=True):
            row[...] = frame
        return frames

    def iter_frames(self, index: int, key: str) -> Iterator[np.ndarray]:
        """The same, a frame at a time; `InputError` naming the file if it is broken or does not fit the dataset."""
        record, shape = self._record(index), self.image_shape(key)
        span = record.videos[key].known()
        for frame in video.decode(span.path, span.start, record.length, self.fps):
            if frame.shape != shape:
                raise InputError(f"{span.path}: expected frames of shape {shape}, found {frame.shape}")
            yield frame

    def image_shape(self, key: str) -> tuple[int, int, int]:
        """(H, W, 3) of a camera; `InputError` if there is no such camera."""
        if key not in video_keys(self.info):
            raise InputError(f"{self.root}: expected a camera {key!r}, found {video_keys(self.info)}")
        return image_shape(self.features[key])

    def _record(self, index: int) -> EpisodeRecord:
        if not 0 <= index < len(self.records):
            raise InputError(f"{self.root}: expected an episode from 0 to {len(self.records) - 1}, found {index}")
        return self.records[index]

    def _read_interface(self) -> Interface:
        implied = interface_of(self.info, self.root / "meta" / "info.json")
        path = self.root / "meta" / "interface.json"
        if not path.exists():
            return implied
        stored = Interface.from_dict(read_json(path))
        stored.require(implied, str(path), "info.json")
        return stored

    def _ends_unfinished(self) -> bool:
        """Whether the last episode, alone in its files, was never committed to info.json."""
        if self.info["codebase_version"] != "v3.0" or len(self.records) != self.info["total_episodes"] + 1:
            return False
        last = self.records[-1]
        return all(last.meta != record.meta and last.data != record.data for record in self.records[:-1])

    def _problems(self) -> list[str]:
        path = self.root / "meta" / "info.json"
        found = []
        indices = [record.index for record in self.records]
        if len(indices) != self.info["total_episodes"]:
            found.append(f"{path}: total_episodes is {self.info['total_episodes']}, found {len(indices)} in meta/")
        if self.num_frames != self.info["total_frames"]:
            found.append(f"{path}: total_frames is {self.info['total_frames']}, found {self.num_frames} in meta/")
        if indices != list(range(len(indices))):
            gap = next(i for i, index in enumerate(indices) if i != index)
            found.append(f"{self.root / 'meta'}: expected episode {gap} next, found episode {indices[gap]}")
        for record in self.records:
            places = {"data": record.data, **{key: span.path for key, span in record.videos.items()}}
            for key, place in places.items():
                if not place.is_file():
                    found.append(f"episode {record.index}, {key}: expected the file {place}, found none")
        return found

    def _table(self, path: Path) -> dict[str, np.ndarray]:
        """The columns of a data file; the last one stays in memory because episodes are read in order."""
        if self._last_table is None or self._last_table[0] != path:
            expected = column_shapes(self.info)
            table = read_parquet(path, keep=expected.__contains__)
            missing = [key for key in expected if key not in table.column_names]
            if missing:
                raise InputError(f"{path}: expected a column {missing[0]!r}, found {read_parquet(path).column_names}")
            arrays = {key: _column(path, key, table[key], *declared) for key, declared in expected.items()}
            self._last_table = path, arrays
        return self._last_table[1]


def check_finite(values: np.ndarray, name: str) -> None:
    """`InputError` naming the first frame of (T, ...) values that has a NaN or an infinity."""
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        where = tuple(np.argwhere(~np.isfinite(values))[0])
        channel = f", channel {where[1]}" if len(where) > 1 else ""
        raise InputError(f"{name}: expected finite numbers, found {values[where]} in frame {where[0]}{channel}")


def _column(path: Path, key: str, column: pa.ChunkedArray, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """A parquet column of scalars or nested lists as (T, *shape)."""
    values = column.combine_chunks()
    while pa.types.is_list(values.type) or pa.types.is_fixed_size_list(values.type):
        values = values.flatten()
    flat = values.to_numpy(zero_copy_only=False)
    if flat.size != len(column) * int(np.prod(shape)) or flat.dtype.kind not in "fiub":
        per_row = f"{flat.size / max(len(column), 1):g} x {values.type}"
        raise InputError(f"{path}: expected {key!r} of shape {shape} in {dtype}, found {per_row} a row")
    return flat.astype(dtype, copy=False).reshape(len(column), *shape)
