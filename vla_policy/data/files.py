"""Atomic file writing, and parquet and JSON with errors that name the file."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from vla_policy.interfaces import InputError

LFS = b"version https://git-lfs.github.com/spec/"
# Suffix that marks unfinished files as this package's own. Their names are hidden, so that globs do not match them.
TEMPORARY = ".vla_policy.tmp"


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Atomic write: `write` fills a temporary file, which is synced and renamed to `path`, or removed on failure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        write(temporary)
        sync(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Force a file or a folder's entries to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, data: Any) -> None:
    write_whole(path, lambda temporary: temporary.write_text(json.dumps(data, indent=4) + "\n", encoding="utf-8"))


def read_json(path: Path) -> Any:
    """Parsed JSON; `InputError` naming the file if it is missing or invalid."""
    try:
        return json.loads(path.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError:
        raise InputError(f"{path}: expected a JSON file, found none") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: expected JSON, found {broken(path, error)}") from None


def read_json_lines(path: Path) -> list[Any]:
    """One value per line; `InputError` naming file and line."""
    if not path.is_file():
        raise InputError(f"{path}: expected a JSON lines file, found none")
    values = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        try:
            values += [json.loads(line.decode("utf-8-sig"))] if line.strip() else []
        except UnicodeDecodeError:
            raise InputError(f"{path}, line {number}: expected UTF-8, found another encoding") from None
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}, line {number}: expected JSON, found {broken(path, error)}") from None
    return values


def broken(path: Path, reason: object) -> str:
    """For an error: what an unreadable file is, a Git LFS pointer or a corrupt file."""
    with suppress(OSError), open(path, "rb") as file:
        if file.read(len(LFS)) == LFS:
            return "a Git LFS pointer (git lfs pull brings the file)"
    return f"a broken one ({next(iter(str(reason).splitlines()), type(reason).__name__)})"


def write_parquet(path: Path, table: pa.Table) -> None:
    write_whole(path, lambda temporary: pq.write_table(table, temporary, compression="snappy"))


def read_parquet(path: Path, keep: Callable[[str], bool] | None = None) -> pa.Table:
    """The table, or its columns selected by `keep`; `InputError` naming the file if it is unreadable."""
    try:
        with pq.ParquetFile(path) as file:
            columns: Sequence[str] = file.schema_arrow.names
            twice = [name for name, count in Counter(columns).items() if count > 1]
            if twice:
                raise InputError(f"{path}: expected every column once, found {twice[0]!r} again")
            return file.read(columns=[name for name in columns if keep is None or keep(name)])
    except FileNotFoundError:
        raise InputError(f"{path}: expected a parquet file, found none") from None
    except InputError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{path}: expected a whole parquet file, found {broken(path, error)}") from None


def reserve(file: IO[bytes], folder: Path, size: int) -> None:
    """Allocate `size` bytes for a file in `folder` that will be memory-mapped: a full disk would otherwise crash the
    process with SIGBUS. `InputError` if there is not enough space.
    """
    try:
        os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        raise InputError(f"{folder}: expected {size / 1e9:.1f} GB of space, found {error.strerror}") from None
