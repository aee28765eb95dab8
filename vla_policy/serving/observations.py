"""Observations as tensors of a message, and back.

By feature key, a vector's tensor is (B, n_obs_steps, D) float32, a camera's (B, n_image_steps, height, width, 3) uint8:
the newest pictures, those that the policy looks at. A camera whose pictures travel as JPEG has instead all files, one
after the other, (N,) uint8, and as `<key>.sizes` their lengths (B, n_image_steps) int64. `t` has the time stamps
(B, n_obs_steps) float64. What the chunk of history k continues is `given.k`, rows (n, D) float64, of which as many are
frozen as the header says.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, UnidentifiedImageError

from vla_policy.interfaces import DataError, Given, Interface, Observation
from vla_policy.serving.protocol import LARGEST_HEADER, MOST_HISTORIES

TIMES, SIZES, GIVEN = "t", ".sizes", "given."


def to_tensors(
    histories: Sequence[Sequence[Observation]], interface: Interface, n_image_steps: int, jpeg: int = 0
) -> dict[str, np.ndarray]:
    """The tensors of histories that fit `interface`; `jpeg` is the pictures' quality, 0: as they are."""
    tensors = {TIMES: np.array([[observation.t for observation in history] for history in histories], np.float64)}
    for key, feature in interface.observations.items():
        if feature.dtype != "image":
            tensors[key] = np.array([[seen.values[key] for seen in history] for history in histories], np.float32)
            continue
        pictures = [[seen.values[key] for seen in history[-n_image_steps:]] for history in histories]
        if jpeg:
            files = [[_compressed(pixels, jpeg) for pixels in row] for row in pictures]
            tensors[key] = np.frombuffer(b"".join(file for row in files for file in row), np.uint8)
            tensors[key + SIZES] = np.array([[len(file) for file in row] for row in files], np.int64)
        else:
            tensors[key] = np.array(pictures, np.uint8)
    return tensors


def to_histories(
    tensors: Mapping[str, np.ndarray], tasks: Sequence[str], interface: Interface, n_obs_steps: int, n_image_steps: int
) -> list[list[Observation]]:
    """The histories, one a task; `DataError` naming the tensor that does not fit.

    Observations older than the pictures have the oldest of these, which the policy does not look at there.
    """
    if not 0 < len(tasks) <= MOST_HISTORIES or not all(isinstance(task, str) for task in tasks):
        raise DataError(f"message: tasks: expected 1 to {MOST_HISTORIES} sentences, found {len(tasks)} entries")
    times = _tensor(tensors, TIMES, (len(tasks), n_obs_steps), np.float64)
    values = {}
    for key, feature in interface.observations.items():
        if feature.dtype == "image":
            pictures = _pictures(tensors, key, (len(tasks), n_image_steps, *feature.shape))
            steps = np.maximum(np.arange(n_obs_steps) - (n_obs_steps - n_image_steps), 0)
            values[key] = [[row[step] for step in steps] for row in pictures]
        else:
            values[key] = list(_tensor(tensors, key, (len(tasks), n_obs_steps, *feature.shape), np.float32))
    return [
        [
            Observation({key: value[b][k] for key, value in values.items()}, task, t)
            for k, t in enumerate(times[b].tolist())
        ]
        for b, task in enumerate(tasks)
    ]


def given_tensors(given: Sequence[Given | None]) -> tuple[dict[str, np.ndarray], list[int]]:
    """What chunks continue: the tensors, and how many rows of each are frozen, 0 for a chunk that is free."""
    rows = {f"{GIVEN}{k}": np.asarray(entry.rows, np.float64) for k, entry in enumerate(given) if entry is not None}
    return rows, [0 if entry is None else entry.frozen for entry in given]


def to_given(tensors: Mapping[str, np.ndarray], frozen: Sequence[object], interface: Interface) -> list[Given | None]:
    """What `given_tensors` was made of; `DataError` naming what does not fit."""
    return [None if count == 0 else _given(tensors, k, count, interface) for k, count in enumerate(frozen)]


def _given(tensors: Mapping[str, np.ndarray], k: int, count: object, interface: Interface) -> Given:
    name = f"{GIVEN}{k}"
    length = len(tensors[name]) if name in tensors and tensors[name].ndim else 0
    rows = _tensor(tensors, name, (length, *interface.action.shape), np.float64)
    if not isinstance(count, int) or isinstance(count, bool) or not np.isfinite(rows).all():
        raise DataError(f"message: {name}: expected finite rows and a number of frozen ones, found {count!r:.40}")
    return Given(rows, count)


def largest_request(interface: Interface, n_obs_steps: int) -> int:
    """Bytes of a request that asks for as many chunks as may be."""
    sizes = [int(np.prod(f.shape)) * (1 if f.dtype == "image" else 4) for f in interface.observations.values()]
    return MOST_HISTORIES * n_obs_steps * (sum(sizes) + 8 * (1 + len(sizes))) + 2 * LARGEST_HEADER


def _pictures(tensors: Mapping[str, np.ndarray], key: str, shape: tuple[int, ...]) -> np.ndarray:
    """A camera's pictures in this shape, (B, n_image_steps, height, width, 3)."""
    if key + SIZES not in tensors:
        return _tensor(tensors, key, shape, np.uint8)
    sizes = _tensor(tensors, key + SIZES, shape[:2], np.int64)
    files = _tensor(tensors, key, (int(np.size(tensors.get(key, ()))),), np.uint8)
    if (sizes < 0).any() or (sizes > len(files)).any() or sizes.sum() != len(files):
        raise DataError(f"message: {key + SIZES}: expected lengths of {len(files)} bytes in all, found others")
    parts = np.split(files, np.cumsum(sizes)[:-1])
    return np.stack([_decompressed(key, part, shape[2:]) for part in parts]).reshape(shape)


def _tensor(tensors: Mapping[str, np.ndarray], name: str, shape: tuple[int, ...], dtype: type) -> np.ndarray:
    value = tensors.get(name)
    if value is None or value.shape != shape or value.dtype != dtype:
        found = "none" if value is None else f"{value.dtype} of {value.shape}"
        raise DataError(f"message: {name}: expected {np.dtype(dtype)} of {shape}, found {found}")
    return value


def _compressed(pixels: np.ndarray, quality: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return file.getvalue()


def _decompressed(key: str, file: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Pixels of this shape; the file's header is looked at before anything is unpacked."""
    try:
        with Image.open(io.BytesIO(file.tobytes()), formats=["JPEG"]) as image:
            if (image.height, image.width) == shape[:2]:
                return np.asarray(image.convert("RGB"))
            found = f"one of {image.width} x {image.height}"
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        found = f"{error!s:.80}"
    raise DataError(f"message: {key}: expected a JPEG of {shape[1]} x {shape[0]} pixels, found {found}")
