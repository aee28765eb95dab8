"""The world model of a checkpoint on a device."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vla_policy.world_model import WorldModel


def load_world_model(checkpoint: str, device: str = "auto", threads: int | None = None) -> WorldModel:
    """The world model of a folder or hub repository on the device, with torch's number of threads set."""
    from vla_policy.models.loading import chosen_device
    from vla_policy.world_model import WorldModel

    place = chosen_device(device, threads)
    return WorldModel.from_pretrained(checkpoint).to(place)
