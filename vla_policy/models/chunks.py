"""Between actions as they are recorded and what a policy predicts of them: rows, reference, frame and basis.

Shapes: B windows, D action dimensions, T = `config.rows` predicted rows of a window's `horizon`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

import torch
from scipy.fft import dct
from torch import Tensor

from vla_policy.conf.policy_config import PolicyConfig
from vla_policy.interfaces import ACTION, STATE
from vla_policy.models.frames import ObjectFrame


class Origin(NamedTuple):
    """What predicted actions refer to: the newest state (B, 1, D) of relative ones, and the object's pose (B, 1, 4) of
    those in its frame; None where they do not.
    """

    state: Tensor | None = None
    pose: Tensor | None = None

    def repeated(self, draws: int) -> Origin:
        """For several chunks an observation, one after the other."""
        return Origin(*(None if part is None else part.repeat_interleave(draws, dim=0) for part in self))


class ChunkCodec:
    """Encodes actions as the policy predicts them: relative to the newest state, in an object's frame, in a basis."""

    def __init__(self, config: PolicyConfig, frame: ObjectFrame | None) -> None:
        self.config, self.frame = config, frame

    def origin(self, batch: Mapping[str, Tensor]) -> Origin:
        """Of recorded windows."""
        state = batch[STATE][:, -1:] if self.config.action_relative else None
        return Origin(state, None if self.frame is None else batch[self.frame.key][:, -1:])

    def encode(self, batch: Mapping[str, Tensor]) -> Tensor:
        """What is predicted (B, T, D) of a batch's actions (B, horizon, D): the last T rows."""
        actions = self.relative(batch[ACTION][:, -self.config.rows :], self.origin(batch))
        return _cosines(self.config.rows).to(actions) @ actions if self._frequencies else actions

    def relative(self, actions: Tensor, origin: Origin) -> Tensor:
        """Actions (B, rows, D) in the robot's units as the policy sees them over time, from their origin."""
        if origin.state is not None:
            actions = actions - origin.state
        if self.frame is not None and origin.pose is not None:
            actions = self.frame.turned(actions, origin.pose)
        return actions

    def decode(self, chunks: Tensor, origin: Origin) -> Tensor:
        """The inverse of `encode`, from the newest observation on: actions (B, horizon - n_obs_steps + 1, D)."""
        actions = _cosines(self.config.rows).to(chunks).mT @ chunks if self._frequencies else chunks
        if self.frame is not None and origin.pose is not None:
            actions = self.frame.turned_back(actions, origin.pose)
        if origin.state is not None:
            actions = actions + origin.state
        return actions[:, self.config.past_rows :]

    @property
    def _frequencies(self) -> bool:
        return self.config.action_basis == "frequency"


@lru_cache
def _cosines(rows: int) -> Tensor:
    """The orthonormal discrete cosine transform (type II) as a matrix (rows, rows), slowest first."""
    return torch.from_numpy(dct(torch.eye(rows, dtype=torch.float64).numpy(), axis=0, norm="ortho"))
