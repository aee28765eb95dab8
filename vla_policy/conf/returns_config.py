"""Everything that defines a return model; stored in its checkpoint as config.yaml."""

from __future__ import annotations

from dataclasses import dataclass

from vla_policy.conf import checks
from vla_policy.conf.state_config import StateModelConfig
from vla_policy.interfaces import InputError


@dataclass
class ReturnConfig(StateModelConfig):
    """The discounted return of a task whose only reward, 1, is at the end of a demonstration."""

    discount: float = 0.98  # of a reward for each control period until it
    width: int = 256  # of the hidden layers
    depth: int = 2  # hidden layers

    def __post_init__(self) -> None:
        self.check_keys("returns")
        checks.check_ranges(self, "returns", width=(1, checks.WIDEST), depth=(1, checks.DEEPEST))
        if not 0 < self.discount < 1:
            raise InputError(f"returns.discount: expected a number between 0 and 1, found {self.discount}")

    # Extent of training windows in `PolicyConfig`'s terms: a single state.
    n_obs_steps, horizon, whole_windows, executed = 1, 1, False, False
