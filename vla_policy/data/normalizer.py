"""Normalisation of feature values and its inverse; stored with the policy as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch

from vla_policy.data.format.stats import Stats, vector_stats
from vla_policy.interfaces import ACTION, DataError, InputError

Array = TypeVar("Array", np.ndarray, torch.Tensor)

MODES = ("min_max", "mean_std", "quantile")
SMALLEST_SPREAD = 1e-6  # of a channel, relative to its magnitude (at least 1): below is rounding


@dataclass(frozen=True)
class _Affine:
    """normalised = (value - offset) * gain; value = normalised * scale + offset, of shape (D,) or (T, D), float64."""

    offset: np.ndarray
    scale: np.ndarray

    @property
    def gain(self) -> np.ndarray:
        gain: np.ndarray = np.divide(1.0, self.scale, out=np.zeros_like(self.scale), where=self.scale > 0)
        return gain


class Normalizer:
    """Affine normalisation of named features, per channel (D,) or, of chunks, per row and channel (T, D).

    "min_max" maps [min, max] to [-1, 1], "quantile" maps [q01, q99] there, "mean_std" gives zero mean and unit
    variance. A channel that is constant in the data maps to 0, and back to the constant.
    """

    def __init__(self, stats: Mapping[str, Stats], modes: Mapping[str, str]) -> None:
        self.stats = {key: dict(entry) for key, entry in stats.items()}
        self.modes = dict(modes)
        self._maps = {key: _affine(key, entry, self._mode(key)) for key, entry in self.stats.items()}
        self._tensors: dict[tuple[Any, ...], list[torch.Tensor]] = {}

    @classmethod
    def fit(cls, columns: Mapping[str, np.ndarray], mode: str | Mapping[str, str] = "min_max") -> Normalizer:
        """Fit to values (N, D) or (N, T, D) of each feature; `mode` for all, or by feature."""
        modes = dict.fromkeys(columns, mode) if isinstance(mode, str) else mode
        return cls({key: _fitted(values) for key, values in columns.items()}, modes)

    def normalize(self, key: str, value: Array) -> Array:
        """(..., D) or (..., T, D) in the feature's units, numpy or torch, to the same shape."""
        offset, gain, _ = self._like(key, value)
        normalized: Array = (value - offset) * gain
        return normalized

    def unnormalize(self, key: str, value: Array) -> Array:
        """The inverse of `normalize`."""
        offset, _, scale = self._like(key, value)
        restored: Array = value * scale + offset
        return restored

    def usual_range(self, key: str) -> tuple[np.ndarray, np.ndarray]:
        """Low and high (D,) of the data without outliers, in the feature's units; of chunks, over all rows."""
        low, high = self._range(key)
        return (low, high) if low.ndim == 1 else (low.min(0), high.max(0))

    def _range(self, key: str) -> tuple[np.ndarray, np.ndarray]:
        stats = self.stats[key]
        if "q01" in stats and "q99" in stats:
            return stats["q01"], stats["q99"]
        if "mean" in stats and "std" in stats:
            low, high = stats["mean"] - 2 * stats["std"], stats["mean"] + 2 * stats["std"]
            return np.maximum(low, stats["min"]), np.minimum(high, stats["max"])
        return stats["min"], stats["max"]

    def to_dict(self) -> dict[str, Any]:
        """JSON-compatible; `from_dict` restores the same numbers exactly."""
        return {
            key: {"mode": self.modes[key], "stats": {name: value.tolist() for name, value in entry.items()}}
            for key, entry in self.stats.items()
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Normalizer:
        """The inverse of `to_dict`; `InputError` naming an invalid entry."""
        if not isinstance(data, Mapping):
            raise InputError(f"normaliser: expected 'mode' and 'stats' for each feature, found {data!r:.80}")
        stats, modes = {}, {}
        for key, entry in data.items():
            if not isinstance(entry, Mapping) or not isinstance(entry.get("stats"), Mapping):
                raise InputError(f"normaliser: {key}: expected 'mode' and 'stats', found {entry!r:.80}")
            stats[key] = {name: _numbers(value, f"normaliser: {key}: {name}") for name, value in entry["stats"].items()}
            modes[key] = str(entry.get("mode"))
        return cls(stats, modes)

    def require(self, sizes: Mapping[str, int], rows: int = 0) -> None:
        """`InputError` unless there are statistics for each feature with its number of channels; those of actions may
        also be of each of `rows` rows of a chunk.
        """
        for key, size in sizes.items():
            if key not in self.stats:
                raise InputError(f"normaliser: expected statistics of {key!r}, found those of {sorted(self.stats)}")
            found = self.stats[key]["min"].shape
            if found != (size,) and not (key == ACTION and rows and found == (rows, size)):
                chunk = f", or {rows} rows of them" if key == ACTION and rows else ""
                raise InputError(f"normaliser: {key}: expected {size} channels{chunk}, found shape {found}")

    def _mode(self, key: str) -> str:
        mode = self.modes.get(key)
        if mode not in MODES:
            raise InputError(f"normalisation of {key!r}: expected one of {list(MODES)}, found {mode!r}")
        return mode

    def _like(self, key: str, value: Array) -> tuple[Array, Array, Array]:
        if key not in self._maps:
            raise InputError(f"normaliser: expected one of {sorted(self._maps)}, found {key!r}")
        affine = self._maps[key]
        expected = affine.offset.shape
        if tuple(value.shape[-len(expected) :]) != expected:
            what = " rows of ".join(str(size) for size in expected)
            raise DataError(f"{key!r}: expected {what} channels, found shape {tuple(value.shape)}")
        if isinstance(value, np.ndarray):
            dtype = np.result_type(value.dtype, np.float32)
            offset, gain, scale = (array.astype(dtype) for array in (affine.offset, affine.gain, affine.scale))
            return offset, gain, scale
        name = (key, value.dtype, value.device)
        if name not in self._tensors:
            arrays = (affine.offset, affine.gain, affine.scale)
            self._tensors[name] = [torch.as_tensor(array).to(value) for array in arrays]
        offset, gain, scale = self._tensors[name]
        return offset, gain, scale


def _fitted(values: np.ndarray) -> Stats:
    shape = values.shape[1:]
    return {name: value if name == "count" else value.reshape(shape) for name, value in vector_stats(values).items()}


def _affine(key: str, stats: Stats, mode: str) -> _Affine:
    needed = {"mean_std": ("mean", "std"), "quantile": ("q01", "q99")}.get(mode, ())
    for name in ("min", "max", *needed):
        if name not in stats or stats[name].shape != stats["min"].shape:
            found = stats[name].tolist() if name in stats else "none"
            raise InputError(f"normalisation of {key!r}: expected a number a channel as {name!r}, found {found}")
    low, high = stats["min"], stats["max"]
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise InputError(f"normalisation of {key!r}: expected finite statistics, found min {low} and max {high}")
    constant = high - low <= SMALLEST_SPREAD * np.maximum(1.0, np.abs(low))
    if mode == "mean_std":
        offset, scale = stats["mean"], stats["std"]
    else:
        if mode == "quantile":  # a channel that rarely moves has no spread between quantiles
            rare = stats["q01"] == stats["q99"]
            low, high = np.where(rare, low, stats["q01"]), np.where(rare, high, stats["q99"])
        offset, scale = (low + high) / 2, (high - low) / 2
    if not (np.isfinite(scale).all() and (scale >= 0).all()):
        raise InputError(f"normalisation of {key!r}: expected min <= max and std >= 0, found a spread of {scale}")
    return _Affine(np.where(constant, stats["min"], offset), np.where(constant, 0.0, scale))


def _numbers(value: Any, where: str) -> np.ndarray:
    """Finite numbers (D,) or (T, D) from JSON."""
    try:
        array = np.array(value)
    except ValueError:  # ragged lists
        array = np.array(None)
    if array.dtype.kind not in "iuf" or array.ndim not in (1, 2) or not np.isfinite(array).all():
        raise InputError(f"{where}: expected a list of finite numbers, found {value!r:.80}")
    return array
