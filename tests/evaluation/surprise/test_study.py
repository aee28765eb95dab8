"""The study of surprise on made-up traces: every detector calibrated alike, collapsed latents refused."""

from dataclasses import replace

import numpy as np
import pytest
from helpers.small_world_model import small_world_model

from vla_policy.evaluation.surprise.study import (
    Detector,
    SurpriseConfig,
    check_latents,
    evaluate_detectors,
    failure_detectors,
    make_detectors,
)
from vla_policy.evaluation.surprise.traces import Trace
from vla_policy.interfaces import InputError
from vla_policy.planning.options import PlannerConfig


def trace(seed: int, event_step: int | None = None, success: bool = True, steps: int = 30) -> Trace:
    """Scores are noise; an event adds 20 to those called "good"."""
    rng = np.random.default_rng([seed, event_step is not None])
    noise = rng.lognormal(size=(2, steps + 1))
    if event_step is not None:
        noise[0, event_step + 1 :] += 20
    scores = {"good": noise[0], "bad": noise[1]}
    return Trace(seed, success, rng.normal(size=(steps + 1, 8)), np.zeros((steps, 2)), scores, event_step)


def test_a_good_detector_beats_a_bad_one_and_both_keep_their_false_alarm_rate() -> None:
    calibration = [trace(k) for k in range(100)]
    detectors = {name: Detector(lambda t, n=name: t.scores[n], calibration) for name in ("good", "bad")}
    nominal = [trace(k, success=k % 4 > 0) for k in range(1000, 1200)]
    disturbed = {"frozen_camera": [trace(k, event_step=10) for k in range(1000, 1080)]}
    found = evaluate_detectors(
        detectors, nominal, disturbed, SurpriseConfig(alpha=0.1, window=10, events=["frozen_camera"])
    ).summary
    good, bad = (found["events"]["frozen_camera"][name] for name in ("good", "bad"))
    assert good["auroc"] > 0.95 > 0.65 > bad["auroc"]
    assert good["tpr"] > 0.85 > 0.2 > bad["tpr"]
    assert good["delay_steps_p50"] == 1
    for name in ("good", "bad"):
        quiet = found["nominal"][name]
        low, high = quiet["expected_count_ci95"]
        assert quiet["n"] == 150
        assert low <= quiet["false_alarms"] <= high
        assert quiet["calibration_episodes"] == 80
    assert found["failure_prediction"]["good"]["failures"] == 50


def test_random_distillation_is_not_calibrated_on_what_it_learned_from(monkeypatch: pytest.MonkeyPatch) -> None:
    learned = []

    class Distillation:
        def __init__(self, latents: np.ndarray) -> None:
            learned.append(latents)

    monkeypatch.setattr("vla_policy.evaluation.surprise.study.RandomDistillation", Distillation)
    successes = [trace(k) for k in range(12)]
    detectors = make_detectors(small_world_model(latent=8), successes)
    calibrated_on = detectors["rnd"].calibration
    assert len(calibrated_on) == 9
    assert not any((t.latents[0] == learned[0]).all(axis=1).any() for t in calibrated_on)
    assert detectors["whitened_error"].calibration == detectors["prediction_error"].calibration == successes


def stuck(seed: int, since: int, steps: int = 100) -> Trace:
    """An episode in which nothing moves any more; it fails."""
    moving = trace(seed, success=False, steps=steps)
    moving.latents[since:] = moving.latents[since]
    commands = np.random.default_rng(seed).normal(size=(steps, 2))
    commands[since:] = commands[since]
    return Trace(seed, False, moving.latents, commands, moving.scores)


def test_a_stuck_policy_is_distinguished_from_a_working_one() -> None:
    rng = np.random.default_rng(0)

    def succeeding(seed: int) -> Trace:
        moving = trace(seed, steps=60)
        return Trace(seed, True, moving.latents, rng.normal(size=(60, 2)), moving.scores)

    detectors = failure_detectors([succeeding(k) for k in range(100)])
    nominal = [*(succeeding(k) for k in range(1000, 1040)), *(stuck(k, since=20) for k in range(1040, 1060))]
    found = evaluate_detectors(detectors, nominal, {}, SurpriseConfig(alpha=0.1)).summary["failure_prediction"]
    assert found["stillness"]["tpr"] == found["commands"]["tpr"] == found["elapsed"]["tpr"] == 1
    early = {name: found[name]["time_weighted_accuracy"] - found[name]["tnr"] / 2 for name in found}
    assert 0.41 > early["stillness"] > 0.3 > early["commands"] > 0.2  # of 0.5: within 20 and 40 steps after step 20
    assert early["elapsed"] == pytest.approx(0.5 * (1 - 61 / 100))


def test_collapsed_latents_are_refused() -> None:
    good = [trace(k) for k in range(5)]
    check_latents(good)
    flat = [Trace(0, True, np.ones((200, 8)) * np.linspace(0, 1, 200)[:, None], np.zeros((199, 2)), {})]
    with pytest.raises(InputError, match=r"collapsed ones \(effective rank 1\.0 of 8.*larger world_model\.sigreg"):
        check_latents(flat)
    with pytest.raises(InputError, match="expected successful episodes, found none"):
        check_latents([])


def test_what_a_planner_imagines_is_a_score_beside_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vla_policy.evaluation.surprise.study.RandomDistillation", lambda latents: None)
    successes = [trace(k) for k in range(12)]
    assert "imagined" not in make_detectors(small_world_model(latent=8), successes)
    imagining = [replace(t, scores={**t.scores, "imagined": t.scores["good"]}) for t in successes]
    detector = make_detectors(small_world_model(latent=8), imagining)["imagined"]
    np.testing.assert_array_equal(detector.score(imagining[0]), successes[0].scores["good"])
    with pytest.raises(InputError, match="planner: expected none or dmpc, which imagines, found 'oracle'"):
        SurpriseConfig(planner=PlannerConfig("oracle"))
