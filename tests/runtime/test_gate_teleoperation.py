"""A person leads the arm through the gate, and the policy does not take over by itself."""

from __future__ import annotations

import numpy as np
from helpers.gate_bench import TICK, GateBench

from vla_policy.runtime import State


def test_a_person_overrides_the_policy_which_does_not_resume() -> None:
    bench = GateBench().start()
    for _ in range(10):
        bench.gate.teleoperate(np.array([0.5, 0.7]), bench.steady)
        bench.offer(np.full(15, 0.9))
        bench.run(TICK)
    np.testing.assert_allclose(bench.pose, [0.5, 0.7], atol=0.05)
    assert bench.gate.teleoperated
    statuses = [c.status for c in bench.run(0.5) if c]
    assert statuses[-1] == "hold"
    assert bench.gate.supervisor.reason == "teleoperation ended"


def test_one_teleoperation_target_leads_no_longer_than_its_timeout() -> None:
    bench = GateBench().start()
    for _ in range(100):  # the policy plays for a while after the last takeover
        bench.offer(np.full(15, 0.6))
        bench.run(0.3)
    bench.gate.teleoperate(np.array([0.5, 0.7]), bench.steady)
    bench.run(TICK)
    assert bench.gate.teleoperated
    bench.run(0.2)
    assert not bench.gate.teleoperated
    assert bench.gate.supervisor.reason == "teleoperation ended"


def test_a_stale_teleoperation_target_is_refused() -> None:
    bench = GateBench().start()
    bench.gate.teleoperate(np.array([0.5, 0.7]), bench.steady, age=0.7)
    bench.run(TICK)
    assert not bench.gate.teleoperated
    assert bench.gate.refused == {"teleop stale": 1}


def test_enabling_again_forgets_the_last_teleoperation_target() -> None:
    bench = GateBench().start()
    bench.gate.teleoperate(np.array([0.5, 0.7]), bench.steady)
    bench.run(TICK)
    bench.gate.disable()
    bench.enable()
    assert not bench.gate.teleoperated
    assert bench.offer(np.full(15, 0.6))
    bench.run(0.1)
    assert bench.gate.supervisor.state is State.RUNNING
