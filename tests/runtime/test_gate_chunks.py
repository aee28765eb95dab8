"""Which chunks the gate accepts, when it plays their rows, and what happens when they end."""

from __future__ import annotations

import numpy as np
from helpers.gate_bench import GateBench

from vla_policy.runtime import State


def test_rows_are_reached_at_the_end_of_their_periods_in_equal_steps() -> None:
    bench = GateBench().ready()
    bench.offer(np.array([0.6, 0.6, 0.7]))
    x = [c.action[0] for c in bench.run(0.3) if c is not None]
    np.testing.assert_allclose(x[:5], [0.525, 0.55, 0.575, 0.6, 0.6], atol=1e-9)
    np.testing.assert_allclose(x[9:14], np.linspace(0.62, 0.7, 5), atol=1e-9)


def test_a_new_chunk_far_from_the_old_one_makes_no_jump() -> None:
    bench = GateBench().start()
    bench.run(0.3)
    bench.offer(np.full(15, 0.8), age=0.06)  # 0.2 m away
    x = np.array([c.action[0] for c in bench.run(0.4) if c is not None])
    assert np.abs(np.diff(x)).max() <= 0.05 + 1e-9
    np.testing.assert_allclose(x[-1], 0.8, atol=1e-9)


def test_stale_and_future_chunks_are_refused_while_the_old_one_plays_on() -> None:
    bench = GateBench().start()
    bench.run(0.7)
    bench.offer(0.9 + np.zeros(15))
    bench.run(0.1)
    assert not bench.offer(np.full(5, 0.9), age=0.6)  # over
    assert not bench.offer(np.full(15, 0.9), age=0.3)  # made from an older observation
    assert not bench.offer(np.full(15, 0.9), age=-0.5)
    assert bench.gate.refused == {"stale chunk": 2, "chunk from the future": 1}
    assert {c.status for c in bench.run(0.5) if c} == {"ok"}


def test_a_chunk_observed_before_enabling_is_refused() -> None:
    bench = GateBench().ready()
    assert not bench.offer(np.full(15, 0.9), age=0.01)
    assert bench.gate.refused == {"chunk from before enabling": 1}
    assert bench.offer(np.full(15, 0.9))


def test_after_the_last_row_the_gate_waits_for_the_next_chunk() -> None:
    bench = GateBench().start()
    bench.run(2.0)
    assert bench.gate.supervisor.state is State.ARMED
    assert bench.offer(np.full(15, 0.6))
    bench.run(0.04)
    assert bench.gate.supervisor.state is State.RUNNING


def test_the_arm_does_not_resume_by_itself_after_a_long_gap_between_chunks() -> None:
    bench = GateBench().start()
    bench.run(2.7)  # the chunk is over after 1.5 s
    assert bench.gate.supervisor.state is State.HOLDING
    assert "no action for 1.0 s" in bench.gate.supervisor.reason
    assert not bench.offer(np.full(15, 0.6))
    bench.enable()
    bench.run(3.0)  # the first chunk may take its time
    assert bench.gate.supervisor.state is State.ARMED
