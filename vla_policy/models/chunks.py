"""Between actions as they are recorded and what a policy predicts of them: rows, reference and basis.

Shapes: B windows, D action dimensions, T = `config.rows` predicted rows of a window's `horizon`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import torch
from scipy.fft import dct
from torch import Tensor

from vla_policy.conf.policy_config import PolicyConfig
from vla_policy.interfaces import ACTION, STATE


def encode_chunks(batch: Mapping[str, Tensor], config: PolicyConfig) -> Tensor:
    """What is predicted (B, T, D) of a batch's actions (B, horizon, D): the last T rows, relative to the newest state
    if the policy is, in its basis.
    """
    actions = batch[ACTION][:, -config.rows :]
    if config.action_relative:
        actions = actions - batch[STATE][:, -1:]
    return _cosines(config.rows).to(actions) @ actions if config.action_basis == "frequency" else actions


def decode_chunks(chunks: Tensor, newest: Tensor | None, config: PolicyConfig) -> Tensor:
    """The inverse of `encode_chunks`, from the newest observation on: actions (B, horizon - n_obs_steps + 1, D).

    `newest` (B, 1, D) is the state that relative ones refer to.
    """
    actions = _cosines(config.rows).to(chunks).mT @ chunks if config.action_basis == "frequency" else chunks
    if newest is not None:
        actions = actions + newest
    return actions[:, config.past_rows :]


@lru_cache
def _cosines(rows: int) -> Tensor:
    """The orthonormal discrete cosine transform (type II) as a matrix (rows, rows), slowest first."""
    return torch.from_numpy(dct(torch.eye(rows, dtype=torch.float64).numpy(), axis=0, norm="ortho"))
