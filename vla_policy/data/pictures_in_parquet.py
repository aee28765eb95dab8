"""Images stored encoded in the data files (features of dtype "image")."""

from __future__ import annotations

import io
import struct
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from vla_policy.data.layout import EpisodeRecord
from vla_policy.interfaces import InputError
from vla_policy.utils.files import broken

COLOURS = ("RGB", "RGBA", "P", "L", "1")  # Pillow's modes of at most 8 bits a channel
KEPT = 16  # episodes per camera whose encoded images are cached
BROKEN = (OSError, SyntaxError, ValueError, struct.error, zlib.error, Image.DecompressionBombError)  # Pillow's errors


class KeptPictures:
    """Random access to a camera's images, with a cache of a few episodes' encoded images."""

    def __init__(self, key: str, shape: tuple[int, ...]) -> None:
        self._key, self._shape = key, shape
        self._kept: OrderedDict[int, list[bytes]] = OrderedDict()

    def frame(self, record: EpisodeRecord, number: int) -> np.ndarray:
        """A frame (H, W, 3) uint8 RGB of an episode; `InputError` naming the file if it is corrupt."""
        if record.index not in self._kept:
            if len(self._kept) == KEPT:
                self._kept.popitem(last=False)
            self._kept[record.index] = encoded(record.data, self._key, record.index, record.length)
        self._kept.move_to_end(record.index)
        return decode(record.data, self._key, self._kept[record.index][number], self._shape)


def read_pictures(path: Path, key: str, episode: int, length: int, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """Iterate over an episode's frames (H, W, 3) uint8 RGB; `InputError` naming the file."""
    for data in encoded(path, key, episode, length):
        yield decode(path, key, data, shape)


def encoded(path: Path, key: str, episode: int, length: int) -> list[bytes]:
    """An episode's encoded images, PNG or JPEG."""
    try:
        table = pq.read_table(path, columns=[key], filters=[("episode_index", "==", episode)], partitioning=None)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{path}: expected pictures of {key!r}, found {broken(path, error)}") from None
    kind = table.schema.field(key).type
    if not isinstance(kind, pa.StructType) or kind.get_field_index("bytes") < 0:
        raise InputError(f"{path}: expected {key!r} as encoded pictures with 'bytes', found {kind}")
    if len(table) != length:
        raise InputError(f"{path}: expected {length} rows of episode {episode}, found {len(table)}")
    return [data or b"" for data in pc.struct_field(table[key], "bytes").to_pylist()]


def decode(path: Path, key: str, data: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """One image (H, W, 3); its size is checked against `shape` before decoding."""
    try:
        picture = Image.open(io.BytesIO(data))
        if (picture.height, picture.width, 3) == shape and picture.mode in COLOURS:
            return np.asarray(picture.convert("RGB"))
        found = f"{picture.mode} of {picture.height} x {picture.width}"
    except BROKEN as error:
        found = f"a broken one ({error})"
    raise InputError(f"{path}: expected every picture of {key!r} as RGB of {shape[0]} x {shape[1]}, found {found}")
