"""Observations as tensors of a message, and back.

By feature key, a vector's tensor is (B, n_obs_steps, D) float32, a camera's (B, n_obs_steps, height, width, 3) uint8. A
camera whose pictures travel as JPEG has instead all files, one after the other, (N,) uint8, and as `<key>.sizes` their
lengths (B, n_obs_steps) int64. `t` has the time stamps (B, n_obs_steps) float64.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, UnidentifiedImageError

from vla_policy.interfaces import DataError, Feature, Interface, Observation
from vla_policy.serving.protocol import LARGEST_HEADER, MOST_HISTORIES

TIMES, SIZES = "t", ".sizes"


def to_tensors(
    histories: Sequence[Sequence[Observation]], interface: Interface, jpeg: int = 0
) -> dict[str, np.ndarray]:
    """The tensors of histories that fit `interface`; `jpeg` is the pictures' quality, 0: as they are."""
    tensors = {TIMES: np.array([[observation.t for observation in history] for history in histories])}
    for key, feature in interface.observations.items():
        values = [[observation.values[key] for observation in history] for history in histories]
        if feature.dtype == "image" and jpeg:
            files = [[_compressed(pixels, jpeg) for pixels in row] for row in values]
            tensors[key] = np.frombuffer(b"".join(file for row in files for file in row), np.uint8)
            tensors[key + SIZES] = np.array([[len(file) for file in row] for row in files])
        else:
            tensors[key] = np.asarray(values, np.uint8 if feature.dtype == "image" else np.float32)
    return tensors


def to_histories(
    tensors: Mapping[str, np.ndarray], tasks: Sequence[str], interface: Interface, n_obs_steps: int
) -> list[list[Observation]]:
    """The histories, one a task; `DataError` naming the tensor that does not fit."""
    if not 0 < len(tasks) <= MOST_HISTORIES or not all(isinstance(task, str) for task in tasks):
        raise DataError(f"message: tasks: expected 1 to {MOST_HISTORIES} sentences, found {len(tasks)} entries")
    shape = (len(tasks), n_obs_steps)
    times = _tensor(tensors, TIMES, shape, np.float64)
    values = {key: _values(tensors, key, feature, shape) for key, feature in interface.observations.items()}
    return [
        [
            Observation({key: value[b, k] for key, value in values.items()}, task, t)
            for k, t in enumerate(times[b].tolist())
        ]
        for b, task in enumerate(tasks)
    ]


def largest_request(interface: Interface, n_obs_steps: int) -> int:
    """Bytes of a request that asks for as many chunks as may be."""
    sizes = [int(np.prod(f.shape)) * (1 if f.dtype == "image" else 4) for f in interface.observations.values()]
    return MOST_HISTORIES * n_obs_steps * (sum(sizes) + 8 * (1 + len(sizes))) + 2 * LARGEST_HEADER


def _values(tensors: Mapping[str, np.ndarray], key: str, feature: Feature, shape: tuple[int, int]) -> np.ndarray:
    """A feature's values (B, n_obs_steps, ...)."""
    if feature.dtype != "image":
        return _tensor(tensors, key, (*shape, *feature.shape), np.float32)
    if key + SIZES not in tensors:
        return _tensor(tensors, key, (*shape, *feature.shape), np.uint8)
    sizes = _tensor(tensors, key + SIZES, shape, np.int64)
    files = _tensor(tensors, key, (len(tensors.get(key, ())),), np.uint8)
    if (sizes < 0).any() or (sizes > len(files)).any() or sizes.sum() != len(files):
        raise DataError(f"message: {key + SIZES}: expected lengths of {len(files)} bytes in all, found others")
    parts = np.split(files, np.cumsum(sizes)[:-1])
    return np.stack([_decompressed(key, part, feature.shape) for part in parts]).reshape(*shape, *feature.shape)


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
