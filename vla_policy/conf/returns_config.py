"""Everything that defines a return model; stored in its checkpoint as config.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from omegaconf import DictConfig

from vla_policy.conf import checks
from vla_policy.interfaces import ENVIRONMENT_STATE, STATE, InputError


@dataclass
class ReturnConfig:
    """The discounted return of a task whose only reward, 1, is at the end of a demonstration."""

    state_keys: list[str] = field(default_factory=lambda: [STATE, ENVIRONMENT_STATE])  # what it depends on
    discount: float = 0.98  # of a reward for each control period until it
    width: int = 256  # of the hidden layers
    depth: int = 2  # hidden layers

    def __post_init__(self) -> None:
        checks.check_words(self, "returns", "state_keys")
        checks.check_ranges(self, "returns", width=(1, checks.WIDEST), depth=(1, checks.DEEPEST))
        if not self.state_keys:
            raise InputError("returns.state_keys: expected at least one key, found none")
        if not 0 < self.discount < 1:
            raise InputError(f"returns.discount: expected a number between 0 and 1, found {self.discount}")

    # Extent of training windows in `PolicyConfig`'s terms: a single state.
    n_obs_steps, horizon, whole_windows, executed = 1, 1, False, False

    @property
    def observation_keys(self) -> list[str]:
        return self.state_keys

    @property
    def auxiliary_keys(self) -> list[str]:
        return []

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any] | DictConfig) -> ReturnConfig:
        """Typed and checked; an unknown key or a value of another type raises OmegaConf's error naming it."""
        return checks.typed(cls, data)
