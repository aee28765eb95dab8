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

from vla_policy.data.format.layout import EpisodeRecord
from vla_policy.interfaces import InputError
from vla_policy.utils.files import broken

COLOURS = ("RGB", "RGBA", "P", "L", "1")  # Pillow's modes of at most 8 bits a channel
CACHED_EPISODES = 16  # episodes per camera whose encoded images are cached
BROKEN = (OSError, SyntaxError, ValueError, struct.error, zlib.error, Image.DecompressionBombError)  # Pillow's errors


class ImageCache:
    """Random access to a camera's images, with a cache of a few episodes' encoded images."""

    def __init__(self, key: str, shape: tuple[int, ...]) -> None:
        self._key, self._shape = key, shape
        self._cache: OrderedDict[int, list[bytes]] = OrderedDict()

    def frame(self, record: EpisodeRecord, number: int) -> np.ndarray:
        """A frame (H, W, 3) uint8 RGB of an episode; `InputError` naming the file if it is corrupt."""
        if record.index not in self._cache:
            if len(self._cache) == CACHED_EPISODES:
                self._cache.popitem(last=False)
            self._cache[record.index] = encoded(record.data, self._key, record.index, record.length)
        self._cache.move_to_end(record.index)
        return decode(record.data, self._key, self._cache[record.index][number], self._shape)


def read_images(path: Path, key: str, episode: int, length: int, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
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
        image = Image.open(io.BytesIO(data))
        if (image.height, image.width, 3) == shape and image.mode in COLOURS:
            return np.asarray(image.convert("RGB"))
        found = f"{image.mode} of {image.height} x {image.width}"
    except BROKEN as error:
        found = f"a broken one ({error})"
    raise InputError(f"{path}: expected every picture of {key!r} as RGB of {shape[0]} x {shape[1]}, found {found}")
