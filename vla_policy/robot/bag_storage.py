"""Reads rosbag2's files (MCAP and sqlite3, compressed or not) as serialised messages."""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Any, NamedTuple

from vla_policy.interfaces import InputError

MCAP, SQLITE = ".mcap", ".db3"
_COMPRESSED = (".zstd", ".zst")  # follows the storage's suffix
_MAGIC = b"\x89MCAP0\r\n"  # MCAP files begin and end with it
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"  # no serialised message begins with it: CDR begins with a zero
_RECORD = 1 << 30  # bytes; longer MCAP records are taken as corrupt before memory is allocated
NOT_INSTALLED = "expected rosbags and mcap to be installed (pip install rosbags mcap), found none"


class Serialised(NamedTuple):
    """A serialised message: topic, type ("" if unknown), receive time, and CDR bytes."""

    topic: str
    type: str
    nanoseconds: int
    data: bytes


def is_storage(path: Path) -> bool:
    """Whether a file has the suffix of MCAP or sqlite3 storage, compressed or not."""
    return _kind(path) in (MCAP, SQLITE) and path.is_file()


def read_storage(path: Path) -> Iterator[Serialised]:
    """The messages of one file, for MCAP in file order; individually compressed messages are decompressed.

    A truncated MCAP file is read up to its last complete record; checksums are verified where present. `InputError` if
    the file is of another kind or corrupt.
    """
    if not path.is_file():
        raise InputError(f"{path}: expected a bag, found none")
    if _kind(path) not in (MCAP, SQLITE):
        raise InputError(f"{path}: expected a ROS 2 bag, .mcap or .db3, found another suffix")
    try:
        for topic, kind, nanoseconds, data in _mcap(path) if _kind(path) == MCAP else _sqlite(path):
            yield Serialised(
                topic, kind, nanoseconds, _decompressor().decompress(data) if data.startswith(_ZSTD_MAGIC) else data
            )
    except InputError:
        raise
    except Exception as error:  # the readers raise AssertionErrors and others for corrupt files
        raise InputError(f"{path}: expected a whole bag, found a broken one ({error_text(error)})") from None


def has_end(path: Path) -> bool:
    """Whether an MCAP file was closed; always true for sqlite3."""
    if _kind(path) != MCAP:
        return True
    with _open(path) as file:
        if path.suffix == MCAP:
            file.seek(-min(len(_MAGIC), path.stat().st_size), os.SEEK_END)
        tail = b""
        while block := file.read(1 << 20):  # a compressed file has to be read to its end
            tail = (tail + block)[-len(_MAGIC) :]
        return tail == _MAGIC


def error_text(error: Exception) -> str:
    """A reader's error in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _kind(path: Path) -> str:
    return Path(path.stem).suffix if path.suffix in _COMPRESSED else path.suffix


def _mcap(path: Path) -> Iterator[tuple[str, str, int, bytes]]:
    try:
        from mcap.exceptions import McapError
        from mcap.reader import NonSeekingReader
    except ImportError:
        raise InputError(f"mcap: {NOT_INSTALLED}") from None
    read = 0
    with _open(path) as file:
        try:
            reader = NonSeekingReader(file, validate_crcs=True, record_size_limit=_RECORD)
            for schema, channel, message in reader.iter_messages(log_time_order=False):
                yield channel.topic, schema.name if schema else "", message.log_time, message.data
                read += 1
        except (McapError, struct.error, EOFError) as error:
            if read == 0:
                raise InputError(f"{path}: expected an MCAP file with messages, found {error_text(error)}") from None
            if has_end(path):  # a truncated file is no error
                raise InputError(f"{path}: expected a whole bag, found a broken one ({error_text(error)})") from None


def _sqlite(path: Path) -> Iterator[tuple[str, str, int, bytes]]:
    try:
        from rosbags.rosbag2 import Reader
    except ImportError:
        raise InputError(f"rosbags: {NOT_INSTALLED}") from None
    with _decompressed(path) as plain, Reader(plain) as reader:
        for connection, nanoseconds, data in reader.messages():
            yield connection.topic, connection.msgtype, nanoseconds, data


@contextmanager
def _decompressed(path: Path) -> Iterator[Path]:
    """A seekable file: itself, or a decompressed temporary copy."""
    if path.suffix not in _COMPRESSED:
        yield path
        return
    with NamedTemporaryFile(suffix=_kind(path)) as plain, _open(path) as file:
        shutil.copyfileobj(file, plain)
        plain.flush()
        yield Path(plain.name)


@contextmanager
def _open(path: Path) -> Iterator[IO[bytes]]:
    with path.open("rb") as file:
        if path.suffix in _COMPRESSED:
            with _decompressor().stream_reader(file, read_across_frames=True) as stream:
                yield stream
        else:
            yield file


def _decompressor() -> Any:
    try:
        from zstandard import ZstdDecompressor
    except ImportError:
        raise InputError(f"zstandard: {NOT_INSTALLED}") from None
    return ZstdDecompressor()
