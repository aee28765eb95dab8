"""Conformal thresholds: the finite-sample rank, what it promises, and simulated episodes that hold it to that."""

import math

import numpy as np
import pytest

from vla_policy.interfaces import InputError
from vla_policy.monitoring import (
    calibrate,
    conformal_threshold,
    false_alarm_counts,
    false_alarm_spread,
    grouped_threshold,
)
from vla_policy.monitoring.conformal import least_episodes


@pytest.mark.parametrize(
    ("n", "alpha", "rank"),
    [(19, 0.05, 19), (20, 0.05, 20), (39, 0.05, 38), (200, 0.05, 191), (9, 0.1, 9), (99, 0.1, 90)],
)
def test_the_threshold_is_the_score_of_the_references_rank(n: int, alpha: float, rank: int) -> None:
    scores = np.random.default_rng(0).permutation(np.arange(1.0, n + 1))
    assert conformal_threshold(scores, alpha) == rank


def test_groups_of_one_are_single_scores_and_larger_ones_count_no_more() -> None:
    scores = np.random.default_rng(0).permutation(np.arange(1.0, 60))
    assert grouped_threshold([[score] for score in scores], 0.05) == conformal_threshold(scores, 0.05)
    groups = [[float(i), i + 0.5] for i in range(39)]
    assert grouped_threshold(groups, 0.05) == 37.5  # 1 of 40 is the new group's, so that one whole group may lie above
    assert grouped_threshold([[score] * (1 + i % 5) for i, score in enumerate(scores)], 0.05) == 57.0
    assert grouped_threshold([[math.inf], [math.inf], *groups[:37]], 0.05) == math.inf
    with pytest.raises(InputError, match=r"at least 19 groups of scores for alpha 0\.05"):
        grouped_threshold(groups[:18], 0.05)
    with pytest.raises(InputError, match="found NaN"):
        grouped_threshold([[math.nan], *groups], 0.05)


def test_scores_of_a_new_group_exceed_the_threshold_as_seldom_as_promised() -> None:
    generator, exceeded = np.random.default_rng(0), []
    for _ in range(400):  # what a group has in common is most of a score
        draws = generator.normal(size=(31, 1)) + 0.3 * generator.normal(size=(31, 8))
        exceeded.append(np.mean(draws[30] > grouped_threshold(list(draws[:30]), 0.05)))
    assert np.mean(exceeded) <= 0.05


def test_too_few_episodes_are_refused_with_how_many_more() -> None:
    assert (least_episodes(0.05), least_episodes(0.1)) == (19, 9)
    with pytest.raises(InputError, match=r"at least 19 successful episodes for alpha 0\.05, found 12; 7 more"):
        conformal_threshold(np.ones(12), 0.05)
    with pytest.raises(InputError, match=r"at least 24 successful episodes for alpha 0\.05, found 20; 4 more"):
        calibrate([np.ones(5)] * 20, 0.05, "d", {})  # one in five is for mean and scale
    calibrate(list(np.random.default_rng(0).random((24, 5))), 0.05, "d", {})
    with pytest.raises(InputError, match=r"alpha: expected a probability between 0 and 1, found 1\.5"):
        least_episodes(1.5)
    with pytest.raises(InputError, match="expected finite scores"):
        conformal_threshold([1.0, math.nan] * 20, 0.05)


@pytest.mark.parametrize(("n", "mean", "ninety"), [(19, 0.05, 0.114), (100, 5 / 101, 0.078)])
def test_the_spread_of_the_realised_rate_is_the_references(n: int, mean: float, ninety: float) -> None:
    assert false_alarm_spread(n, 0.05) == pytest.approx((mean, ninety), abs=1e-3)


def test_exchangeable_episodes_meet_the_guarantee_and_its_spread() -> None:
    """Heavy-tailed scores over time, as prediction errors are; every calibration is followed by new episodes."""
    rng, alarms, episodes = np.random.default_rng(0), [], 50
    for _ in range(1000):
        made = calibrate(list(rng.lognormal(size=(50, 30))), 0.1, "d", {})
        new = (rng.lognormal(size=(episodes, 30)) - made.mean) / made.scale
        alarms.append(int((new.max(axis=1) > made.threshold).sum()))
    assert made.episodes == 40
    rate = np.mean(alarms) / episodes
    expected, _ = false_alarm_spread(40, 0.1)
    assert expected < 0.1
    assert rate == pytest.approx(expected, abs=0.005)
    low, high = false_alarm_counts(40, 0.1, episodes)
    inside = np.mean([(low <= count <= high) for count in alarms])
    assert inside >= 0.94
    assert np.mean([low < count < high for count in alarms]) < 0.99  # and no wider than it has to be


def test_thresholds_of_single_steps_would_alarm_in_most_episodes() -> None:
    rng = np.random.default_rng(0)
    scores = rng.lognormal(size=(200, 60))
    of_steps = np.quantile(scores, 0.95)
    assert (rng.lognormal(size=(200, 60)).max(axis=1) > of_steps).mean() > 0.8
