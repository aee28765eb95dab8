"""Datasets: LeRobotDataset on disk, training windows, normalisation, augmentation."""

from vla_policy.data.augmentation import ColorJitter, centre_crop, crop_size, random_crop
from vla_policy.data.dataset import Episode, LeRobotDataset
from vla_policy.data.mix import IMITATED, MixedWindows, Windows, common_interface
from vla_policy.data.normalizer import Normalizer
from vla_policy.data.windows import WindowDataset
from vla_policy.data.writing.writer import LeRobotWriter

__all__ = [
    "IMITATED",
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
