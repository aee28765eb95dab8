"""Everything that defines an agent that denoises its own future; stored in its checkpoint as config.yaml."""

from __future__ import annotations

from dataclasses import dataclass

from vla_policy.conf import checks
from vla_policy.conf.future_config import FutureConfig
from vla_policy.interfaces import InputError

KINDS = ("diffuser", "decision_diffuser")


@dataclass
class TrajectoryConfig(FutureConfig):
    """Diffuser or Decision Diffuser: what will be, from what was; an agent that does what it takes to be there."""

    kind: str = "diffuser"
    """diffuser: states and actions jointly, guided by the gradient of an objective | decision_diffuser: states alone,
    conditioned on a return, and actions by inverse dynamics
    """
    n_action_steps: int = 8  # steps executed before the next plan
    discount: float = 0.98  # decision_diffuser: of the return, for each control period to a demonstration's end
    condition_dropout: float = 0.25  # decision_diffuser, in training: how often the return is hidden, 0 to 1
    inverse_width: int = 256  # decision_diffuser: of the hidden layers of the inverse dynamics
    inverse_depth: int = 2  # decision_diffuser: hidden layers of the inverse dynamics

    section = "trajectory"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind not in KINDS:
            raise InputError(f"trajectory.kind: expected one of {list(KINDS)}, found {self.kind!r}")
        checks.check_ranges(self, "trajectory", n_action_steps=(1, self.future), condition_dropout=(0, 1))
        checks.check_ranges(self, "trajectory", inverse_width=(1, checks.WIDEST), inverse_depth=(1, checks.DEEPEST))
        if not 0 < self.discount < 1:
            raise InputError(f"trajectory.discount: expected a number between 0 and 1, found {self.discount}")
