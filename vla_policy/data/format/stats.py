"""LeRobot's feature statistics: per episode from values, aggregated for a dataset."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
Stats = dict[str, np.ndarray]  # min, max, mean, std, q01 .. q99 of one shape, and count (1,)


def vector_stats(values: np.ndarray) -> Stats:
    """Statistics over the first axis of (T, D) or (T,) values: arrays (D,) float64 and `count` [T]."""
    values = np.asarray(values, np.float64).reshape(len(values), -1)
    quantiles = np.quantile(values, list(QUANTILES.values()), axis=0)
    return {
        "min": values.min(0),
        "max": values.max(0),
        "mean": values.mean(0),
        "std": values.std(0),
        "count": np.array([len(values)]),
        **dict(zip(QUANTILES, quantiles, strict=True)),
    }


class ImageStats:
    """Statistics of a stream of uint8 RGB frames from one histogram per channel; large frames are subsampled."""

    def __init__(self) -> None:
        self.histogram = np.zeros((3, 256), np.int64)
        self.count = 0

    def watch(self, frames: Iterable[np.ndarray]) -> Iterable[np.ndarray]:
        """Yield the frames and add their pixels to the histograms."""
        for frame in frames:
            step = max(1, min(np.shape(frame)[:2], default=0) // 128)
            thin = np.asarray(frame)[::step, ::step]
            if thin.ndim == 3 and thin.shape[2] == 3 and thin.dtype == np.uint8:  # the encoder refuses the others
                for channel in range(3):
                    self.histogram[channel] += np.bincount(thin[..., channel].ravel(), minlength=256)
            self.count += 1
            yield frame

    def result(self) -> Stats:
        """Arrays (3, 1, 1) in [0, 1] and `count` [frames]."""
        levels = np.arange(256) / 255
        pixels = self.histogram.sum(1)
        mean = self.histogram @ levels / pixels
        below = self.histogram.cumsum(1) / pixels[:, None]
        stats = {
            "min": levels[(self.histogram > 0).argmax(1)],
            "max": levels[255 - (self.histogram[:, ::-1] > 0).argmax(1)],
            "mean": mean,
            "std": np.sqrt(((levels - mean[:, None]) ** 2 * self.histogram).sum(1) / pixels),
            **{name: levels[(below >= q).argmax(1)] for name, q in QUANTILES.items()},
        }
        return {key: value.reshape(3, 1, 1) for key, value in stats.items()} | {"count": np.array([self.count])}


def merge_stats(one: Mapping[str, Stats], other: Mapping[str, Stats]) -> dict[str, Stats]:
    """Aggregate two parts; quantiles become count-weighted means, as in LeRobot."""
    return {key: _merge(one[key], other[key]) if key in one else other[key] for key in other}


def _merge(a: Stats, b: Stats) -> Stats:
    n, m = float(a["count"][0]), float(b["count"][0])
    weigh = {name: (n * a[name] + m * b[name]) / (n + m) for name in ("mean", *QUANTILES) if name in a and name in b}
    spread = (n * a["std"] ** 2 + m * b["std"] ** 2) / (n + m) + n * m / (n + m) ** 2 * (a["mean"] - b["mean"]) ** 2
    return {
        "min": np.minimum(a["min"], b["min"]),
        "max": np.maximum(a["max"], b["max"]),
        "std": np.sqrt(spread),
        "count": a["count"] + b["count"],
        **weigh,
    }


def to_lists(stats: Mapping[str, Stats]) -> dict[str, dict[str, Any]]:
    """JSON-compatible."""
    return {key: {name: value.tolist() for name, value in entry.items()} for key, entry in stats.items()}
