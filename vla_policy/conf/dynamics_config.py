"""Everything that defines a multi-step dynamics model; stored in its checkpoint as config.yaml."""

from __future__ import annotations

from dataclasses import dataclass

from vla_policy.conf.future_config import FutureConfig


@dataclass
class DynamicsConfig(FutureConfig):
    """Diffusion dynamics of Diffusion-MPC: all future states at once, from past ones and the actions in between."""

    section = "dynamics"
