"""Recorded episodes with the world model's latents of their frames."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vla_policy.data import LeRobotDataset
from vla_policy.data.frame_cache import open_cache
from vla_policy.evaluation.latents import encode_frames
from vla_policy.world_model import WorldModel


@dataclass(frozen=True)
class EncodedEpisode:
    """One episode of T frames: `latents` (T, D), `commands` (T, A), `vectors` (T, ...) and `pictures` (T, H, W, 3) by
    key; pictures are memory-mapped.
    """

    episode: int
    latents: Tensor
    commands: Tensor
    vectors: Mapping[str, np.ndarray]
    pictures: Mapping[str, np.ndarray]


def encode_episodes(model: WorldModel, dataset: LeRobotDataset, episodes: Sequence[int]) -> Iterator[EncodedEpisode]:
    """Encode episodes, one after the other; `InputError` if model and dataset do not match."""
    model.interface.require(dataset.interface, "the world model", str(dataset.root))
    frames = {key: open_cache(dataset, key, episodes).frames for key in model.config.cameras}
    for index in episodes:
        pictures = {key: every[dataset.rows(index)] for key, every in frames.items()}
        episode = dataset.episode(index)
        commands = torch.from_numpy(np.asarray(episode.executed, np.float32))
        yield EncodedEpisode(index, encode_frames(model, pictures), commands, episode.columns, pictures)
