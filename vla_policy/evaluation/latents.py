"""Latents of recorded frames."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from vla_policy.world_model import WorldModel

BATCH = 64  # frames encoded at once


@torch.inference_mode()
def encode_frames(model: WorldModel, frames: Mapping[str, np.ndarray]) -> Tensor:
    """Latents (T, D), on the CPU, of an episode's images (T, H, W, 3) by camera, which may be memory-mapped."""
    length = len(next(iter(frames.values())))
    parts = []
    for start in range(0, length, BATCH):
        batch = {key: torch.from_numpy(np.array(images[start : start + BATCH])) for key, images in frames.items()}
        parts.append(model.encode(batch).cpu())
    return torch.cat(parts)
