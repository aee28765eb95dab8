"""Feature values to the range that networks like, and back; stored with the policy as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch

from vla_policy.data.stats import Stats, vector_stats
from vla_policy.interfaces import InputError

Array = TypeVar("Array", np.ndarray, torch.Tensor)

MODES = ("min_max", "mean_std", "quantile")
SMALLEST_SPREAD = 1e-6  # of a channel, against its size (at least 1): below, what varies is rounding


@dataclass(frozen=True)
class _Affine:
    """normalised = (value - offset) * gain; value = normalised * scale + offset, per channel (D,) float64."""

    offset: np.ndarray
    scale: np.ndarray

    @property
    def gain(self) -> np.ndarray:
        return np.divide(1.0, self.scale, out=np.zeros_like(self.scale), where=self.scale > 0)


class Normalizer:
    """Per-channel affine maps of named features.

    "min_max" maps [min, max] to [-1, 1], "quantile" maps [q01, q99] there, "mean_std" gives zero mean and unit
    variance. A channel that was constant maps to 0, whatever it becomes later, and back to the constant.
    """

    def __init__(self, stats: Mapping[str, Stats], modes: Mapping[str, str]) -> None:
        self.stats = {key: dict(entry) for key, entry in stats.items()}
        self.modes = dict(modes)
        self._maps = {key: _affine(key, entry, self._mode(key)) for key, entry in self.stats.items()}
        self._tensors: dict[tuple[Any, ...], list[torch.Tensor]] = {}

    @classmethod
    def fit(cls, columns: Mapping[str, np.ndarray], mode: str | Mapping[str, str] = "min_max") -> Normalizer:
        """Statistics of (N, D) values a feature; `mode` is one for all or one for each."""
        modes = dict.fromkeys(columns, mode) if isinstance(mode, str) else mode
        return cls({key: vector_stats(values) for key, values in columns.items()}, modes)

    def normalize(self, key: str, value: Array) -> Array:
        """(..., D) in the feature's units to (..., D) for the network, numpy or torch alike."""
        offset, gain, _ = self._like(key, value)
        return (value - offset) * gain

    def unnormalize(self, key: str, value: Array) -> Array:
        """The inverse of `normalize`."""
        offset, _, scale = self._like(key, value)
        return value * scale + offset

    def to_dict(self) -> dict[str, Any]:
        """For JSON; `from_dict` gives back the same numbers bit for bit."""
        return {
            key: {"mode": self.modes[key], "stats": {name: value.tolist() for name, value in entry.items()}}
            for key, entry in self.stats.items()
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Normalizer:
        try:
            stats = {key: {name: np.array(v) for name, v in entry["stats"].items()} for key, entry in data.items()}
            return cls(stats, {key: entry["mode"] for key, entry in data.items()})
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"normaliser: expected 'mode' and 'stats' for each feature, found no {error}") from None

    def _mode(self, key: str) -> str:
        mode = self.modes.get(key)
        if mode not in MODES:
            raise InputError(f"normalisation of {key!r}: expected one of {list(MODES)}, found {mode!r}")
        return mode

    def _like(self, key: str, value: Array) -> tuple[Array, Array, Array]:
        if key not in self._maps:
            raise InputError(f"normaliser: expected one of {sorted(self._maps)}, found {key!r}")
        affine = self._maps[key]
        if value.shape[-1] != len(affine.offset):
            raise InputError(f"{key!r}: expected {len(affine.offset)} channels, found shape {tuple(value.shape)}")
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


def _affine(key: str, stats: Stats, mode: str) -> _Affine:
    low, high = stats["min"], stats["max"]
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise InputError(f"normalisation of {key!r}: expected finite statistics, found min {low} and max {high}")
    constant = high - low <= SMALLEST_SPREAD * np.maximum(1.0, np.abs(low))
    if mode == "mean_std":
        offset, scale = stats["mean"], stats["std"]
    else:
        if mode == "quantile":  # a channel that is at rest nearly always has no quantiles to go by
            rare = stats["q01"] == stats["q99"]
            low, high = np.where(rare, low, stats["q01"]), np.where(rare, high, stats["q99"])
        offset, scale = (low + high) / 2, (high - low) / 2
    return _Affine(np.where(constant, stats["min"], offset), np.where(constant, 0.0, scale))
