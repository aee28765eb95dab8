"""Summaries of measurements of the ROS 2 graph: percentiles, counts, and whether targets are met."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from rich.table import Table

from vla_policy.benchmarks.ros.measured import MONITOR, Hold, MeasuredEpisode, Storm
from vla_policy.evaluation.formats import interval
from vla_policy.evaluation.statistics import compare_paired, success_interval
from vla_policy.utils.percentiles import percentiles

GROWTH = 0.02  # of a process's memory from the second to the last quarter of a soak; below is allocator noise
MISSED_PERIODS = 2  # periods without a command that count as a missed deadline
TICK = 10.0  # milliseconds, resolution of the kernel's CPU steal time
LOST = 1.0  # seconds of an episode that a kill may lose
KEPT = 0.99  # fraction of frames


def holds(found: Sequence[Hold], within: float | None, expected: Sequence[str]) -> dict[str, Any]:
    """Summary of one kind of fault; the target is a hold `within` so many seconds (None: no target).

    A hold counts if its reason contains one of `expected`: the arm may be held for another reason by chance.
    """
    of_each = [hold.seconds if any(words in hold.reason for words in expected) else None for hold in found]
    seconds = [s for s in of_each if s is not None]
    in_time = None if within is None else sum(s <= within for s in seconds)
    return {
        **percentiles([1e3 * s for s in seconds]),
        "n": len(found),
        "not_held": len(found) - len(seconds),
        "in_time": in_time,
        "in_time_ci95": None if in_time is None else success_interval(in_time, len(found)),
        "target": "" if within is None else f"each within {1e3 * within:.0f} ms",
        "met": None if within is None else in_time == len(found),
        "expected_reasons": list(expected),
        "reasons": Counter(hold.reason for hold in found),
        "held_before_the_fault": sum(hold.discarded for hold in found),
        "witness_stood_still_ms": percentiles([1e3 * hold.stood_still for hold in found]),
        "milliseconds": [None if s is None else 1e3 * s for s in of_each],
    }


def percentile(milliseconds: Mapping[str, Any], name: str, most: float) -> dict[str, Any]:
    """`percentiles` of which `name` may be `most` milliseconds."""
    found = milliseconds.get(name)
    return {**milliseconds, "target": f"{name} within {most:g} ms", "met": None if found is None else found <= most}


def count(found: int, **more: Any) -> dict[str, Any]:
    """A count with the target 0."""
    return {"found": str(found), "target": "0", "met": found == 0, **more}


def jitter(intervals: Sequence[float] | np.ndarray, period: float, most: float) -> dict[str, Any]:
    """How far intervals (milliseconds) are from the period."""
    return percentile(percentiles(np.abs(np.asarray(intervals, float) - period)), "p99", most)


def storm_counts(found: Sequence[Storm], period: float) -> dict[str, dict[str, Any]]:
    """Commands off path, and storms with a missed deadline (of `period` seconds) in which the arm was not held."""
    late = [storm for storm in found if storm.longest > MISSED_PERIODS * period and not storm.held]
    longest = percentiles([1e3 * storm.longest for storm in found])
    return {
        "stale commands in storms": count(
            sum(storm.off_path for storm in found), storms=len(found), messages_sent=[storm.sent for storm in found]
        ),
        "storms with a missed deadline, not held": count(
            len(late), storms=len(found), longest_interval_ms=longest, holds=Counter(s.held for s in found if s.held)
        ),
    }


def deadlines(episodes: Sequence[MeasuredEpisode], period: float) -> dict[str, Any]:
    """Missed deadlines, `period` in milliseconds, by cause: a hold, a stall of the computer, or CPU steal time that is
    at least the command's delay.
    """
    causes: Counter[str] = Counter()
    for episode in episodes:
        of_each = zip(episode.intervals, episode.held, episode.stalled, episode.stolen, strict=True)
        for length, held, stalled, steal in of_each:
            if length > MISSED_PERIODS * period:
                stolen = steal >= length - period - TICK
                causes["held" if held else "stalled" if stalled else "steal time" if stolen else ""] += 1
    intervals = np.concatenate([e.intervals for e in episodes])
    return count(
        causes[""],
        commands=len(intervals),
        missed=causes.total(),
        while_holding=causes["held"],
        while_stalled=causes["stalled"],
        during_steal_time=causes["steal time"],
        steal_percent=float(100 * np.sum([sum(e.stolen) for e in episodes]) / intervals.sum()),
    )


def false_holds(episodes: Sequence[MeasuredEpisode]) -> dict[str, Any]:
    """Holds in undisturbed episodes. The monitor's false alarm rate is set by its calibration."""
    reasons = Counter(stop for e in episodes for stop in e.stops)
    alarms = sum(n for reason, n in reasons.items() if MONITOR in reason)
    return count(reasons.total() - alarms, alarms=alarms, reasons=reasons, episodes=len(episodes))


