"""Reading of LeRobotDataset v3.0 and v2.1 with pyarrow and PyAV, without `lerobot`."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, chain, groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from vla_policy.data.format import video
from vla_policy.data.format.encoded_images import read_images
from vla_policy.data.format.features import read_features
from vla_policy.data.format.findings import Finding, listed
from vla_policy.data.format.index import read_index, read_info, video_keys
from vla_policy.data.format.layout import EpisodeRecord
from vla_policy.data.format.parquet import read_parquet
from vla_policy.data.format.spans import locate
from vla_policy.interfaces import ACTION, EXECUTED, InputError, Interface
from vla_policy.utils.exchange import Exchange
from vla_policy.utils.files import read_json
from vla_policy.utils.recordings import read_interventions

log = logging.getLogger(__name__)

LISTS = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
NUMBERS = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean)
COUNTERS = ("timestamp", "frame_index", "episode_index", "task_index")


@dataclass(frozen=True)
class Episode:
    """One episode: `columns` maps every numeric feature to its values (T, D), `timestamp` [s] and the other counters to
    (T,); `tasks` has the sentence of each frame.
    """

    index: int
    tasks: Sequence[str]
    columns: Mapping[str, np.ndarray]

    @property
    def task(self) -> str:
        """The episode's sentence, or the distinct ones in order."""
        return ", then ".join(task for task, _ in groupby(self.tasks))

    @property
    def length(self) -> int:
        return len(self.columns["frame_index"])

    @property
    def executed(self) -> np.ndarray:
        """The actions (T, D) that the robot was sent; those recorded, unless the dataset tells them apart."""
        return self.columns.get(EXECUTED, self.columns[ACTION])


