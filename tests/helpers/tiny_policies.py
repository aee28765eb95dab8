"""Untrained policies, small enough to run in a test."""

from __future__ import annotations

import numpy as np
import torch

from vla_policy.data import Normalizer
from vla_policy.interfaces import ACTION, Interface
from vla_policy.models import DiffusionPolicy, EncoderConfig, ObjectiveConfig, PolicyConfig, TransformerConfig


def tiny_policy(
    interface: Interface,
    low: np.ndarray,
    high: np.ndarray,
    keys: list[str],
    card: dict | None = None,
    objective: ObjectiveConfig | None = None,
) -> DiffusionPolicy:
    """Sees `keys`; every vector is normalised with the range of the actions or [-1, 1]."""
    torch.manual_seed(0)
    config = PolicyConfig(
        observation_keys=keys,
        encoder=EncoderConfig(channels=[8, 8], keypoints=4, grid=2),
        transformer=TransformerConfig(width=16, depth=1, heads=2),
        objective=objective or ObjectiveConfig(inference_steps=2),
    )
    columns = {ACTION: np.stack([low, high])}
    for key in keys:
        feature = interface.observations[key]
        if feature.dtype != "image":
            size = feature.shape[0]
            columns[key] = np.stack([low, high]) if size == len(low) else np.array([[-1.0] * size, [1.0] * size])
    return DiffusionPolicy(config, interface, Normalizer.fit(columns), card).eval()