def memory_growth(episodes: Sequence[MeasuredEpisode]) -> dict[str, dict[str, Any]]:
    """Growth of each process from the second quarter of the episodes to the last; in the first one caches fill."""
    quarter = len(episodes) // 4
    found = {}
    for name in episodes[-1].memory:
        values = np.array([e.memory[name] for e in episodes])
        growth = float(values[-quarter:].mean() / values[quarter : 2 * quarter].mean() - 1) if quarter else None
        text = f"{values[0]:.0f} to {values[-1]:.0f} MB" + ("" if growth is None else f", {100 * growth:+.1f} %")
        met = None if growth is None else growth <= GROWTH
        found[f"memory of {name}"] = {
            "found": text,
            "target": f"at most {100 * GROWTH:+.0f} %",
            "met": met,
            "growth": growth,
            "megabytes": values.tolist(),
        }
    return found


def kept_of_kills(found: Mapping[str, Any]) -> dict[str, Any]:
    """What a recorder that was killed again and again kept; see `recorder_bench.survive_kills`."""
    lost = percentiles([1e3 * seconds for seconds in found["lost_s"]])
    most = lost["max"] or 0.0
    whole = found["episodes_intact"] == found["episodes_expected"] <= found["episodes_imported"]
    repairs, running = found["repairs_reported"], len(found["lost_s"])
    return {
        "found": f"{found['episodes_intact']} of {found['episodes_expected']} episodes intact, {repairs} of {running} "
        f"repairs reported, at most {most / 1e3:.2f} s lost",
        "target": f"all, at most {LOST:g} s",
        "met": whole and repairs == running and most <= 1e3 * LOST,
        "lost_ms": lost,
        **found,
    }


def kept_of_cameras(found: Mapping[str, Any]) -> dict[str, Any]:
    """Summary of `recorder_bench.two_cameras`."""
    share, rate = f"{100 * found['share']:.1f} %", f"{found['sent_hz']:.1f} Hz"
    return {
        "found": f"{found['frames_recorded']} of {found['frames_sent']} = {share} of {rate}, recorder "
        f"{found['cpu_percent']:.0f} % of a processor",
        "target": f"at least {100 * KEPT:g} %",
        "met": found["share"] >= KEPT,
        **found,
    }


def paired_success(graph: Sequence[MeasuredEpisode], in_process: Mapping[int, bool], delay: int) -> dict[str, Any]:
    """Success through the graph paired by seed with runs in one process, with a delay of `delay` periods.

    Through the graph the arm may be stopped and armed again, unlike in one process; the number of stops is reported.
    """
    pairs = compare_paired([in_process[e.seed] for e in graph], [e.success for e in graph])
    rates = [sum(e.success for e in graph) / pairs.n, sum(in_process[e.seed] for e in graph) / pairs.n]
    rearmed = [e.rearmed for e in graph if e.rearmed]
    text = f"{100 * rates[0]:.0f} % - {100 * rates[1]:.0f} % = {100 * pairs.difference:+.1f} %"
    again = f"armed again after {sum(rearmed)} stops in {len(rearmed)} episodes"
    return {
        "found": f"{text}, 95 % {interval(pairs.ci95, 100, 1)}; {again}",
        "target": "",
        "met": None,
        **asdict(pairs),
        "success_graph": rates[0],
        "success_in_process": rates[1],
        "delay_periods": delay,
        "rearmed_stops": sum(rearmed),
        "rearmed_episodes": len(rearmed),
    }


def tables(found: Mapping[str, Any]) -> list[Table]:
    """The content of ros.json as tables."""
    times = Table(title="milliseconds, over DDS between processes", title_justify="left")
    words = ("", "target", "met", "in time")
    for name in ("", "n", "p50", "p95", "p99", "max", "in time", "target", "met"):
        times.add_column(name, justify="left" if name in words else "right")
    for name, row in found["times"].items():
        numbers = ("-" if row[key] is None else f"{row[key]:.1f}" for key in ("p50", "p95", "p99", "max"))
        times.add_row(name, f"{row['n']:.0f}", *numbers, _in_time(row), row["target"], _met(row["met"]))
    counts = Table(title="counts", title_justify="left")
    for name in ("", "found", "target", "met"):
        counts.add_column(name)
    for name, row in found["counts"].items():
        counts.add_row(name, row["found"], row["target"], _met(row["met"]))
    return [table for table in (times, counts) if table.row_count]


def _in_time(row: Mapping[str, Any]) -> str:
    """The share of faults held in time, with its exact interval; "" for other rows."""
    if row.get("in_time") is None:
        return ""
    return f"{100 * row['in_time'] / row['n']:.0f} % {interval(success_interval(row['in_time'], row['n']), 100, 0)}"


def _met(met: bool | None) -> str:
    return "" if met is None else "yes" if met else "NO"
