"""Training on several datasets: their common interface, and windows of all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from vla_policy.data.dataset import LeRobotDataset
from vla_policy.data.windows import WindowDataset
from vla_policy.interfaces import ACTION, Feature, InputError, Interface

IMITATED = "imitated"  # of a batch (B,) bool: whose actions count

Indices = Sequence[int] | np.ndarray | torch.Tensor


def common_interface(
    datasets: Sequence[LeRobotDataset], keys: Sequence[str], pad_cameras: bool = False, accept_unnamed: bool = False
) -> Interface:
    """The interface of all `datasets` with the observations `keys`; a declaration in some of them applies to all.

    `InputError` naming the dataset and the difference if they disagree, if one lacks a key (other than a camera with
    `pad_cameras`), or if channels are unnamed and thus cannot be compared (unless `accept_unnamed`).
    """
    interfaces = [dataset.interface for dataset in datasets]
    observations = {}
    for key in keys:
        features = [interface.observations[key] for interface in interfaces if key in interface.observations]
        camera = bool(features) and features[0].dtype == "image"
        for dataset, interface in zip(datasets, interfaces, strict=True):
            if key not in interface.observations and not (camera and pad_cameras):
                hint = "; data.missing_cameras=pad would show black pictures" if camera else ""
                raise InputError(f"{dataset.root}: expected {key!r}, found {dataset.found(key)}{hint}")
        observations[key] = _most_declared(features)
    for one, other in combinations(datasets, 2):
        shared = [key for key in keys if key in one.interface.observations and key in other.interface.observations]
        one.interface.select(shared).require(other.interface, str(one.root), str(other.root))
    if len(datasets) > 1 and not accept_unnamed:
        _require_names(datasets, keys)
    frame = next((interface.frame for interface in interfaces if interface.frame), "")
    action = _most_declared([interface.action for interface in interfaces])
    return Interface(observations, action, interfaces[0].fps, frame)


def _require_names(datasets: Sequence[LeRobotDataset], keys: Sequence[str]) -> None:
    for dataset in datasets:
        for key, feature in {**dataset.interface.observations, ACTION: dataset.interface.action}.items():
            if key in (*keys, ACTION) and feature.dtype != "image" and not feature.names:
                raise InputError(
                    f"{dataset.root}: expected names of the {feature.shape[0]} channels of {key!r}, to compare them "
                    "with the other datasets', found none; data.unnamed_channels=accept takes them to be the same"
                )


def _most_declared(features: Sequence[Feature]) -> Feature:
    return max(features, key=lambda feature: bool(feature.names) + bool(feature.units))


class MixedWindows(Dataset[dict[str, Any]]):
    """The windows of `parts`, one dataset after the other, in batches as a `WindowDataset` makes them.

    `interface` is their common one (`common_interface`); images of a camera that a part lacks are black. `weights`,
    positive, one per part, are proportional to the probability of sampling from it; without them every window occurs
    once per epoch. `imitated`, one per part, says whether its actions are to be imitated; batches then have it of each
    window.
    """

    def __init__(
        self,
        parts: Sequence[WindowDataset],
        interface: Interface,
        weights: Sequence[float] | None = None,
        imitated: Sequence[bool] | None = None,
    ) -> None:
        self.parts, self.interface = list(parts), interface
        self.n_obs_steps = parts[0].n_obs_steps
        lengths = np.array([len(part) for part in parts])
        shares = lengths if weights is None else np.asarray(weights)
        self.shares: np.ndarray = shares / shares.sum()  # fraction of the samples by part
        self.imitated = None if imitated is None else list(imitated)
        self._part = np.repeat(np.arange(len(parts)), lengths)  # of each window: its part and its index there
        self._index = np.concatenate([np.arange(length) for length in lengths])
        self.probabilities = None if weights is None else (self.shares / lengths)[self._part]

    def __len__(self) -> int:
        return len(self._part)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One sample: a batch of one without the batch axis."""
        return {key: value[0] for key, value in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Indices) -> dict[str, Any]:
        batch = self._gather(indices, WindowDataset.__getitems__)
        for key in self.interface.cameras:
            if key not in batch:
                shape = (len(batch["task"]), self.n_obs_steps, *self.interface.observations[key].shape)
                batch[key] = torch.zeros(shape, dtype=torch.uint8)
        return batch

    def vectors(self, indices: Indices) -> dict[str, Any]:
        """The batch without images."""
        return self._gather(indices, WindowDataset.vectors)

    @property
    def columns(self) -> dict[str, np.ndarray]:
        """All values of each vector (N, D) float32."""
        return {key: np.concatenate([part.columns[key] for part in self.parts]) for key in self.parts[0].columns}

    @property
    def tasks(self) -> list[str]:
        """The distinct sentences of the datasets' task tables."""
        return list(dict.fromkeys(task for part in self.parts for task in part.tasks))

    def _gather(self, indices: Indices, take: Callable[[WindowDataset, np.ndarray], dict[str, Any]]) -> dict[str, Any]:
        """Scatter each part's samples into the batch; zeros for missing cameras."""
        chosen = np.asarray(indices, np.int64)
        batch: dict[str, Any] = {"task": np.empty(len(chosen), object)}
        for number in np.unique(self._part[chosen]):
            rows = np.flatnonzero(self._part[chosen] == number)
            for key, value in take(self.parts[number], self._index[chosen[rows]]).items():
                if key == "task":
                    batch[key][rows] = value
                else:
                    batch.setdefault(key, value.new_zeros((len(chosen), *value.shape[1:])))[rows] = value
        if self.imitated is not None:
            batch[IMITATED] = torch.tensor(self.imitated)[torch.from_numpy(self._part[chosen])]
        return batch | {"task": batch["task"].tolist()}


Windows = WindowDataset | MixedWindows
