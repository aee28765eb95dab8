"""Watchers of many arms at once see what a watcher of one would, with latents of one batch."""

from __future__ import annotations

import numpy as np
from helpers.small_world_model import TOP, picture, small_world_model, walk

from vla_policy.evaluation.surprise.watches import Guards, Recorder
from vla_policy.interfaces import STATE, ActionChunk, Observation
from vla_policy.monitoring import Calibration, ChunkInconsistency, Monitor, PixelDifference, PredictionError
from vla_policy.rollouts.results import Start
from vla_policy.rollouts.watch import Seen
from vla_policy.world_model import NumpyWorldModel

STEPS = 12


def episode(seed: int, teleported: bool = False) -> list[Seen]:
    positions, targets = walk(np.random.default_rng(seed), STEPS)
    if teleported:
        positions[8:] = 1 - positions[8:]
    chunks = [ActionChunk(np.full((8, 2), k / 10 + seed), 0.1 * k, 0.1) if k % 4 == 1 else None for k in range(STEPS)]
    return [
        Seen(
            Observation({TOP: picture(positions[k]), STATE: positions[k]}, "walk", 0.1 * k),
            targets[k - 1] if k else None,
            chunks[k],
        )
        for k in range(STEPS)
    ]


def test_recorded_together_episodes_are_as_recorded_alone() -> None:
    episodes = {Start(seed): episode(seed) for seed in range(3)}
    recorder, batches = Recorder(NumpyWorldModel(small_world_model())), []
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


def test_only_the_arm_whose_monitor_is_surprised_is_halted() -> None:
    model = NumpyWorldModel(small_world_model())
    quiet, teleported = episode(0), episode(0, teleported=True)

    def scores(monitor: Monitor, seen: list[Seen]) -> list[float]:
        return [monitor.update(new.observation, new.command, new.chunk).score for new in seen]

    def monitor(threshold: float) -> Monitor:
        return Monitor(PredictionError(model), Calibration("d", 0.1, 0.0, 1.0, threshold, 10, 2, {}))

    alone = scores(monitor(np.inf), quiet), scores(monitor(np.inf), teleported)
    threshold = max(alone[0])
    surprised_at = int(np.argmax(np.array(alone[1]) > threshold))
    assert surprised_at == 8  # at the first observation that the event changed
    guards, halted = Guards(model, lambda: monitor(threshold + 1e-4)), []
    for a, b in zip(quiet, teleported, strict=True):
        halted.append(guards.update({Start(1): [a], Start(2): [b]}))
    assert [set(names) for names in halted[:9]] == [set()] * 8 + [{Start(2)}]
    assert all(Start(1) not in names for names in halted)
    for start, expected in zip((Start(1), Start(2)), alone, strict=True):
        np.testing.assert_allclose(guards.record(start)["surprise"], expected, atol=1e-5)
