"""What `vla-eval` and `vla-bench` share: typed configuration, the model of a checkpoint on a device and what it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar, cast

from omegaconf import OmegaConf

from vla_policy.cli.common import load_config

if TYPE_CHECKING:
    from vla_policy.world_model import WorldModel

T = TypeVar("T")


def typed_config(kind: Callable[..., T], name: str, overrides: Sequence[str]) -> T:
    """conf/<name>.yaml with overrides as the dataclass `kind`; unknown keys and values of a wrong type are errors."""
    return cast(T, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), load_config(name, overrides))))


def load_world_model(checkpoint: str, device: str = "auto", threads: int | None = None) -> WorldModel:
    """The same of a world model."""
    from vla_policy.models.loading import chosen_device
    from vla_policy.world_model import WorldModel

    place = chosen_device(device, threads)
    return WorldModel.from_pretrained(checkpoint).to(place)
