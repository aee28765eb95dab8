"""History, timeline and limits under a clock that only the test moves."""

from __future__ import annotations

import numpy as np
import pytest

from vla_policy.interfaces import STATE, ActionChunk, InputError, Observation
from vla_policy.runtime import History, Limits, Timeline

DT = 0.1
BOX = Limits(np.zeros(2), np.ones(2))


def seen(t: float, x: float = 0.5, y: float = 0.5) -> Observation:
    return Observation({STATE: np.array([x, y], np.float32)}, "push", t)


def chunk(t_obs: float, first: float = 0.0, steps: int = 8) -> ActionChunk:
    """Row k is (first + k / 100, first + k / 100)."""
    return ActionChunk(np.repeat(first + np.arange(steps)[:, None] / 100, 2, axis=1), t_obs, DT)


def test_history_repeats_the_first_observation_then_slides() -> None:
    history = History(3, DT)
    times = []
    for step in range(5):
        history.append(seen(step * DT))
        times.append([round(o.t / DT) for o in history.window()])
    assert times == [[0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4]]
    assert len(history) <= 4  # what nobody asks for again is dropped


def test_history_of_a_fast_camera_is_one_period_apart() -> None:
    history = History(2, DT)
    for k in range(31):  # 100 Hz
        history.append(seen(k / 100))
    assert [o.t for o in history.window()] == pytest.approx([0.2, 0.3])


def test_history_refuses_time_going_back_and_empty_windows() -> None:
    history = History(2, DT)
    with pytest.raises(InputError, match="found none"):
        history.window()
    history.append(seen(1.0))
    with pytest.raises(InputError, match="expected more than 1 s, found 1 s"):
        history.append(seen(1.0))


def test_timeline_plays_each_row_when_it_is_due() -> None:
    timeline = Timeline()
    assert timeline.due(0.0) is None
    assert timeline.offer(chunk(t_obs=2.0), now=2.0)
    assert timeline.index(1.95) is None
    # Times as a 10 Hz loop makes them: sums of floats, none of which may be played as the row before.
    assert [timeline.index(2.0 + k * DT) for k in range(9)] == [0, 1, 2, 3, 4, 5, 6, 7, None]
    assert timeline.index(2.0999) == 0
    np.testing.assert_array_equal(timeline.due(2.31), [0.03, 0.03])


def test_a_newer_chunk_replaces_and_a_stale_one_is_refused() -> None:
    timeline = Timeline()
    timeline.offer(chunk(1.0), now=1.0)
    assert timeline.offer(chunk(1.2, first=0.5), now=1.3)
    np.testing.assert_allclose(timeline.due(1.3), 0.51)  # entered at the row due, not at its first
    assert not timeline.offer(chunk(1.1, first=0.9), now=1.3)  # from an older observation
    assert not timeline.offer(chunk(1.3, steps=2), now=1.5)  # over before it came
    np.testing.assert_allclose(timeline.due(1.5), 0.53)


def test_limits_clip_and_report_it() -> None:
    limits = Limits(np.zeros(2), np.ones(2), max_step=np.array([0.1, 0.2]))
    here = np.array([0.5, 0.95])
    ok = limits.gate(np.array([0.55, 0.9]), here, here)
    assert (ok.status, ok.reason) == ("ok", "")
    fast = limits.gate(np.array([0.9, 0.9]), here, here)
    assert (fast.status, fast.reason) == ("clipped", "larger than max_step")
    np.testing.assert_allclose(fast.action, [0.6, 0.9])
    out = limits.gate(np.array([0.5, 1.1]), here, here)
    assert (out.status, out.reason) == ("clipped", "outside the box")
    np.testing.assert_allclose(out.action, [0.5, 1.0])


@pytest.mark.parametrize("bad", [np.array([np.nan, 0.5]), np.array([0.5, np.inf]), np.array([0.5]), None])
def test_an_invalid_action_holds(bad: np.ndarray | None) -> None:
    command = BOX.gate(bad, previous=np.array([0.3, 0.4]), step=np.array([0.1, 0.0]))
    assert command.status == "hold"
    assert command.reason
    np.testing.assert_array_equal(command.action, [0.3, 0.4])


@pytest.mark.parametrize(
    ("low", "high", "step"), [([1.0], [0.0], None), ([0.0], [1.0, 2.0], None), ([0.0], [1.0], [0.0])]
)
def test_impossible_limits_are_refused(low: list, high: list, step: list | None) -> None:
    with pytest.raises(InputError, match="limits"):
        Limits(np.array(low), np.array(high), None if step is None else np.array(step))


def test_history_of_one_step_keeps_the_newest_alone() -> None:
    history = History(1, DT)
    for k in range(3):
        history.append(seen(k * DT))
    assert [o.t for o in history.window()] == [2 * DT]
    assert len(history) == 1
