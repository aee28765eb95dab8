"""Options that several commands share; a command's dataclass inherits them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sim import PushTConfig


@dataclass
class SceneOptions:
    """The simulated scene."""

    scene: dict[str, Any] = field(default_factory=dict)  # what PushTConfig.from_mapping reads, see sim/config.py

    @property
    def pusht(self) -> PushTConfig:
        from sim import PushTConfig

        return PushTConfig.from_mapping(self.scene)


@dataclass
class ComputeOptions:
    """The device of a network."""

    device: str = "auto"  # auto | cpu | cuda
    threads: int | None = 1  # torch's threads on a CPU; more help large models on idle cores; null: torch's choice


@dataclass
class RolloutOptions(ComputeOptions):
    """How episodes are run."""

    seed: int = 100000  # of the first start; the others count up from it. Tune and debug on others, below 100000
    num_envs: int = 16  # environments whose chunks are computed in batches
    num_workers: int = 2  # processes they are distributed over; 0: all in this one
    policy_seed: int = 0  # of the policy's noise
