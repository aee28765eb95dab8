"""What is trained on, and in which order."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from vla_policy.conf.future_config import FutureConfig
from vla_policy.conf.returns_config import ReturnConfig
from vla_policy.conf.training_config import DataConfig
from vla_policy.data import IMITATED, LeRobotDataset, Normalizer, WindowDataset, Windows
from vla_policy.data.takeovers import Takeovers
from vla_policy.data.windows import NO_CHANGE
from vla_policy.interfaces import ACTION, STATE, InputError
from vla_policy.models import PolicyConfig
from vla_policy.models.chunks import ChunkCodec
from vla_policy.models.frames import SEEN, ObjectFrame
from vla_policy.training.frozen import TrainingWindows
from vla_policy.training.perturbation import StateShift
from vla_policy.training.symmetry import RandomSymmetry
from vla_policy.world_model import WorldModelConfig

# All say what a window of the data has to hold.
ModelConfig = PolicyConfig | WorldModelConfig | FutureConfig | ReturnConfig


def split_episodes(episodes: Sequence[int], config: DataConfig, which: int = 0) -> tuple[list[int], list[int]]:
    """Episodes to train on and held-out episodes of one of the configuration's datasets.

    One seeded shuffle decides: training takes the first `n_episodes` of it (default: all but the held-out ones), so
    that smaller training sets are part of larger ones; validation takes `val_episodes` (below 1: a fraction) from its
    end.
    """
    count = len(episodes)
    order = [episodes[place] for place in np.random.default_rng(config.split_seed).permutation(count)]
    held_out = config.val_episodes
    if held_out < 0:
        raise InputError(f"data.val_episodes: expected a fraction or a number of episodes, found {held_out}")
    held_out = int(held_out) if held_out >= 1 or held_out == 0 else max(1, round(held_out * count))
    asked = config.wanted[which]
    wanted = count - held_out if asked is None else asked
    if wanted < 1 or wanted + held_out > count:
        raise InputError(
            f"data.n_episodes and data.val_episodes: expected at least 1 episode and at most the dataset's {count} "
            f"together, found {wanted} and {held_out}"
        )
    return order[:wanted], order[count - held_out :]


def make_windows(
    dataset: LeRobotDataset,
    model: ModelConfig,
    episodes: list[int],
    cache_dir: str | None = None,
    cache: bool = True,
    without: Collection[str] = (),
    pad_after: int | None = None,
    takeovers: Takeovers = NO_CHANGE,
) -> WindowDataset:
    """Windows of some episodes with all keys that `model` sees or is trained to predict, but those in `without`.

    Every moment of an episode has one, unless `pad_after` says how far windows may reach behind it, or `takeovers` that
    those before a recorded one are left out.
    """
    keys = [key for key in [*model.observation_keys, *model.auxiliary_keys] if key not in without]
    steps = model.n_obs_steps, model.horizon, model.horizon - model.n_obs_steps if pad_after is None else pad_after
    whole, executed = model.whole_windows, model.executed
    return WindowDataset(dataset, keys, *steps, episodes, cache_dir, cache, whole, executed, takeovers)


def fit_normalizer(
    windows: Windows,
    policy: PolicyConfig,
    augmentation: RandomSymmetry | None = None,
    shift: StateShift | None = None,
) -> Normalizer:
    """Statistics of the training episodes, and of their images under the symmetries of an `augmentation`; those of
    actions as the policy predicts them, of all rows of a chunk together or with `normalization_per_step` of each.

    Where a range bounds what can be predicted, it has room for the way back from shifted states; a mean and a standard
    deviation are those of the demonstrations.
    """
    columns = _with_images({key: torch.from_numpy(values) for key, values in windows.columns.items()}, augmentation)
    frame = ObjectFrame(policy.object_frame, windows.interface) if policy.object_frame else None
    batch = windows.vectors(np.arange(len(windows)))
    imitated = batch.get(IMITATED)
    if policy.action_relative or policy.normalization_per_step or imitated is not None:
        rows = slice(None) if imitated is None else imitated
        vectors = _with_images({key: batch[key][rows] for key in columns}, augmentation)
        if shift is not None and policy.action_normalization != "mean_std":
            vectors |= shift(vectors, np.random.default_rng(0))
        if not policy.action_relative or _comparable(vectors):  # else the policy itself says what is wrong
            chunks = ChunkCodec(policy, frame).encode(vectors)
            columns[ACTION] = chunks if policy.normalization_per_step else chunks.flatten(0, 1)
    if frame is not None:
        vectors, poses = {key: columns[key] for key in frame.features if key in columns}, columns[frame.key]
        seen = frame.seen(vectors, poses, frame.middle(poses))
        columns |= {SEEN + key: values for key, values in seen.items()}
    modes = {key: policy.action_normalization if key == ACTION else policy.vector_normalization for key in columns}
    return Normalizer.fit({key: values.numpy() for key, values in columns.items()}, modes)


def _with_images(values: dict[str, Tensor], augmentation: RandomSymmetry | None) -> dict[str, Tensor]:
    """Values of features, and behind them their images under each symmetry."""
    if augmentation is None:
        return values
    images = augmentation.images(values)
    return {key: torch.cat([value, *(image[key] for image in images)]) for key, value in values.items()}


def _comparable(vectors: Mapping[str, Tensor]) -> bool:
    """Whether actions can be relative to the state."""
    return STATE in vectors and vectors[STATE].shape[-1] == vectors[ACTION].shape[-1]


class StepSampler(Sampler[list[int]]):
    """The window indices of each training step's batch: seeded permutations, one epoch after the other.

    With the `probabilities` (windows,) of each window every sample is drawn anew. The batch of a step depends on the
    seed and the step alone, so a resumed run needs no sampler state. With several processes each takes its own part of
    a step's batch.
    """

    def __init__(
        self,
        windows: int,
        batch_size: int,
        seed: int,
        start: int,
        stop: int,
        rank: int = 0,
        world: int = 1,
        probabilities: np.ndarray | None = None,
    ) -> None:
        self.windows, self.batch_size, self.seed = windows, batch_size, seed
        self.start, self.stop, self.rank, self.world = start, stop, rank, world
        self.probabilities = probabilities

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[list[int]]:
        return self._permuted() if self.probabilities is None else self._drawn(np.cumsum(self.probabilities))

    def _permuted(self) -> Iterator[list[int]]:
        epoch, order = -1, np.empty(0, np.int64)
        for step in range(self.start, self.stop):
            first = (step * self.world + self.rank) * self.batch_size
            batch: list[int] = []
            while len(batch) < self.batch_size:
                now, offset = divmod(first + len(batch), self.windows)
                if now != epoch:
                    epoch, order = now, np.random.default_rng([self.seed, now]).permutation(self.windows)
                batch += order[offset : offset + self.batch_size - len(batch)].tolist()
            yield batch

    def _drawn(self, cumulative: np.ndarray) -> Iterator[list[int]]:
        mine = slice(self.rank * self.batch_size, (self.rank + 1) * self.batch_size)
        for step in range(self.start, self.stop):
            draws = np.random.default_rng([self.seed, step]).random(self.world * self.batch_size)
            yield np.searchsorted(cumulative, draws[mine] * cumulative[-1], side="right").tolist()


def loader(windows: TrainingWindows, sampler: StepSampler, num_workers: int) -> DataLoader[dict[str, Any]]:
    """Batches as `WindowDataset` makes them."""
    return DataLoader(
        windows,
        batch_sampler=sampler,
        collate_fn=_as_is,
        num_workers=num_workers,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=num_workers > 0,
    )


def _as_is(batch: Any) -> Any:
    return batch
