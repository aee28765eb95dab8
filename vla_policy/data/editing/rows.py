"""The rows of an edited dataset's data files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vla_policy.data.dataset import Episode
from vla_policy.data.editing.plan import Plan
from vla_policy.data.format import layout
from vla_policy.data.writing.replace import file_place, free_numbers
from vla_policy.utils.files import sync


def counters(number: int, start: int, tasks: Sequence[int]) -> dict[str, np.ndarray]:
    """What is counted anew in an episode: its `number`, its rows from row `start` of the dataset on, its `tasks`."""
    length = len(tasks)
    return {
        "episode_index": np.full(length, number),
        "index": start + np.arange(length),
        "task_index": np.asarray(tasks, np.int64),
    }


def edited_rows(plan: Plan, rows: pa.Table, episode: Episode, counted: Mapping[str, np.ndarray]) -> pa.Table:
    """The rows of an episode as the new dataset has them, from the `rows` of its data file.

    Vectors are stored as info.json declares them. Columns that this package does not read are taken over as they are.
    """
    columns: dict[str, Any] = {}
    for key in rows.column_names:
        name = plan.name(key)
        if name is not None:
            entry = plan.features.get(name)
            vector = entry is not None and len(entry["shape"]) == 1 and key in episode.columns
            columns[name] = _stored(episode.columns[key], entry) if vector else rows[key]
    for key, values in counted.items():
        columns[key] = pa.array(values, pa.int64())
    return pa.table(columns).replace_schema_metadata(None)


def _stored(values: np.ndarray, entry: Any) -> pa.Array:
    """Values (T, D) or (T,) as fixed-size lists or, of one channel, as scalars."""
    flat = pa.array(np.ravel(values).astype(entry["dtype"], copy=False))
    (size,) = entry["shape"]
    return flat if size == 1 else pa.FixedSizeListArray.from_arrays(flat, size)


class DataFiles:
    """Writes rows to data files of `out`, numbered from `first` on: a row group an episode, as many as fit."""

    def __init__(self, out: Path, first: int) -> None:
        self._out, self._numbers = out, free_numbers(out, layout.DATA_PATH, first=first)
        self._writer: pq.ParquetWriter | None = None
        self._path, self._number, self._size = out, 0, 0

    def write(self, rows: pa.Table) -> int:
        """The number of the file that the rows are in; another one begins where the old one is full."""
        full = self._size + rows.nbytes > layout.DATA_FILE_MB * 2**20
        if self._writer is None or full or not self._writer.schema.equals(rows.schema):
            self.close()
            self._number, self._size = next(self._numbers), 0
            self._path = self._out / layout.DATA_PATH.format(**file_place(self._number))
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(self._path, rows.schema, compression="snappy")
        self._writer.write_table(rows)
        self._size += rows.nbytes
        return self._number

    def close(self) -> None:
        """Finish the last file."""
        if self._writer is not None:
            self._writer.close()
            sync(self._path)
            self._writer = None

    def __enter__(self) -> DataFiles:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
