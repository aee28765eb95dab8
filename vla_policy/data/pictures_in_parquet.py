"""Pictures that are kept, encoded, in the data files themselves (features of dtype "image")."""

from __future__ import annotations

import io
import struct
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from vla_policy.data.files import broken
from vla_policy.interfaces import InputError

if TYPE_CHECKING:
    from vla_policy.data.dataset import LeRobotDataset

COLOURS = ("RGB", "RGBA", "P", "L", "1")  # Pillow's modes of at most 8 bits a channel
KEPT = 16  # episodes a camera, whose encoded pictures stay in memory
BROKEN = (OSError, SyntaxError, ValueError, struct.error, zlib.error, Image.DecompressionBombError)  # Pillow's errors


class PictureFrames:
    """All frames of camera `key` in order, to be indexed by rows like the array (N, H, W, 3) uint8 of a `FrameCache`.

    `InputError` naming the file when a picture is asked for that cannot be decoded.
    """

    def __init__(self, dataset: LeRobotDataset, key: str) -> None:
        self.shape = (dataset.num_frames, *dataset.image_shape(key))
        self._key, self._records = key, dataset.records
        self._starts = np.cumsum(dataset.lengths) - dataset.lengths
        self._kept: OrderedDict[int, list[bytes]] = OrderedDict()

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Frames (*rows.shape, H, W, 3); each is decoded once."""
        wanted, places = np.unique(rows, return_inverse=True)
        frames = np.empty((len(wanted), *self.shape[1:]), np.uint8)
        for frame, row in zip(frames, wanted.tolist(), strict=True):
            place = int(np.searchsorted(self._starts, row, side="right")) - 1
            data = self._encoded(place)[row - int(self._starts[place])]
            frame[...] = decode(self._records[place].data, self._key, data, self.shape[1:])
        return frames[places.reshape(np.shape(rows))]

    def _encoded(self, place: int) -> list[bytes]:
        if place not in self._kept:
            if len(self._kept) == KEPT:
                self._kept.popitem(last=False)
            record = self._records[place]
            self._kept[place] = encoded(record.data, self._key, record.index, record.length)
        self._kept.move_to_end(place)
        return self._kept[place]


def read_pictures(path: Path, key: str, episode: int, length: int, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """The pictures (H, W, 3) uint8 RGB of an episode, one after the other; `InputError` naming the file."""
    for data in encoded(path, key, episode, length):
        yield decode(path, key, data, shape)


def encoded(path: Path, key: str, episode: int, length: int) -> list[bytes]:
    """The pictures of an episode as its data file has them, PNG or JPEG."""
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
    """One picture (H, W, 3); its size is compared with `shape` before it is decoded."""
    try:
        picture = Image.open(io.BytesIO(data))
        if (picture.height, picture.width, 3) == shape and picture.mode in COLOURS:
            return np.asarray(picture.convert("RGB"))
        found = f"{picture.mode} of {picture.height} x {picture.width}"
    except BROKEN as error:
        found = f"a broken one ({error})"
    raise InputError(f"{path}: expected every picture of {key!r} as RGB of {shape[0]} x {shape[1]}, found {found}")
