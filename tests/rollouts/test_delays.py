"""Rollouts under delays, with scripted policies whose outcome is known, and a robot that does the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from helpers.continuing import Continuing
from helpers.point_env import DT, INTERFACE, PointEnv, Scripted

from vla_policy.interfaces import STATE, ActionChunk, InputError, Observation
from vla_policy.rollouts.control import ControlLoop
from vla_policy.rollouts.results import EpisodeResult
from vla_policy.rollouts.rollout import rollout
from vla_policy.runtime import CHUNKINGS, GateConfig, Limits, ObservationBuffer, Pilot

SEED = 50001


class Counting(Continuing):
    """Chunk number n has the rows (n / 100 + k / 1000, 0); it notes what it is given."""

    def __init__(self, rows: int = 15, n_action_steps: int = 2) -> None:
        super().__init__()
        self.interface = INTERFACE.select([STATE])
        self.n_obs_steps, self.n_action_steps, self.length = 1, n_action_steps, rows
        self.asked: list[float] = []

    def rows(self, history: Sequence[Observation], generator: np.random.Generator) -> np.ndarray:
        rows = np.zeros((self.length, 2))
        rows[:, 0] = len(self.asked) / 100 + np.arange(self.length) / 1000
        self.asked.append(history[-1].t)
        return rows


class Still(PointEnv):
    """Does not end before its limit."""

    def _info(self) -> dict:
        return {**super()._info(), "is_success": False}


def play(policy: Counting, delay: int, chunking: str) -> EpisodeResult:
    (result,) = rollout(policy, Still, [SEED], num_envs=1, num_workers=0, delay=delay, chunking=chunking)
    return result


def steps_asked(policy: Counting) -> list[int]:
    return [round(t / DT) - 1 for t in policy.asked]


def row(chunk: int, k: int) -> float:
    return chunk / 100 + k / 1000


def test_who_waits_plays_every_chunk_from_its_first_row_and_stands_still_between() -> None:
    policy = Counting()
    result = play(policy, 3, "wait")
    assert steps_asked(policy)[:4] == [0, 5, 10, 15]  # three periods of thought, two of motion
    x = result.actions[:15, 0]
    start = result.pusher[0]
    expected = [start] * 3 + [row(0, 0), row(0, 1), row(0, 1), row(0, 1), row(0, 1), row(1, 0), row(1, 1)]
    np.testing.assert_allclose(x[:10], expected, atol=1e-6)
    assert result.held_steps == 3 * 6  # in 30 steps
    np.testing.assert_allclose(result.seams, row(1, 0) - row(0, 1), atol=1e-9)


def test_a_delay_longer_than_what_is_executed_of_a_chunk_makes_chunks_rarer() -> None:
    policy = Counting()
    result = play(policy, 5, "async")
    assert steps_asked(policy) == [0, 5, 10, 15, 20, 25]  # one at a time
    expected = [row(n, k) for n in range(5) for k in range(5, 10)]
    np.testing.assert_allclose(result.actions[5:30, 0], expected, atol=1e-6)
    assert result.held_steps == 5  # before the first
    np.testing.assert_allclose(result.seams, [row(n, 5) - row(n - 1, 10) for n in range(1, 5)], atol=1e-6)


@pytest.mark.parametrize("delay", [1, 2, 4, 8])
def test_what_a_chunk_is_given_is_what_is_executed_until_it_comes(delay: int) -> None:
    policy = Counting(rows=20)
    result = play(policy, delay, "rtc")
    assert policy.given[0] is None
    assert len(policy.given) > 2
    for asked, given in list(zip(steps_asked(policy), policy.given, strict=True))[1:]:
        assert given is not None
        assert given.frozen == delay
        done = result.actions[asked : asked + delay]
        np.testing.assert_allclose(given.rows[: len(done)], done, atol=1e-9)
    late = max(2, delay)  # periods from one question to the next
    assert len(policy.given[1].rows) == 20 - late  # type: ignore[union-attr]
    seams = [row(n, delay) - row(n - 1, delay + late) for n in range(1, 1 + len(result.seams))]
    np.testing.assert_allclose(result.seams, np.abs(seams), atol=1e-6)


def test_without_a_delay_nothing_is_bridged_and_all_is_as_ever() -> None:
    results = {c: rollout(Scripted(0.1), PointEnv, range(50000, 50004), num_workers=0, chunking=c) for c in CHUNKINGS}
    for chunking in ("wait", "rtc"):
        assert results[chunking] == results["async"]
        for a, b in zip(results[chunking], results["async"], strict=True):
            np.testing.assert_array_equal(a.actions, b.actions)
    assert results["ensemble"] != results["async"]  # which has to do with overlap rather than with delay
    assert np.mean([r.seams.mean() for r in results["ensemble"]]) < np.mean([r.seams.mean() for r in results["async"]])


def test_a_delay_of_a_whole_chunk_is_refused_unless_the_arm_waits() -> None:
    with pytest.raises(InputError, match="delay: expected less than a chunk, 15 control periods, found 15"):
        play(Counting(), 15, "async")
    with pytest.raises(InputError, match="delay: expected 0 or more control periods, found -1"):
        play(Counting(), -1, "async")
    with pytest.raises(InputError, match=r"delay: expected less than 1 s with chunking=wait, .* found 10 control"):
        play(Counting(), 10, "wait")  # the gate would hold for good
    assert play(Counting(), 9, "wait").held_steps < 30 - 2


@pytest.mark.parametrize(("chunking", "first"), [("wait", 0.0), ("async", 3.0)])
def test_a_plan_begins_when_its_chunk_does_with_what_is_imagined_of_that_time(chunking: str, first: float) -> None:
    class Planning(Counting):
        def predict(self, *arguments):  # type: ignore[no-untyped-def]
            (found,) = super().predict(*arguments)
            return [replace(found, imagined={STATE: np.arange(16.0)[:, None]})]

    begin, plan = play(Planning(), 3, chunking).plans[0]
    assert (begin, plan[STATE][0, 0]) == (3, first)


@pytest.mark.parametrize("chunking", CHUNKINGS)
def test_a_robot_is_asked_and_plays_as_in_an_evaluation(chunking: str) -> None:
    """The policy's node has a pilot of its own, and a clock that counts from 1970."""
    epoch, delay, drive = 1.7e9, 3, GateConfig(1 / DT, Limits(-np.ones(2), np.ones(2)), {}, state_timeout=0.3)
    policy, twin = Counting(), Counting()
    arm = ControlLoop(policy.interface, 1, 2, drive, chunking)
    pilot = Pilot(twin.interface, 1, 2, ObservationBuffer([STATE], slop=0.0, max_age=DT), chunking)
    waiting: dict[str, tuple[int, ActionChunk]] = {}
    generator, pose = np.random.default_rng(0), np.zeros(2, np.float32)
    for step in range(20):
        now = epoch + step * DT
        arm.observe({STATE: pose}, "", pose)
        pilot.buffer.put(STATE, pose, now, now)
        pilot.observe("")
        if "robot" in waiting and waiting["robot"][0] == step:
            simulated = waiting.pop("simulation")[1]
            assert arm.offer(simulated)
            on_robot = pilot.answer(waiting.pop("robot")[1], now)
            assert on_robot is not None
            assert arm.chunk is not None
            np.testing.assert_allclose(on_robot.actions, arm.chunk.actions, atol=1e-9)
            assert on_robot.t_obs - epoch == pytest.approx(arm.chunk.t_obs - DT, abs=1e-6)
        if "robot" not in waiting:
            window, seen = arm.ask(), pilot.window()
            assert (window is None) == (seen is None)
            if window is not None and seen is not None:
                given = pilot.given(seen)
                pilot.asked(seen)
                (simulated,) = policy.predict([window], generator, [arm.given])
                (on_robot,) = twin.predict([seen], generator, [given])
                waiting = {"simulation": (step + delay, simulated), "robot": (step + delay, on_robot)}
        arm.command()
    assert len(twin.asked) == len(policy.asked) > 3
    for one, other in zip(policy.given, twin.given, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            assert one.frozen == other.frozen == delay
            np.testing.assert_allclose(one.rows, other.rows, atol=1e-9)
