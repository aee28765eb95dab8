"""When a chunk is asked for, what it is given to continue, and what is played of it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vla_policy.interfaces import ActionChunk, InputError
from vla_policy.runtime import CHUNKINGS, Chunking, Gate, GateConfig, Limits, Timeline

DT = 0.1
EPOCH = 1.7e9


def chunk(t_obs: float, first: float = 0.0, rows: int = 8) -> ActionChunk:
    """Row k is (first + k, first + k)."""
    return ActionChunk(np.repeat(first + np.arange(rows, dtype=float)[:, None], 2, axis=1), t_obs, DT)


def played(chunking: Chunking, t: float, delay: float, answer: ActionChunk) -> ActionChunk | None:
    chunking.ask(t)
    return chunking.answer(answer, t + delay * DT)


def test_what_is_given_is_what_the_timeline_will_have_played_by_then() -> None:
    chunking = Chunking("rtc", 2, DT)
    assert chunking.given(EPOCH) is None
    played(chunking, EPOCH, 3, chunk(EPOCH))
    given = chunking.given(EPOCH + 3 * DT)
    assert given is not None
    assert (given.rows[:, 0].tolist(), given.frozen) == ([3, 4, 5, 6, 7], 3)
    late = chunking.given(EPOCH + 6 * DT)  # of the next three rows two are there; then the arm stands still
    assert late is not None
    assert (late.rows[:, 0].tolist(), late.frozen) == ([6, 7], 2)
    assert chunking.given(EPOCH + 8 * DT) is None


def test_between_two_rows_the_given_ones_lie_between_them() -> None:
    timeline = Timeline()
    timeline.offer(chunk(EPOCH), EPOCH)
    np.testing.assert_allclose(timeline.ahead(EPOCH + 4.25 * DT)[:, 0], [4.25, 5.25, 6.25], atol=1e-4)
    np.testing.assert_array_equal(timeline.ahead(EPOCH + 5 * DT)[:, 0], [5, 6, 7])  # exactly: no rounding of times
    assert len(timeline.ahead(EPOCH - DT)) == len(Timeline().ahead(EPOCH)) == 0


def test_the_expected_delay_is_the_largest_of_the_latest_ones_in_control_periods() -> None:
    chunking, t = Chunking("rtc", 2, DT), EPOCH
    assert chunking.delay == 0
    for late, expected in ((0.04, 0), (0.26, 2), (0.31, 3), (0.1, 3), *([(0.1, 3)] * 8), (0.1, 1)):
        chunking.ask(t)
        chunking.answer(chunk(t), t + late)
        assert chunking.delay == expected
        t += 1.0
    chunking.reset()
    assert chunking.delay == 1  # it is the same computer
    assert chunking.given(t) is None


def test_without_a_delay_there_is_nothing_to_continue() -> None:
    chunking = Chunking("rtc", 2, DT)
    played(chunking, EPOCH, 0, chunk(EPOCH))
    assert chunking.given(EPOCH + 2 * DT) is None


def test_an_answer_to_what_was_asked_before_a_reset_is_not_played() -> None:
    chunking = Chunking("async", 2, DT)
    chunking.ask(EPOCH)
    chunking.reset()
    assert chunking.answer(chunk(EPOCH), EPOCH + DT) is None
    assert chunking.delay == 0
    assert chunking.wanted(EPOCH + 0.01)


def test_who_waits_begins_with_the_first_row_and_asks_when_the_last_one_is_over() -> None:
    chunking = Chunking("wait", 2, DT)
    found = played(chunking, EPOCH, 3, chunk(EPOCH))
    assert found is not None
    assert (found.t_obs, found.actions[:, 0].tolist()) == (EPOCH, [0, 0, 0, 0, 1])  # row 3 is due
    assert not chunking.wanted(EPOCH + 4 * DT)
    assert chunking.wanted(EPOCH + 5 * DT)
    between = played(chunking, EPOCH + 5 * DT, 1.5, chunk(EPOCH + 5 * DT))
    assert between is not None
    assert between.actions[:, 0].tolist() == [0, 0, 0, 1]  # row 1 is due for half a period, then the first one
    assert not chunking.wanted(EPOCH + 8.5 * DT)


@pytest.mark.parametrize("name", CHUNKINGS)
def test_a_chunk_from_before_the_gate_was_enabled_is_not_played(name: str) -> None:
    limits = Limits(np.full(2, -10.0), np.full(2, 10.0), max_step=np.ones(2))
    gate = Gate(GateConfig(1 / DT, limits, heartbeats={}))
    gate.measure(np.zeros(2), EPOCH)
    chunking = Chunking(name, 2, DT)
    chunking.ask(EPOCH)
    gate.enable(EPOCH + DT, EPOCH + DT)
    answer = chunking.answer(chunk(EPOCH), EPOCH + 2 * DT)
    assert answer is not None
    assert not gate.offer(answer, EPOCH + 2 * DT)
    assert gate.refused == {"chunk from before enabling": 1}
    chunking.ask(EPOCH + 3 * DT)
    answer = chunking.answer(chunk(EPOCH + 3 * DT), EPOCH + 4 * DT)
    assert answer is not None
    assert gate.offer(answer, EPOCH + 4 * DT)


def test_what_was_predicted_for_another_task_decides_nothing() -> None:
    ensemble = Chunking("ensemble", 2, DT)
    played(ensemble, EPOCH, 1, chunk(EPOCH))
    ensemble.ask(EPOCH + 2 * DT)
    ensemble.forget()
    assert ensemble.answer(chunk(EPOCH + 2 * DT), EPOCH + 3 * DT) is None  # it answers the other task
    assert ensemble.wanted(EPOCH + 3 * DT)
    found = played(ensemble, EPOCH + 3 * DT, 1, chunk(EPOCH + 3 * DT, first=12.0))
    assert found is not None
    np.testing.assert_array_equal(found.actions, chunk(EPOCH + 3 * DT, first=12.0).actions)

    rtc = Chunking("rtc", 2, DT)
    played(rtc, EPOCH, 3, chunk(EPOCH))
    rtc.forget()
    given = rtc.given(EPOCH + 3 * DT)
    assert given is not None
    assert (given.rows[:, 0].tolist(), given.frozen) == ([3, 4, 5], 3)  # the arm goes on: no jump
    played(rtc, EPOCH + 3 * DT, 3, chunk(EPOCH + 3 * DT, first=3.0))
    given = rtc.given(EPOCH + 6 * DT)
    assert given is not None
    assert len(given.rows) == 5


def test_a_chunk_that_is_over_when_it_comes_is_no_delay_to_expect() -> None:
    chunking = Chunking("rtc", 2, DT)
    played(chunking, EPOCH, 3, chunk(EPOCH))
    played(chunking, EPOCH + 2 * DT, 50, chunk(EPOCH + 2 * DT))
    assert chunking.delay == 3


def test_an_ensemble_plays_the_mean_of_what_chunks_say_of_a_time() -> None:
    chunking = Chunking("ensemble", 2, DT)
    first = played(chunking, EPOCH, 1, chunk(EPOCH))
    assert first is not None
    np.testing.assert_array_equal(first.actions, chunk(EPOCH).actions)
    second = played(chunking, EPOCH + 2 * DT, 1, chunk(EPOCH + 2 * DT, first=12.0))
    assert second is not None
    old, new = 1.0, math.exp(-0.01)  # ACT's weights, the oldest one's first
    mean = [(old * (2 + k) + new * (12 + k)) / (old + new) for k in range(6)]
    np.testing.assert_allclose(second.actions[:, 0], [*mean, 18, 19])
    third = played(chunking, EPOCH + 12 * DT, 1, chunk(EPOCH + 12 * DT, first=5.0))  # the others are over
    assert third is not None
    np.testing.assert_array_equal(third.actions, chunk(EPOCH + 12 * DT, first=5.0).actions)


def test_another_name_is_refused() -> None:
    with pytest.raises(InputError, match=r"chunking: expected one of \['async', .*, found 'sync'"):
        Chunking("sync", 2, DT)
