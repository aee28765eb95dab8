"""Small diffusion policies and batches for them, at PushT's shapes."""

from typing import Any

import numpy as np
import torch

from vla_policy.data import Normalizer
from vla_policy.interfaces import ACTION, ENVIRONMENT_STATE, IMAGES, STATE, Feature, Interface, Observation
from vla_policy.models import (
    Backbone,
    BackboneConfig,
    DiffusionPolicy,
    EncoderConfig,
    ObjectiveConfig,
    PolicyConfig,
    TransformerConfig,
)
from vla_policy.models.frames import SEEN

TOP = IMAGES + "top"
SMALL: dict[str, Any] = {
    "transformer": TransformerConfig(width=32, depth=2, heads=2, time_width=16),
    "encoder": EncoderConfig(channels=[8, 16], keypoints=4, grid=2),
}


def pusht_interface() -> Interface:
    xy = Feature("float32", (2,), ("x", "y"), ("m", "m"))
    pose = Feature("float32", (4,), ("x", "y", "cos", "sin"), ("m", "m", "1", "1"))
    return Interface({STATE: xy, ENVIRONMENT_STATE: pose, TOP: Feature("image", (96, 96, 3))}, xy, 10, "base")


def objective(name: str, **changes: Any) -> dict[str, Any]:
    """The configuration of an objective that goes by this name, with its sampler and `changes`."""
    sampler = {"flow": "euler", "ddpm": "ddim"}.get(name, "greedy")
    tokens = {"action_normalization": "quantile"} if sampler == "greedy" else {}
    return {"objective": ObjectiveConfig(**{"name": name, "sampler": sampler, **changes}), **tokens}


def small_policy(
    image: bool = False,
    seed: int = 0,
    trained: bool = True,
    backbone: Backbone | None = None,
    backbone_config: BackboneConfig | None = None,
    **config: Any,
) -> DiffusionPolicy:
    """With `trained`, all weights but a backbone's are random, so that no adaLN-zero gate hides anything."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    keys = [STATE, TOP] if image else [STATE, ENVIRONMENT_STATE]
    normalizer = Normalizer.fit(
        {
            STATE: rng.uniform(0.2, 0.6, (100, 2)),
            ENVIRONMENT_STATE: rng.uniform(-1, 1, (100, 4)),
            ACTION: rng.uniform(0.2, 0.6, (100, 2)),
            SEEN + STATE: rng.uniform(-0.4, 0.4, (100, 2)),
            SEEN + ENVIRONMENT_STATE: rng.uniform(-1, 1, (100, 4)),
        }
    )
    policy = DiffusionPolicy(
        PolicyConfig(**{"observation_keys": keys, "backbone": backbone_config, **SMALL, **config}),
        pusht_interface(),
        normalizer,
        None,
        backbone,
    )
    if trained:
        with torch.no_grad():
            for name, parameter in policy.named_parameters():
                if not name.startswith("backbone."):
                    parameter.add_(0.05 * torch.randn_like(parameter))
    return policy


def batch_of(count: int, seed: int = 0) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    return {
        STATE: 0.2 + 0.4 * torch.rand(count, 2, 2, generator=generator),
        ENVIRONMENT_STATE: torch.rand(count, 2, 4, generator=generator),
        "task": ["push the T onto the red goal", "move it to blue"] * (count // 2) + ["red"] * (count % 2),
        TOP: torch.randint(0, 256, (count, 2, 96, 96, 3), dtype=torch.uint8, generator=generator),
        ACTION: 0.2 + 0.4 * torch.rand(count, 16, 2, generator=generator),
    }


def histories_of(policy: DiffusionPolicy, count: int, seed: int = 0) -> list[list[Observation]]:
    batch = batch_of(count, seed)
    return [
        [
            Observation({key: batch[key][i, k].numpy() for key in policy.interface.observations}, "push", 0.1 * k)
            for k in range(2)
        ]
        for i in range(count)
    ]