class LeRobotDataset:
    """A dataset at `root`, opened for reading, without the episodes in `exclude`.

    Episodes are addressed by their index in the dataset, listed in `episodes`; there may be gaps. Features other than
    colour images and numeric vectors are ignored (`left_out` has the reasons). `InputError` if it is no dataset or its
    metadata is inconsistent (with `strict=False` see `problems` instead). `span_findings` are videos whose spans were
    corrected or are unreliable, logged as warnings; frames of the latter raise an `InputError`. An episode that was
    being written when its writer was killed is not part of the dataset; `uncounted` is its record.
    """

    def __init__(self, root: str | Path, strict: bool = True, exclude: Collection[int] = ()) -> None:
        self.root = Path(root)
        Exchange(self.root.resolve()).recover()
        self.info: dict[str, Any] = read_info(self.root)
        self.fps: float = self.info["fps"]
        self.features: dict[str, Any] = self.info["features"]
        self._read = read_features(self.features)
        self.interface = self._read_interface()
        records, self.tasks = read_index(self.root, self.info)
        self.uncounted = records.pop() if self._ends_unfinished(records) else None
        records, self.span_findings = locate(records, self.fps)
        self.records = {record.index: record for record in records}
        self.problems: list[Finding] = self._problems(records)
        if strict and self.problems:
            more = f" (and {len(self.problems) - 1} more)" if len(self.problems) > 1 else ""
            raise InputError(self.problems[0].message + more)
        for finding in self.span_findings if strict else ():
            log.warning("%s", finding)
        unknown = sorted({*exclude}.difference(self.episodes))
        if unknown:
            raise InputError(f"{self.root}: expected episodes {listed(self.episodes)} to exclude, found {unknown[0]}")
        self.records = {index: record for index, record in self.records.items() if index not in exclude}
        ends = accumulate(record.length for record in self.records.values())
        self._ends = dict(zip(self.records, ends, strict=True))
        self._last_table: tuple[Path, dict[str, np.ndarray]] | None = None

    @property
    def episodes(self) -> list[int]:
        """Episode indices in order."""
        return list(self.records)

    @property
    def left_out(self) -> Mapping[str, str]:
        """Reasons why features are ignored, by name."""
        return self._read.left_out

    @property
    def num_episodes(self) -> int:
        return len(self.records)

    @property
    def num_frames(self) -> int:
        return sum(record.length for record in self.records.values())

    @property
    def lengths(self) -> np.ndarray:
        """Frames by episode index (last index + 1,), 0 in a gap."""
        lengths = np.zeros(max(self.records, default=-1) + 1, np.int64)
        for index, record in self.records.items():
            lengths[index] = record.length
        return lengths

    @cached_property
    def interventions(self) -> Mapping[int, Sequence[tuple[int, int]]]:
        """By episode the recorded takeovers, spans of frames [first, last), of episodes that have any."""
        found = read_interventions(self.root)
        return {index: spans for index, spans in found.items() if index in self.records}

    def fingerprint(self) -> str | None:
        """Of the first episode's actions: it stays when the folder is renamed, moved or recorded into again.

        None of a dataset without frames.
        """
        for index in self.episodes:
            if self.length(index):
                return hashlib.sha256(self.episode(index).columns[ACTION].tobytes()).hexdigest()[:16]
        return None

    def length(self, index: int) -> int:
        """Frames of an episode."""
        return self._record(index).length

    def rows(self, index: int) -> slice:
        """The episode's rows in the concatenation of all episodes."""
        record = self._record(index)
        stop = self._ends[index]
        return slice(stop - record.length, stop)

    def missing_files(self, cameras: Iterable[str], episodes: Collection[int] | None = None) -> list[Finding]:
        """Missing data and video files of these cameras and `episodes` (default: all)."""
        found = []
        for record in self.records.values():
            if episodes is None or record.index in episodes:
                videos = {key: record.videos[key].path for key in cameras if key in record.videos}
                for key, path in {"data": record.data, **videos}.items():
                    if not path.is_file():
                        found.append(Finding(record.index, key, f"expected the file {path}, found none"))
        return found

    def require_whole(self) -> None:
        """`InputError` unless episodes are numbered 0, 1, 2, ... and all files exist, which writing requires."""
        last = self.num_episodes - 1
        if self.episodes != list(range(last + 1)):
            raise InputError(f"{self.root}: expected episodes 0 to {last}, found {listed(self.episodes)}")
        for missing in self.missing_files(video_keys(self.info)):
            raise InputError(str(missing))

    def episode(self, index: int, finite: bool = True) -> Episode:
        """All vectors of an episode; `InputError` naming file and key for missing, misshapen or non-finite values,
        which are accepted unless `finite`.
        """
        record = self._record(index)
        if record.length == 0:
            raise InputError(f"{record.meta}: expected frames of episode {index}, found a length of 0")
        table = self._table(record.data)
        rows = np.flatnonzero(table["episode_index"] == record.index)
        if len(rows) != record.length:
            raise InputError(f"{record.data}: expected {record.length} rows of episode {index}, found {len(rows)}")
        columns = {key: values[rows] for key, values in table.items()}
        for key, values in columns.items() if finite else ():
            check_finite(values, f"{record.data}, episode {index}, {key!r}")
        numbers = columns["task_index"]
        wrong = numbers[(numbers < 0) | (numbers >= len(self.tasks))]
        if len(wrong):
            raise InputError(
                f"{record.data}, episode {index}: expected a task_index below {len(self.tasks)}, found {wrong[0]}"
            )
        return Episode(record.index, [self.tasks[number] for number in numbers.tolist()], columns)

    def frames(self, index: int, key: str) -> np.ndarray:
        """All frames of a camera in an episode, (T, H, W, 3) uint8 RGB."""
        decoded = self.iter_frames(index, key)
        first = next(decoded, None)  # checks the declared size before memory is allocated
        frames = np.empty((0 if first is None else self._record(index).length, *self.image_shape(key)), np.uint8)
        if first is not None:
            for row, frame in zip(frames, chain([first], decoded), strict=True):
                row[...] = frame
        return frames

    def iter_frames(self, index: int, key: str) -> Iterator[np.ndarray]:
        """The frames one at a time; `InputError` naming the file if it is corrupt or has another size."""
        record, shape = self._record(index), self.image_shape(key)
        if record.length == 0:
            return
        path = record.data
        if self.in_parquet(key):
            decoded = read_images(path, key, record.index, record.length, shape)
        else:
            span = record.span(key)
            path, decoded = span.path, video.decode(span.path, span.start, record.length, self.fps)
        for frame in decoded:
            if frame.shape != shape:
                raise InputError(f"{path}: expected frames of shape {shape}, found {frame.shape}")
            yield frame

    def image_shape(self, key: str) -> tuple[int, int, int]:
        """(H, W, 3) of a camera; `InputError` if there is no such camera."""
        if key not in self._read.cameras:
            raise InputError(f"{self.root}: expected a camera {key!r}, found {self.found(key)}")
        height, width, channels = self._read.cameras[key].shape
        return height, width, channels

    def in_parquet(self, key: str) -> bool:
        """Whether a camera's images are in the data files, not in videos."""
        return bool(self.features[key]["dtype"] == "image")

    def found(self, key: str) -> str:
        """For an error: what the dataset has instead of the observation `key`."""
        if key in self.left_out:
            return f"it left out ({self.left_out[key]})"
        return str(sorted(self.interface.observations))

    def _record(self, index: int) -> EpisodeRecord:
        if index not in self.records:
            raise InputError(f"{self.root}: expected an episode from {listed(self.episodes)}, found {index}")
        return self.records[index]

    def _read_interface(self) -> Interface:
        implied = self._read.interface(self.root / "meta" / "info.json", self.fps)
        path = self.root / "meta" / "interface.json"
        if not path.exists():
            return implied
        stored = Interface.from_dict(read_json(path))
        stored.require(implied, str(path), "info.json")
        return stored

    def _ends_unfinished(self, records: Sequence[EpisodeRecord]) -> bool:
        """Whether the last episode, alone in its files, is missing from info.json."""
        if self.info["codebase_version"] != "v3.0" or len(records) != self.info["total_episodes"] + 1:
            return False
        last = records[-1]
        return all(last.meta != record.meta and last.data != record.data for record in records[:-1])

    def _problems(self, records: Sequence[EpisodeRecord]) -> list[Finding]:
        path = self.root / "meta" / "info.json"
        counts = {"total_episodes": len(records), "total_frames": sum(record.length for record in records)}
        found = [
            Finding(None, "meta", f"{path}: {key} is {self.info[key]}, found {count} in meta/")
            for key, count in counts.items()
            if self.info[key] != count
        ]
        twice = [one.index for one, next_ in pairwise(records) if one.index == next_.index]
        if twice:
            where = self.root / "meta"
            found.append(Finding(twice[0], "meta", f"{where}: expected episode {twice[0]} once, found it twice"))
        return found

    def _table(self, path: Path) -> dict[str, np.ndarray]:
        """The columns of a data file; the last file is cached because episodes are read in order.

        Counters are read whether info.json declares them or not; `task_index` is optional for a single task.
        """
        if self._last_table is None or self._last_table[0] != path:
            counters = [*COUNTERS, *{"index"}.intersection(self.features)]
            expected: dict[str, tuple[np.dtype, tuple[int, ...]]] = {
                key: (np.dtype(np.float64 if key == "timestamp" else np.int64), ()) for key in counters
            }
            expected |= {key: (self._read.dtypes[key], feature.shape) for key, feature in self._read.vectors.items()}
            table = read_parquet(path, keep=expected.__contains__)
            if "task_index" not in table.column_names and len(self.tasks) == 1:
                table = table.append_column("task_index", pa.array(np.zeros(len(table), np.int64)))
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
    while any(is_list(values.type) for is_list in LISTS):
        values = values.flatten()
    if not any(is_number(values.type) for is_number in NUMBERS):
        raise InputError(f"{path}: expected {key!r} of shape {shape} in {dtype}, found {values.type}")
    if len(values) != len(column) * math.prod(shape):
        per_row = f"{len(values) / max(len(column), 1):g} x {values.type}"
        raise InputError(f"{path}: expected {key!r} of shape {shape} in {dtype}, found {per_row} a row")
    if values.null_count and dtype.kind != "f":
        raise InputError(f"{path}: expected a value of {key!r} in every row, found none in {values.null_count}")
    array: np.ndarray = values.to_numpy(zero_copy_only=False).astype(dtype, copy=False)
    return array.reshape(len(column), *shape)
