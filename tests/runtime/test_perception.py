"""Streams become observations, observations become questions, questions are answered in the background."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from vla_policy.interfaces import IMAGES, STATE, Branches, Feature, InputError, Interface
from vla_policy.runtime import ObservationBuffer, Pilot, Supervisor, Timing, Watchdog, Worker, decided

CAMERA = IMAGES + "top"
INTERFACE = Interface(
    {STATE: Feature("float32", (1,)), CAMERA: Feature("image", (4, 4, 3))}, Feature("float32", (1,)), fps=10
)


def picture(value: int = 0) -> np.ndarray:
    return np.full((4, 4, 3), value, np.uint8)


def make_buffer() -> ObservationBuffer:
    return ObservationBuffer([STATE, CAMERA], slop=0.02, max_age=0.5)


def test_the_newest_moment_that_every_stream_saw() -> None:
    buffer = make_buffer()
    for k in range(20):  # a joint state at 100 Hz, up to 1.19
        buffer.put(STATE, np.array([k], np.float32), 1.0 + k / 100, now=1.2)
    assert buffer.newest("push") is None  # no picture yet
    buffer.put(CAMERA, picture(7), 1.103, now=1.2)
    seen = buffer.newest("push")
    assert seen is not None
    assert (seen.t, seen.values[STATE][0], seen.values[CAMERA][0, 0, 0]) == (1.103, 10, 7)
    assert buffer.newest("push") is None  # it was given already


def test_streams_that_are_not_in_time_make_no_observation() -> None:
    buffer = make_buffer()
    buffer.put(STATE, np.zeros(1), 1.00, now=1.0)
    buffer.put(CAMERA, picture(), 1.05, now=1.05)
    buffer.put(STATE, np.zeros(1), 1.10, now=1.1)
    assert buffer.newest("push") is None
    assert buffer.refused == {"not in time with the others": 1}


@pytest.mark.parametrize(
    ("rate", "delay", "camera", "phase", "expected"),
    [(100, 0.1, 30, 0.003, 147), (500, 0.15, 30, 0.003, 145), (1000, 0.15, 30, 0.003, 145), (1000, 0.45, 30, 0.0, 136)],
)
def test_a_fast_state_and_a_late_camera_make_an_observation_of_every_picture(
    rate: int, delay: float, camera: int, phase: float, expected: int
) -> None:
    buffer = ObservationBuffer([STATE, CAMERA], slop=0.02, max_age=0.5)
    events = [(k / rate, STATE, k / rate) for k in range(5 * rate)]
    events += [(k / camera + phase + delay, CAMERA, k / camera + phase) for k in range(round((5 - delay) * camera))]
    seen, most = 0, 0
    for now, key, stamp in sorted(events):
        assert buffer.put(key, np.zeros(1), stamp + 100, now + 100)
        observation = buffer.newest("push")
        seen += observation is not None
        most = max(most, *map(len, buffer._samples.values()))
    assert seen == pytest.approx(expected, abs=2)
    assert buffer.refused == {}
    assert most <= (delay + 0.02 + 1.5 / camera) * rate + 2  # what is still needed and no more


def test_a_silent_stream_lets_no_other_fill_the_memory() -> None:
    buffer = make_buffer()
    buffer.put(STATE, np.zeros(1), 0.0, now=0.0)
    for k in range(300):
        buffer.put(CAMERA, picture(), k / 30, now=k / 30)
    assert len(buffer._samples[CAMERA]) <= (0.5 + 0.02) * 30 + 1


def test_the_reason_for_a_missing_observation_is_given() -> None:
    buffer = make_buffer()
    buffer.put(STATE, np.zeros(1), 1.00, now=1.0)
    assert buffer.apart(1.0) == ""  # of an empty stream its silence is said
    buffer.put(CAMERA, picture(), 1.05, now=1.05)
    buffer.put(STATE, np.zeros(1), 1.10, now=1.1)
    expected = f"the {STATE} nearest to the newest {CAMERA}, 0.10 s old, is 0.050 s off, more than slop, 0.02 s"
    assert buffer.apart(1.15) == expected
    buffer.put(CAMERA, picture(), 1.11, now=1.2)
    assert buffer.apart(1.2) == ""
    buffer.put(CAMERA, picture(), 1.15, now=1.9)
    assert buffer.refusals == {STATE: "", CAMERA: "0.75 s old when they come, more than 0.5 s"}
    buffer.put(CAMERA, picture(), 1.9, now=1.9)
    assert buffer.refusals[CAMERA] == ""


def test_stamps_from_the_future_old_and_repeated_ones_are_refused() -> None:
    buffer = make_buffer()
    assert buffer.put(CAMERA, picture(), 10.0, now=10.01)
    assert not buffer.put(CAMERA, picture(), 10.2, now=10.1)
    assert not buffer.put(CAMERA, picture(), 10.0, now=10.1)
    assert not buffer.put(CAMERA, picture(), 10.1, now=10.7)
    assert buffer.refused == {"future": 1, "out of order": 1, "stale": 1}


def test_after_a_reset_nothing_older_counts() -> None:
    pilot = Pilot(INTERFACE, 2, 8, make_buffer())
    for stamp in (1.0, 1.1):
        for key, value in ((STATE, np.zeros(1, np.float32)), (CAMERA, picture())):
            pilot.buffer.put(key, value, stamp, now=1.2)
    pilot.reset(now=1.15)
    pilot.buffer.put(STATE, np.zeros(1, np.float32), 1.12, now=1.2)
    pilot.buffer.put(CAMERA, picture(), 1.12, now=1.2)
    assert pilot.observe("push") is None
    assert pilot.window() is None


def test_pilot_asks_once_every_n_action_steps_and_again_for_what_was_refused() -> None:
    pilot, asked = Pilot(INTERFACE, 2, 4, make_buffer()), []
    for k in range(20):
        stamp = 5 + k / 10
        for key, value in ((STATE, np.zeros(1, np.float32)), (CAMERA, picture(k))):
            pilot.buffer.put(key, value, stamp, now=stamp)
        assert pilot.observe("push") is not None
        window = pilot.window()
        if window is not None and k != 8:  # at the 8th the worker was busy
            pilot.asked(window)
            asked.append([int(o.values[CAMERA][0, 0, 0]) for o in window])
    assert asked == [[0, 0], [3, 4], [8, 9], [12, 13], [16, 17]]


def test_of_branches_the_one_for_what_is_seen_when_they_come_is_played() -> None:
    pilot = Pilot(INTERFACE, 1, 4, make_buffer())

    def see(value: float, stamp: float) -> None:
        for key, seen in ((STATE, np.full(1, value, np.float32)), (CAMERA, picture())):
            pilot.buffer.put(key, seen, stamp, now=stamp)
        assert pilot.observe("push") is not None

    rows = np.array([[[0.0]] * 8, [[1.0]] * 8])
    states = {"expected": {STATE: np.array([[[0.2]] * 4, [[0.6]] * 4])}, "scale": {STATE: np.ones((4, 1))}}
    branches = Branches(rows[0], 1.0, 0.1, candidates=rows, **states)
    see(0.2, 1.0)
    window = pilot.window()
    assert window is not None
    pilot.asked(window)
    see(0.5, 1.4)
    played = pilot.answer(decided(branches, pilot.newest), 1.4)
    assert played is not None
    assert (played.actions == 1.0).all()
    pilot.asked(window)
    pilot.reset(1.45)  # nothing is seen any more when the answer comes
    assert pilot.answer(decided(branches, pilot.newest), 1.5) is None


def test_pilot_refuses_another_size() -> None:
    pilot = Pilot(INTERFACE, 2, 4, make_buffer())
    pilot.buffer.put(STATE, np.zeros(1, np.float32), 1.0, now=1.0)
    pilot.buffer.put(CAMERA, np.zeros((8, 8, 3), np.uint8), 1.0, now=1.0)
    with pytest.raises(InputError, match=r"images\.top.*\(4, 4, 3\).*\(8, 8, 3\)"):
        pilot.observe("push")


def wait_for(condition, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_worker_never_blocks_and_survives_work_that_raises() -> None:
    go, answers, errors = threading.Event(), [], []

    def work(question: float) -> float:
        assert go.wait(10)
        if question < 0:
            raise RuntimeError("no such thing")
        return -question

    worker = Worker(work, answers.append, errors.append)
    begin = time.monotonic()
    assert worker.ask(1.0)
    assert not worker.ask(2.0)
    assert time.monotonic() - begin < 5.0  # the work takes ten
    assert worker.busy
    go.set()
    wait_for(lambda: not worker.busy)
    assert worker.ask(-1.0)
    wait_for(lambda: not worker.busy)
    assert worker.ask(3.0)
    worker.close()
    assert answers == [-1.0, -3.0]
    assert [str(error) for error in errors] == ["no such thing"]


def test_work_that_hangs_is_abandoned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vla_policy.runtime.worker.PATIENCE", 0.05)
    go, done, answers = threading.Event(), threading.Event(), []

    def work(question: float) -> float:
        assert go.wait(10)
        done.set()
        return question

    worker = Worker(work, answers.append, answers.append)
    assert worker.ask(1.0)
    begin = time.monotonic()
    worker.close()
    assert time.monotonic() - begin < 5.0  # the work takes ten
    go.set()
    assert done.wait(10)
    wait_for(lambda: not worker.busy)
    assert not answers


def test_the_watchdog_names_heartbeats_never_received() -> None:
    watchdog = Watchdog({"camera": 0.1, "policy": 0.1})
    watchdog.feed("policy", 0.0)
    assert watchdog.check(0.05) == {"camera": float("inf")}
    assert set(watchdog.check(0.10)) == {"camera"}
    assert set(watchdog.check(0.15)) == {"camera", "policy"}
    with pytest.raises(InputError, match="'camera'"):
        Watchdog({"camera": 0.0})


def test_supervisor_keeps_the_first_reason() -> None:
    supervisor = Supervisor()
    supervisor.hold("too early")  # nothing to hold
    assert supervisor.state == "idle"
    supervisor.enable("")
    supervisor.hold("first")
    supervisor.hold("second")
    assert supervisor.reason == "first"
    supervisor.fault("worse")
    assert (supervisor.state, supervisor.reason) == ("fault", "worse")


def test_timing_reports_percentiles_in_milliseconds() -> None:
    timing = Timing(size=100)
    assert timing.summary() == {"n": 0}
    for k in range(1000):
        timing.add(k / 1000)
    assert timing.summary() == pytest.approx({"n": 100, "p50": 949.5, "p95": 994.05, "p99": 998.01, "max": 999.0})


def test_a_clock_that_was_set_back_is_followed_at_once() -> None:
    buffer = ObservationBuffer(["a"], slop=0.02, max_age=0.5)
    value = np.zeros(1)
    assert buffer.put("a", value, 100.0, 100.0)
    assert buffer.newest("push") is not None
    assert buffer.put("a", value, 60.0, 60.0)
    observation = buffer.newest("push")
    assert observation is not None
    assert observation.t == 60.0
