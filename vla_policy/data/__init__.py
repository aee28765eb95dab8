"""Episodes on disk and on their way to a network: LeRobotDataset, windows, normalisation, augmentation."""

from vla_policy.data.augmentation import ColorJitter, centre_crop, crop_size, random_crop
from vla_policy.data.dataset import Episode, LeRobotDataset
from vla_policy.data.normalizer import Normalizer
from vla_policy.data.windows import WindowDataset
from vla_policy.data.writer import LeRobotWriter

__all__ = [
    "ColorJitter",
    "Episode",
    "LeRobotDataset",
    "LeRobotWriter",
    "Normalizer",
    "WindowDataset",
    "centre_crop",
    "crop_size",
    "random_crop",
]
