"""What measurements of the graph come to, against cases counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from vla_policy.benchmarks.ros.measured import Hold, MeasuredEpisode, Storm
from vla_policy.benchmarks.ros.report import (
    deadlines,
    false_holds,
    holds,
    jitter,
    kept_of_cameras,
    kept_of_kills,
    memory_growth,
    paired_success,
    percentile,
    storm_counts,
    tables,
)
from vla_policy.utils.percentiles import percentiles


def played(seed: int = 0, **values: object) -> MeasuredEpisode:
    defaults = {
        "success": True,
        "steps": 10,
        "seconds": 1.0,
        "stops": (),
        "rearmed": 0,
        "intervals": [20.0] * 4,
        "held": [False] * 4,
        "stalled": [False] * 4,
        "stolen": [0.0] * 4,
        "memory": {"policy": 100.0},
        "diagnostics": {},
    }
    return MeasuredEpisode(seed=seed, **{**defaults, **values})  # type: ignore[arg-type]


def storm(*times: float, held: str = "", off_path: int = 0) -> Storm:
    """Of a tenth of a second."""
    return Storm(np.array(times), 0.1, 300, held, off_path)


def test_every_hold_has_to_be_in_time_and_an_arm_that_was_not_held_misses_the_target() -> None:
    found = [Hold(0.1, "silent", 0.0), Hold(0.2, "silent", 0.03, discarded=2), Hold(0.15, "stop", 0.0)]
    row = holds(found, 0.2, ["silent", "stop"])
    assert (row["n"], row["in_time"], row["met"]) == (3, 3, True)
    assert (row["p50"], row["max"]) == (pytest.approx(150), pytest.approx(200))
    assert row["reasons"] == {"silent": 2, "stop": 1}
    assert row["held_before_the_fault"] == 2
    assert row["witness_stood_still_ms"]["max"] == pytest.approx(30)
    assert row["in_time_ci95"] == pytest.approx((0.292, 1.0), abs=1e-3)  # 0.025^(1/3)
    row = holds([*found, Hold(0.21, "silent", 0.2)], 0.2, ["s"])  # however busy the computer was
    assert (row["in_time"], row["met"]) == (3, False)
    row = holds([*found, Hold(None, "", 0.0)], 0.2, ["s"])
    assert (row["n"], row["not_held"], row["met"]) == (4, 1, False)
    assert holds(found, None, ["s"])["met"] is None
    assert holds([Hold(None, "", 0.0)], 0.2, ["s"])["p50"] is None


def test_a_hold_for_another_reason_does_not_count() -> None:
    row = holds([Hold(0.1, "policy/stop is silent for 0.14 s", 0.0), Hold(0.05, "nothing to play", 0.0)], 0.2, ["stop"])
    assert (row["n"], row["not_held"], row["in_time"], row["met"]) == (2, 1, 1, False)
    assert row["milliseconds"] == [100, None]
    assert row["reasons"]["nothing to play"] == 1


def test_percentiles_have_targets_of_their_own() -> None:
    found = percentiles(np.arange(101.0))
    assert percentile(found, "p95", 95.0)["met"] is True
    assert percentile(found, "p99", 98.0)["met"] is False
    assert jitter([20.0, 15.0, 28.0], 20.0, 10.0)["max"] == 8.0
    assert jitter([], 20.0, 10.0)["met"] is None


def test_a_storm_may_cost_a_deadline_where_the_arm_is_held_but_never_leads_astray() -> None:
    found = storm_counts([storm(0.01, 0.03, 0.069), storm(0.01, 0.06, 0.08, held="policy/stop is silent")], 0.02)
    assert all(row["met"] for row in found.values())
    stale, missed = storm_counts([storm(0.01, 0.03, 0.069, off_path=2), storm(0.01, 0.06, 0.08)], 0.02).values()
    assert (stale["found"], stale["met"]) == ("2", False)
    assert stale["messages_sent"] == [300, 300]
    assert (missed["found"], missed["met"]) == ("1", False)
    assert missed["longest_interval_ms"]["max"] == pytest.approx(50)


@pytest.mark.parametrize("times", [(), (0.05, 0.07), (0.01, 0.03, 0.05)])
def test_a_gate_that_sends_nothing_at_the_begin_or_end_of_a_storm_missed_a_deadline(times: tuple[float, ...]) -> None:
    silent = storm(*times)
    np.testing.assert_allclose(silent.intervals, np.diff(times))  # the gaps at its ends are no intervals of commands
    _, missed = storm_counts([silent], 0.02).values()
    assert (missed["found"], missed["met"]) == ("1", False)
    assert missed["longest_interval_ms"]["max"] == pytest.approx({0: 100, 2: 50, 3: 50}[len(times)])


def test_missed_deadlines_are_attributed_to_holds_and_stalls() -> None:
    episode = played(
        intervals=[20.0, 41.0, 60.0, 70.0], held=[False, False, True, True], stalled=[False, True, False, True]
    )
    row = deadlines([episode, played()], 20.0)
    assert (row["commands"], row["missed"], row["while_holding"]) == (8, 3, 2)
    assert (row["while_stalled"], row["met"]) == (1, True)
    row = deadlines([played(intervals=[41.0] * 4)], 20.0)
    assert (row["found"], row["met"]) == ("4", False)
    row = deadlines([played(intervals=[20.0, 41.0, 60.0, 79.0], stolen=[10.0, 10.0, 30.0, 50.0])], 20.0)
    assert (row["during_steal_time"], row["found"]) == (2, "1")  # of 21, 40 and 59 ms; a tick is 10
    assert row["steal_percent"] == pytest.approx(50.0)


def test_a_hold_without_a_fault_is_false_but_for_the_monitors_alarms() -> None:
    alarm = played(stops=("holding: surprise_monitor/stop says stop",))
    row = false_holds([alarm, played()])
    assert (row["alarms"], row["found"], row["met"]) == (1, "0", True)
    row = false_holds([alarm, played(stops=("holding: policy/stop is silent for 0.2 s",) * 2)])
    assert (row["found"], row["met"]) == ("2", False)


def test_memory_grows_from_the_second_quarter_to_the_last() -> None:
    warm = [played(memory={"policy": m, "gate": 50.0}) for m in (80.0, 100.0, 101.0, 100.0)]
    found = memory_growth(warm)
    assert found["memory of policy"]["growth"] == pytest.approx(0.0)
    assert all(row["met"] for row in found.values())
    leaks = memory_growth([played(memory={"policy": 100.0 + 2 * k}) for k in range(8)])["memory of policy"]
    assert leaks["met"] is False
    assert leaks["found"] == "100 to 114 MB, +7.6 %"
    assert memory_growth(warm[:3])["memory of policy"]["met"] is None  # too short to say


def test_success_is_paired_by_start() -> None:
    graph = [played(3), played(1, success=False, rearmed=2), played(2, rearmed=1), played(4)]
    row = paired_success(graph, {1: True, 2: True, 3: True, 4: True}, 1)
    assert (row["both"], row["only_a"], row["only_b"], row["neither"]) == (3, 1, 0, 0)
    assert (row["difference"], row["delay_periods"]) == (-0.25, 1)
    low, high = row["ci95"]
    assert low < -0.25 < high
    assert row["found"].startswith("75 % - 100 % = -25.0 %, 95 % [")
    assert row["found"].endswith("; armed again after 3 stops in 2 episodes")


def test_tables_show_unmet_targets() -> None:
    found = {
        "times": {
            "policy killed": holds([Hold(0.3, "silent", 0.0)], 0.2, ["silent"]),
            "inference": {**percentiles([]), "target": "", "met": None},
        },
        "counts": storm_counts([storm(0.02, 0.04, 0.06, 0.08)], 0.02),
    }
    times, counts = tables(found)
    assert list(times.columns[-1].cells) == ["NO", ""]
    assert list(times.columns[2].cells) == ["300.0", "-"]
    assert list(counts.columns[-1].cells) == ["yes", "yes"]


@pytest.mark.parametrize(
    ("change", "met"),
    [
        ({}, True),
        ({"episodes_intact": 9}, False),
        ({"episodes_imported": 9}, False),
        ({"repairs_reported": 1}, False),
        ({"lost_s": [0.1, 1.2]}, False),
    ],
)
def test_of_a_killed_recorder_every_finished_episode_is_expected(change: dict, met: bool) -> None:
    kills = {"kills": 2, "episodes_expected": 10, "episodes_intact": 10, "episodes_imported": 10}
    row = kept_of_kills({**kills, "lost_s": [0.1, 0.3], "repairs_reported": 2, **change})
    assert row["met"] is met
    assert row["lost_ms"]["max"] == pytest.approx(1e3 * max(row["lost_s"]))


def test_of_two_cameras_99_percent_of_the_frames_are_expected() -> None:
    film = {"frames_sent": 1000, "sent_hz": 29.9, "cpu_percent": 21.0}
    assert kept_of_cameras({**film, "frames_recorded": 990, "share": 0.99})["met"] is True
    row = kept_of_cameras({**film, "frames_recorded": 870, "share": 0.87})
    assert row["met"] is False
    assert row["found"] == "870 of 1000 = 87.0 % of 29.9 Hz, recorder 21 % of a processor"
