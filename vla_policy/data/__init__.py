"""Datasets: LeRobotDataset on disk, training windows, normalisation, augmentation.

Reading and writing datasets needs no torch; the names that do are imported when they are used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from vla_policy.data.agreement import common_interface
from vla_policy.data.dataset import Episode, LeRobotDataset
from vla_policy.data.writing.writer import LeRobotWriter

if TYPE_CHECKING:
    from vla_policy.data.augmentation import ColorJitter, centre_crop, crop_size, random_crop
    from vla_policy.data.mix import IMITATED, MixedWindows, Windows
    from vla_policy.data.normalizer import Normalizer
    from vla_policy.data.windows import REMAINING, WindowDataset

__all__ = [
    "IMITATED",
    "REMAINING",
    "ColorJitter",
    "Episode",
    "LeRobotDataset",
    "LeRobotWriter",
    "MixedWindows",
    "Normalizer",
    "WindowDataset",
    "Windows",
    "centre_crop",
    "common_interface",
    "crop_size",
    "random_crop",
]
_WITH_TORCH = {
    **dict.fromkeys(("ColorJitter", "centre_crop", "crop_size", "random_crop"), "augmentation"),
    **dict.fromkeys(("IMITATED", "MixedWindows", "Windows"), "mix"),
    "Normalizer": "normalizer",
    **dict.fromkeys(("REMAINING", "WindowDataset"), "windows"),
}


def __getattr__(name: str) -> Any:
    if name not in _WITH_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WITH_TORCH[name]}"), name)
