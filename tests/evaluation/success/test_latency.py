"""Timing of chunks: every call is one history, warm-up apart, and no longer than told."""

from __future__ import annotations

import time

import numpy as np
import pytest
from helpers.point_env import Scripted

from vla_policy.evaluation.success.latency import KeepHistories, chunk_latency, random_histories
from vla_policy.interfaces import Given, InputError


class Slow(Scripted):
    """Takes 30 ms for the first chunk, then 5 ms each."""

    def predict(self, histories, generator):
        time.sleep(0.005 if self.batches else 0.03)
        return super().predict(histories, generator)


def test_chunks_are_timed_one_at_a_time_and_warm_up_apart() -> None:
    policy = Slow()
    found = chunk_latency(policy, random_histories(policy, 3), repeats=20, warmup=2)
    assert policy.batches == [1] * 22
    assert len(found["warmup_ms"]) == 2
    assert found["warmup_ms"][0] >= 30
    assert 5 <= found["p50"] <= found["p95"] <= found["p99"]
    assert found["n"] == 20


def test_what_a_chunk_is_timed_with_it_is_given() -> None:
    seen = []

    class Continuing(Scripted):
        def predict(self, histories, generator, given=()):
            seen.append(given[0].frozen if given else None)
            return super().predict(histories, generator)

    policy = Continuing()
    chunk_latency(policy, random_histories(policy), repeats=2, warmup=1, given=Given(np.zeros((4, 2)), 3))
    assert seen == [3, 3, 3]


def test_a_slow_policy_is_timed_less_often() -> None:
    policy = Slow()
    found = chunk_latency(policy, random_histories(policy), repeats=1000, warmup=0, max_seconds=0.05)
    assert 1 <= found["n"] <= 10
    with pytest.raises(InputError, match="expected histories"):
        chunk_latency(policy, [])


def test_histories_are_kept_as_they_were_asked() -> None:
    kept = KeepHistories(Scripted(), count=3)
    histories = random_histories(kept, 5)
    assert len(kept.predict(histories[:2], np.random.default_rng(0))) == 2
    assert len(kept.predict(histories[2:], np.random.default_rng(0))) == 3
    assert [h[-1] for h in kept.histories] == [h[-1] for h in histories[:3]]
