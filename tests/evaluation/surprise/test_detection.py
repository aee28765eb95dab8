"""Detection rates, AUROC and delays against cases counted by hand."""

from pathlib import Path

import numpy as np
import pytest

from vla_policy.evaluation.surprise.detection import (
    Scored,
    auroc,
    event_detection,
    failure_prediction,
    false_alarms,
    standardised,
    without_nan,
)
from vla_policy.evaluation.surprise.traces import Trace, load_traces, save_traces
from vla_policy.monitoring import Calibration


def scored(scores: list[float], seed: int = 0, success: bool = True, event_step: int | None = None) -> Scored:
    steps = len(scores) - 1
    trace = Trace(seed, success, np.zeros((steps + 1, 2)), np.zeros((steps, 2)), {}, event_step)
    return Scored(trace, np.array(scores, float))


def test_an_alarm_counts_from_the_first_observation_that_may_differ() -> None:
    quiet = [scored([0, 0, 0, 0, 0, 0], seed=k) for k in range(4)]
    disturbed = [
        scored([0, 0, 9, 0, 0, 0], 0, event_step=1),  # observation 2 is the first after the step that was changed
        scored([0, 0, 0, 0, 9, 9], 1, event_step=1),
        scored([0, 9, 9, 9, 9, 9], 2, event_step=1),  # alarmed before: no detection
        scored([0, 0, 0, 0, 0, 9], 3, event_step=1),  # too late for the window
        scored([0, 0, 0], 4, event_step=None),  # over before the event
    ]
    found = event_detection(disturbed, quiet, threshold=1.0, window=3)
    assert (found["n"], found["detected"], found["alarms_before"]) == (4, 2, 1)
    assert (found["delay_steps_p50"], found["within_2_steps"]) == (2.0, 1)  # delays of 1 and 3
    assert found["tpr"] == 0.5
    assert found["tpr_ci95"][0] < 0.5 < found["tpr_ci95"][1]
    assert found["auroc"] == pytest.approx((3 + 0.5) / 4)  # three above, one ties
    assert found["auroc_pairs"] == 4
    assert found["auroc_ci95"][0] < 0.875 < found["auroc_ci95"][1]


def test_windows_are_equally_long_in_both() -> None:
    """The undisturbed episode goes on to be surprising after the other one has ended."""
    disturbed, quiet = scored([0, 0, 2], event_step=1), scored([0, 0, 1, 50])
    assert event_detection([disturbed], [quiet], 10.0, window=5)["auroc"] == 1.0


def test_auroc_is_the_probability_of_being_ranked_higher() -> None:
    rng = np.random.default_rng(0)
    positive, negative = rng.normal(1, 1, 300), rng.normal(0, 1, 200)
    wins = (positive[:, None] > negative[None]).mean()
    assert auroc(positive.tolist(), negative.tolist()) == pytest.approx(wins)
    assert auroc([1.0, 1.0], [1.0]) == 0.5
    assert auroc([], [1.0]) is None


def test_false_alarms_are_those_of_successes() -> None:
    episodes = [scored([0, 2]), scored([0, 0]), scored([5, 5], success=False)]
    found = false_alarms(episodes, 1.0)
    assert (found["n"], found["false_alarms"]) == (2, 1)


def test_failure_prediction_weighs_alarms_by_their_time() -> None:
    episodes = [
        scored([0, 9, 0, 0, 0], success=False),  # at step 1 of 4: counts 3 / 4
        scored([0, 0, 0, 0, 0], success=False),
        scored([0, 0, 0], success=True),
        scored([0, 0, 9], success=True),
        scored([0, 0, 0], success=True),
        scored([0, 0, 0], success=True),
    ]
    found = failure_prediction(episodes, 1.0)
    assert (found["tpr"], found["tnr"]) == (0.5, 0.75)
    assert found["balanced_accuracy"] == pytest.approx(0.625)
    assert found["time_weighted_accuracy"] == pytest.approx((0.375 + 0.75) / 2)
    low, high = found["time_weighted_accuracy_ci95"]
    assert low < found["time_weighted_accuracy"] < high
    assert failure_prediction(episodes[2:], 1.0)["balanced_accuracy"] is None


def test_a_missing_score_is_not_an_alarm() -> None:
    made = Calibration("d", 0.1, 1.0, 2.0, 0.5, 10, 2, {})
    found = standardised(scored([0, 0, 0]).trace, np.array([np.nan, 3.0, 1.0]), made)
    assert found.scores.tolist() == [-np.inf, 1.0, 0.0]
    assert found.first_alarm(0.5) == 1
    assert without_nan(np.array([np.nan, 3.0])).tolist() == [3.0]


def test_traces_come_back_as_they_were(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    traces = [
        Trace(k, k % 2 == 0, rng.random((n + 1, 3)), rng.random((n, 2)), {"pixel": rng.random(n + 1)}, event)
        for k, (n, event) in enumerate([(4, None), (2, 1), (7, 0)])
    ]
    save_traces(tmp_path / "t" / "some.npz", traces)
    for one, other in zip(traces, load_traces(tmp_path / "t" / "some.npz"), strict=True):
        assert (one.seed, one.success, one.event_step) == (other.seed, other.success, other.event_step)
        for mine, theirs in ((one.latents, other.latents), (one.commands, other.commands)):
            np.testing.assert_array_equal(mine, theirs)
        np.testing.assert_array_equal(one.scores["pixel"], other.scores["pixel"])
