"""What the configurations of models share that denoise several future states at once: dynamics, trajectories."""

from __future__ import annotations

from dataclasses import dataclass, field

from vla_policy.conf import checks
from vla_policy.conf.policy_config import ObjectiveConfig, PolicyConfig, TransformerConfig
from vla_policy.conf.state_config import StateModelConfig
from vla_policy.interfaces import InputError


@dataclass
class FutureConfig(StateModelConfig):
    """A future, from past states, by the machinery of the action transformer."""

    past: int = 2  # states that a prediction is made from
    future: int = 15  # steps that are predicted at once: a policy's chunk
    transformer: TransformerConfig = field(default_factory=TransformerConfig)  # as a policy's
    objective: ObjectiveConfig = field(default_factory=lambda: ObjectiveConfig(clip_sample=False))
    """flow | ddpm, and the passes of its sampler"""

    section = "future"  # of the configuration, which errors name

    def __post_init__(self) -> None:
        self.check_keys(self.section)
        checks.check_ranges(self, self.section, past=(1, checks.LONGEST), future=(1, checks.LONGEST))
        if self.objective.name not in ("flow", "ddpm"):
            raise InputError(f"{self.section}.objective.name: expected flow or ddpm, found {self.objective.name!r}")
        if self.transformer.patch < 1 or self.future % self.transformer.patch:
            raise InputError(
                f"{self.section}.transformer.patch: expected a divisor of the {self.future} steps of "
                f"{self.section}.future, found {self.transformer.patch}"
            )
        _ = self.head  # the transformer's own checks

    @property
    def head(self) -> PolicyConfig:
        """The rows of a future as a policy's rows of actions, which have the same head."""
        return PolicyConfig(
            n_obs_steps=1,
            horizon=self.future,
            n_action_steps=1,
            action_normalization="mean_std",
            normalization_per_step=True,
            transformer=self.transformer,
            objective=self.objective,
        )

    # Extent of training windows in `PolicyConfig`'s terms: the past, and the states that follow.
    whole_windows = True  # padding with repeated frames would teach that actions have no effect
    executed = True  # what a demonstrator wanted instead has no effect either

    @property
    def n_obs_steps(self) -> int:
        return self.past + self.future

    @property
    def horizon(self) -> int:
        return self.n_obs_steps
