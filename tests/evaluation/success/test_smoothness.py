"""Seam jump and jerk against closed forms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers.evaluations import episode

from vla_policy.evaluation.success.smoothness import jerk, smoothness


def test_jerk_is_the_third_derivative() -> None:
    t = np.arange(20)[:, None] / 10
    assert jerk(np.hstack([2 * t**3, 1 - t**3]), 10) == pytest.approx(np.hypot(12, 6))
    assert jerk(np.hstack([t**2, t]), 10) == pytest.approx(0, abs=1e-9)


def test_means_are_over_episodes_which_may_be_too_short() -> None:
    cubic = (np.arange(9)[:, None] / 10) ** 3 * np.ones(2)
    first = replace(episode(1, True), seams=np.array([0.01, 0.03]), actions=cubic)
    second = replace(episode(2, False), seams=np.array([0.05]), actions=np.zeros((9, 2)))
    short = episode(3, False)
    found = smoothness([first, second, short], 10)
    assert (found["mean_seam_jump"], found["n_seams"]) == (pytest.approx(0.035), 3)
    assert found["mean_jerk"] == pytest.approx(6 * np.sqrt(2) / 2)
    low, high = found["mean_seam_jump_ci95"]
    assert low <= 0.035 <= high
    assert smoothness([short], 10)["mean_seam_jump"] is None
