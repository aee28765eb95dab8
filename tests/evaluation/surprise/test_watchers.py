"""Watchers of many arms at once see what a watcher of one would, with latents of one batch."""

from __future__ import annotations

import numpy as np
from helpers.small_world_model import TOP, picture, small_world_model, walk

from vla_policy.evaluation.surprise.watchers import HaltingMonitors, ScoreRecorder
from vla_policy.interfaces import STATE, ActionChunk, Observation
from vla_policy.monitoring import Calibration, ChunkInconsistency, Monitor, PixelDifference, PredictionError
from vla_policy.rollouts.results import Start
from vla_policy.rollouts.watch import WatchedStep
from vla_policy.world_model import NumpyWorldModel

STEPS = 12


def episode(seed: int) -> list[WatchedStep]:
    positions, targets = walk(np.random.default_rng(seed), STEPS)
    chunks = [ActionChunk(np.full((8, 2), k / 10 + seed), 0.1 * k, 0.1) if k % 4 == 1 else None for k in range(STEPS)]
    return [
        WatchedStep(
            Observation({TOP: picture(positions[k]), STATE: positions[k]}, "walk", 0.1 * k),
            targets[k - 1] if k else None,
            chunks[k],
        )
        for k in range(STEPS)
    ]


def test_recorded_together_episodes_are_as_recorded_alone() -> None:
    episodes = {Start(seed): episode(seed) for seed in range(3)}
    recorder, batches = ScoreRecorder(NumpyWorldModel(small_world_model())), []
    encode = recorder.model.model.encode
    recorder.model.model.encode = lambda pictures: batches.append(len(pictures[TOP])) or encode(pictures)
    for k in range(0, STEPS, 4):
        assert not recorder.update({start: seen[k : k + 4] for start, seen in episodes.items()})
    assert batches == [12, 12, 12]
    alone = NumpyWorldModel(small_world_model())
    for start, seen in episodes.items():
        found, pixel, chunk = recorder.record(start), PixelDifference([TOP]), ChunkInconsistency()
        np.testing.assert_allclose(found["latent"], [alone.encode(new.observation) for new in seen], atol=1e-5)
        for name, score in (("pixel", pixel), ("chunk", chunk)):
            values = [score.update(new.observation, new.command, new.chunk) for new in seen]
            np.testing.assert_array_equal(found[name], np.array(values, float))
        assert np.isfinite(found["chunk"][-1])


def test_an_arm_is_halted_when_its_own_monitor_is_surprised() -> None:
    model, episodes = NumpyWorldModel(small_world_model()), {Start(seed): episode(seed) for seed in range(2)}

    def monitor(threshold: float) -> Monitor:
        return Monitor(PredictionError(model), Calibration("d", 0.1, 0.0, 1.0, threshold, 10, 2, {}))

    alone = {}
    for start, seen in episodes.items():
        unlimited = monitor(np.inf)
        alone[start] = np.array([unlimited.update(new.observation, new.command, new.chunk).score for new in seen])
    threshold = min(scores.max() for scores in alone.values()) * 1.001  # one of the two exceeds it
    expected = [{start for start in episodes if alone[start][k] > threshold} for k in range(STEPS)]
    assert sorted(map(len, expected))[-1] == 1
    watcher = HaltingMonitors(model, lambda: monitor(threshold))
    halted = [set(watcher.update({start: [seen[k]] for start, seen in episodes.items()})) for k in range(STEPS)]
    assert halted == expected
    for start, scores in alone.items():
        np.testing.assert_allclose(watcher.record(start)["surprise"], scores, atol=1e-5)
