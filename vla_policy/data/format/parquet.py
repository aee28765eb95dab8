"""Parquet files: written atomically, read with errors that name the file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from vla_policy.interfaces import InputError
from vla_policy.utils.files import broken, write_whole


def write_parquet(path: Path, table: pa.Table) -> None:
    write_whole(path, lambda temporary: pq.write_table(table, temporary, compression="snappy"))


def read_parquet(path: Path, keep: Callable[[str], bool] | None = None) -> pa.Table:
    """The table, or those of its columns that `keep` wants; `InputError` naming the file if it is unreadable."""
    with _reading(path), pq.ParquetFile(path) as file:
        columns: Sequence[str] = file.schema_arrow.names
        twice = [name for name, count in Counter(columns).items() if count > 1]
        if twice:
            raise InputError(f"{path}: expected every column once, found {twice[0]!r} again")
        return file.read(columns=[name for name in columns if keep is None or keep(name)])


def column_names(path: Path) -> list[str]:
    """The names of all columns; `InputError` naming the file if it is unreadable."""
    with _reading(path), pq.ParquetFile(path) as file:
        return list(file.schema_arrow.names)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Convert errors of reading a file to an `InputError` naming it."""
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{path}: expected a parquet file, found none") from None
    except InputError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{path}: expected a whole parquet file, found {broken(path, error)}") from None
