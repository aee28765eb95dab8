"""What the configurations of models share that know of the state alone: dynamics, returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from omegaconf import DictConfig

from vla_policy.conf import checks
from vla_policy.interfaces import ENVIRONMENT_STATE, STATE, InputError


@dataclass
class StateModelConfig:
    """A model of vectors, which sees no pictures."""

    state_keys: list[str] = field(default_factory=lambda: [STATE, ENVIRONMENT_STATE])  # the vectors of its state

    def check_keys(self, where: str) -> None:
        """`InputError` unless there are some keys, all of them words."""
        checks.check_words(self, where, "state_keys")
        if not self.state_keys:
            raise InputError(f"{where}.state_keys: expected at least one key, found none")

    @property
    def observation_keys(self) -> list[str]:
        return self.state_keys

    @property
    def auxiliary_keys(self) -> list[str]:
        return []

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any] | DictConfig) -> Self:
        """Typed and checked; an unknown key or a value of another type raises OmegaConf's error naming it."""
        return checks.typed(cls, data)
