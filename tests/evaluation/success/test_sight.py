"""Errors of estimates on a generated two-camera robot, whose state stands for what pictures show."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers.bimanual import bimanual_interface

from vla_policy.data import LeRobotDataset
from vla_policy.evaluation.success.sight import sight, sight_table, summarize_sight
from vla_policy.interfaces import STATE, Observation

ROBOT = bimanual_interface()


class Sees:
    """Estimates the state by the time stamp, `off` radians off; the older of its two estimates is nonsense."""

    interface = ROBOT.select([ROBOT.cameras[0]])
    full_interface = ROBOT.select([ROBOT.cameras[0], STATE])
    config = SimpleNamespace(auxiliary_keys=[STATE])
    n_obs_steps = 2

    def __init__(self, states: np.ndarray, off: float) -> None:
        self.states, self.off = states, off

    def eval(self) -> Sees:
        return self

    def batch(self, histories: Sequence[Sequence[Observation]]) -> list[int]:
        return [round(history[-1].t * 30) for history in histories]

    def estimates(self, batch: list[int]) -> dict[str, torch.Tensor]:
        newest = torch.from_numpy(self.states[batch] + self.off)[:, None]
        return {STATE: torch.cat([torch.full_like(newest, 99.0), newest], dim=1)}


@pytest.fixture(scope="module")
def dataset(bimanual_original: Path) -> LeRobotDataset:
    return LeRobotDataset(bimanual_original)


def test_errors_are_those_of_the_newest_estimates_beside_those_of_a_constant(dataset: LeRobotDataset) -> None:
    states = dataset.episode(1).columns[STATE].astype(float)
    policy: Any = Sees(states, off=0.25)
    (found,) = sight(policy, dataset, [1], batch_size=7)
    assert found.estimates[STATE].shape == states.shape
    summary = summarize_sight([found, found], ROBOT)
    assert list(summary[STATE]) == list(ROBOT.observations[STATE].names)
    for k, error in enumerate(summary[STATE].values()):
        assert error["median"] == pytest.approx(0.25, abs=1e-6)
        assert error["p90"] == pytest.approx(0.25, abs=1e-6)
        expected = np.median(np.abs(states[:, k] - np.median(states[:, k])))
        assert error["median_constant"] == pytest.approx(expected, abs=1e-6)
    assert sight_table(summary, len(states)).row_count == 1 + states.shape[1]
