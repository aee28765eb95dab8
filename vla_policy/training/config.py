"""How a policy is trained; the values and their meaning are in `vla_policy/conf/`."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from vla_policy.interfaces import InputError


@dataclass
class DataConfig:
    """Which episodes of which dataset."""

    root: str = MISSING
    n_episodes: int | None = None
    val_episodes: float = 0.05
    split_seed: int = 0
    cache_dir: str | None = None
    num_workers: int = 0


@dataclass
class TrainerConfig:
    """Optimisation, averaging, and how often things are measured and kept."""

    steps: int = 20_000
    batch_size: int = 128
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
        if len(self.betas) != 2:
            raise InputError(f"trainer.betas: expected two numbers, found {self.betas}")
