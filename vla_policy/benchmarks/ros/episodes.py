"""Episodes through the graph, measured by a witness on the robot's side."""

from __future__ import annotations

import os
import time
from pathlib import Path

from vla_policy.benchmarks.ros.harness import Witness
from vla_policy.benchmarks.ros.measured import MeasuredEpisode
from vla_policy.graph.running import Graph


def run_episode(graph: Graph, witness: Witness, max_steps: int, success_coverage: float, rearm: int) -> MeasuredEpisode:
    """Run the next episode and measure its commands."""
    witness.forget()
    begin = time.time()
    episode = graph.operator.run_episode(max_steps, success_coverage, rearm)
    ends, lengths, held = witness.intervals(begin)
    stalled = [
        any(stop > end - length and stop - stall < end for stop, stall in witness.stalls)
        for end, length in zip(ends, lengths, strict=True)
    ]
    return MeasuredEpisode(
        seed=episode.seed,
        success=episode.success,
        steps=episode.steps,
        seconds=episode.seconds,
        stops=episode.stops,
        rearmed=episode.rearmed,
        intervals=(1e3 * lengths).round(3).tolist(),
        held=held.tolist(),
        stalled=stalled,
        stolen=(1e3 * witness.steal_per_interval(ends, lengths)).round(3).tolist(),
        memory={name: _memory(graph.processes[name].pid) for name in graph.nodes},
        diagnostics=dict(graph.operator.diagnostics),
    )


def _memory(pid: int) -> float:
    """Resident megabytes of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
