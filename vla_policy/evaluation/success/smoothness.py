"""How smooth the commands of episodes are: jumps between chunks, and jerk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vla_policy.evaluation.statistics import mean_interval
from vla_policy.rollouts.results import EpisodeResult


def smoothness(results: Sequence[EpisodeResult], fps: float) -> dict[str, Any]:
    """Means over the episodes, with intervals; None if no episode has two chunks, or four commands.

    `mean_seam_jump` is the mean jump of the command at a boundary of chunks, in the action's units: its distance from
    what the chunk before would have had it do (`ControlLoop`). `mean_jerk` is `jerk`.
    """
    seams = [float(result.seams.mean()) for result in results if len(result.seams)]
    jerks = [jerk(result.actions, fps) for result in results if len(result.actions) > 3]
    found: dict[str, Any] = {}
    for name, values in (("mean_seam_jump", seams), ("mean_jerk", jerks)):
        found[name] = float(np.mean(values)) if values else None
        found[f"{name}_ci95"] = mean_interval(values) if values else (None, None)
    return found | {"n_seams": sum(len(result.seams) for result in results)}


def jerk(actions: np.ndarray, fps: float) -> float:
    """The mean norm of the third derivative of commands (steps, D) at `fps` Hz, in the action's units / s^3."""
    return float(np.linalg.norm(np.diff(actions.astype(float), n=3, axis=0), axis=-1).mean() * fps**3)
