"""Atomic writing of JSON, CSV and other files, and reading of JSON with errors that name the file."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np

from vla_policy.interfaces import Failure, InputError

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
    """Write standard JSON: numpy scalars become numbers, and numbers that are not finite become null."""
    text = json.dumps(finite(data), indent=4) + "\n"
    write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def finite(value: Any) -> Any:
    """The value as standard JSON has it: numpy scalars become numbers, and numbers that are not finite become None."""
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a table with a header; every row has the `columns` as keys."""

    def write(temporary: Path) -> None:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)

    write_whole(path, write)


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


def reserve(file: IO[bytes], folder: Path, size: int) -> None:
    """Allocate `size` bytes for a file in `folder` that will be memory-mapped: a full disk would otherwise kill the
    process later. `Failure` if there is less space.
    """
    try:
        os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        raise Failure(f"{folder}: expected {size / 1e9:.1f} GB of space, found {error.strerror}") from None
