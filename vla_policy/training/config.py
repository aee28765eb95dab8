"""How a policy is trained; the values and their meaning are in `vla_policy/conf/`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from vla_policy.interfaces import InputError


@dataclass
class DataConfig:
    """Which episodes of which dataset, or datasets."""

    root: Any = MISSING  # a folder or a list of folders
    weights: list[float] | None = None
    missing_cameras: str = "refuse"
    unnamed_channels: str = "refuse"
    exclude_episodes: Any = None  # a list of numbers, or one such list a folder
    n_episodes: int | None = None
    val_episodes: float = 0.05
    split_seed: int = 0
    pad_after: int | None = None
    cache: bool = True
    cache_dir: str | None = None
    num_workers: int = 0

    def __post_init__(self) -> None:
        roots = self.roots
        if not roots or not all(isinstance(root, str) and root for root in roots):
            raise InputError(f"data.root: expected a dataset's folder or a list of them, found {self.root!r}")
        if len(set(roots)) < len(roots):
            raise InputError(f"data.root: expected every dataset once, found {roots}")
        weights = self.weights
        if weights is not None and not (len(weights) == len(roots) and all(0 < w < math.inf for w in weights)):
            raise InputError(f"data.weights: expected {len(roots)} positive numbers, one a dataset, found {weights}")
        if self.missing_cameras not in ("refuse", "pad"):
            raise InputError(f"data.missing_cameras: expected 'refuse' or 'pad', found {self.missing_cameras!r}")
        if self.unnamed_channels not in ("refuse", "accept"):
            raise InputError(f"data.unnamed_channels: expected 'refuse' or 'accept', found {self.unnamed_channels!r}")
        lists = self.excluded
        numbers = all(isinstance(some, list) and all(type(index) is int for index in some) for some in lists)
        if not numbers or len(lists) != len(roots):
            what = "episodes' numbers" if len(roots) == 1 else f"{len(roots)} lists of episodes' numbers, one a dataset"
            raise InputError(f"data.exclude_episodes: expected {what}, found {self.exclude_episodes}")

    @property
    def roots(self) -> list[str]:
        """The folders, also of a single dataset."""
        return list(self.root) if isinstance(self.root, (list, tuple)) else [self.root]

    @property
    def excluded(self) -> list[Any]:
        """The episodes to leave out, a list for each folder."""
        chosen = self.exclude_episodes
        if chosen is None:
            return [[] for _ in self.roots]
        return chosen if isinstance(chosen, list) and any(isinstance(some, list) for some in chosen) else [chosen]


OPTIMIZERS = {"adamw": "AdamW", "muon": "Muon for the layers' matrices and AdamW for the rest"}


@dataclass
class TrainerConfig:
    """Optimisation, averaging, and how often things are measured and kept."""

    steps: int = 20_000
    batch_size: int = 256
    optimizer: str = "adamw"
    lr: float = 5e-4
    betas: list[float] = field(default_factory=lambda: [0.9, 0.95])
    weight_decay: float = 1e-4
    warmup_steps: int = 500
    grad_clip: float = 1.0
    ema_power: float = 0.75
    ema_max_decay: float = 0.9999
    precision: str = "auto"
    threads: int | None = None
    compile: bool = False
    log_every: int = 50
    print_every_s: float = 15.0
    save_every: int = 1000
    validate_every: int = 2000
    val_windows: int = 256
    rollout_every: int = 0
    wandb: str | None = "vla_policy"

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "log_every", "save_every"):
            if getattr(self, name) < 1:
                raise InputError(f"trainer.{name}: expected at least 1, found {getattr(self, name)}")
        if self.precision not in ("auto", "bf16", "fp32"):
            raise InputError(f"trainer.precision: expected 'auto', 'bf16' or 'fp32', found {self.precision!r}")
        if self.optimizer not in OPTIMIZERS:
            raise InputError(f"trainer.optimizer: expected one of {', '.join(OPTIMIZERS)}, found {self.optimizer!r}")
        if len(self.betas) != 2:
            raise InputError(f"trainer.betas: expected two numbers, found {self.betas}")
