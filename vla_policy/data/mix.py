"""Training on several datasets: windows of all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from vla_policy.data.windows import WindowDataset
from vla_policy.interfaces import Interface

IMITATED = "imitated"  # of a batch (B,) bool: whose actions count

Indices = Sequence[int] | np.ndarray | torch.Tensor


class MixedWindows(Dataset[dict[str, Any]]):
    """The windows of `parts`, one dataset after the other, in batches as a `WindowDataset` makes them.

    `interface` is their common one (see `common_interface`); images of a camera that a part lacks are black. `weights`,
    positive, one per part, are proportional to the probability of sampling from it; without them every window occurs
    once per epoch or, if a part weighs its own, is sampled as often as these weights say. `imitated`, one per part,
    says whether its actions are to be imitated; batches then have it of each window.
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
        within = [np.ones(len(part)) if part.weights is None else part.weights for part in parts]  # of the windows
        totals = np.array([values.sum() for values in within])
        shares = totals if weights is None else np.asarray(weights)
        self.shares: np.ndarray = shares / shares.sum()  # fraction of the samples by part
        self.imitated = None if imitated is None else list(imitated)
        self._part = np.repeat(np.arange(len(parts)), lengths)  # of each window: its part and its index there
        self._index = np.concatenate([np.arange(length) for length in lengths])
        once = weights is None and all(part.weights is None for part in parts)
        self.probabilities = None if once else (self.shares / totals)[self._part] * np.concatenate(within)

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
