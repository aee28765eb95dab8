"""Summaries of monitored and disturbed episodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vla_policy.evaluation.statistics import mean_interval
from vla_policy.rollouts.results import Aftermath
from vla_policy.utils.percentiles import percentiles

if TYPE_CHECKING:
    from vla_policy.rollouts.results import EpisodeResult


def watched_summary(results: Sequence[EpisodeResult], monitor: str | None) -> dict[str, Any]:
    """The entries of summary.json about the monitor and the event; empty if there was neither."""
    found: dict[str, Any] = {}
    if monitor is not None:
        halted = sum(r.watched["surprise"].max() > r.watched["threshold"] for r in results if r.watched)
        found |= {"monitor": monitor, "halted_episodes": int(halted)}
    aftermaths = [result.aftermath for result in results if result.aftermath is not None]
    return found | ({"aftermath": aftermath_summary(aftermaths)} if aftermaths else {})


def aftermath_summary(found: Sequence[Aftermath]) -> dict[str, Any]:
    """Of the episodes with the event (at least one): how many were stopped, the delay, and the steps acted."""
    delays = [a.stopped_step - a.event_step for a in found if a.stopped_step is not None]
    after = [steps for steps in delays if steps >= 1]  # the event is visible from the next step on
    delay = percentiles(after)
    return {
        "n": len(found),
        "stopped_after_event": len(after),
        "stopped_before_event": len(delays) - len(after),
        "steps_to_stop_p50": delay["p50"],
        "steps_to_stop_p95": delay["p95"],
        "mean_acted_steps": float(np.mean([a.acted for a in found])),
        "mean_acted_steps_ci95": mean_interval([a.acted for a in found]),
        "mean_wrong_pushes": float(np.mean([a.wrong_pushes for a in found])),
        "mean_wrong_pushes_ci95": mean_interval([a.wrong_pushes for a in found]),
    }
