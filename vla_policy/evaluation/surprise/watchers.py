"""Watchers of rollouts with a world model: a recorder of latents and scores, and monitors that halt the arms.

All episodes' latents of one update are computed in one batch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from vla_policy.interfaces import Interface
from vla_policy.monitoring import ChunkInconsistency, ImaginedStates, Monitor, PixelDifference, Score
from vla_policy.rollouts.results import Start
from vla_policy.rollouts.watch import WatchedStep
from vla_policy.world_model import NumpyWorldModel
from vla_policy.world_model.monitors import monitor_factory

IMAGINED = "imagined"  # the score of a planner's imagined states, in traces and tables


class ScoreRecorder:
    """Records what all scores are computed from: latents, pixel differences, chunk inconsistencies and, with the
    `spread` of what a planner imagines (`Dynamics.spread`), its errors.

    Scores are NaN where they are undefined.
    """

    may_halt = False

    def __init__(self, model: NumpyWorldModel, spread: Mapping[str, np.ndarray] | None = None) -> None:
        self.model, self.cameras, self._spread = model, list(model.cameras), spread
        self._scores: dict[Start, dict[str, Score]] = defaultdict(self._new_scores)
        self._values: dict[Start, dict[str, list[np.ndarray]]] = defaultdict(lambda: defaultdict(list))

    def update(self, steps: Mapping[Start, Sequence[WatchedStep]]) -> Collection[Start]:
        _encode(self.model, steps)
        for start, new in steps.items():
            values = self._values[start]
            for step in new:
                values["latent"].append(self.model.encode(step.observation))
                for name, score in self._scores[start].items():
                    value = score.update(step.observation, step.command, step.chunk)
                    values[name].append(np.array(np.nan if value is None else value))
        return ()

    def _new_scores(self) -> dict[str, Score]:
        scores: dict[str, Score] = {"pixel": PixelDifference(self.cameras), "chunk": ChunkInconsistency()}
        return scores if self._spread is None else {**scores, IMAGINED: ImaginedStates(self._spread)}

    def record(self, start: Start) -> dict[str, np.ndarray]:
        del self._scores[start]
        return {name: np.stack(values) for name, values in self._values.pop(start).items()}


class HaltingMonitors:
    """A monitor for each arm, which may halt it."""

    may_halt = True

    def __init__(self, model: NumpyWorldModel, make_monitor: Callable[[], Monitor]) -> None:
        """`make_monitor` creates monitors that use `model`."""
        self.model, self.cameras = model, list(model.cameras)
        self._monitors: dict[Start, Monitor] = defaultdict(make_monitor)
        self._scores: dict[Start, list[float]] = defaultdict(list)

    def update(self, steps: Mapping[Start, Sequence[WatchedStep]]) -> Collection[Start]:
        _encode(self.model, steps)
        halted = set()
        for start, new in steps.items():
            for step in new:
                surprise = self._monitors[start].update(step.observation, step.command, step.chunk)
                self._scores[start].append(surprise.score)
                if surprise.is_surprised:
                    halted.add(start)
        return halted

    def record(self, start: Start) -> dict[str, np.ndarray]:
        threshold = self._monitors.pop(start).calibration.threshold
        return {"surprise": np.array(self._scores.pop(start)), "threshold": np.array(threshold)}


def halting_monitors(monitor: str, policy_folder: str, interface: Interface) -> HaltingMonitors:
    """The calibrated monitor in a folder, for every arm of a rollout; `InputError` if it is another policy's."""
    return HaltingMonitors(*monitor_factory(monitor, policy_folder, interface))


def _encode(model: NumpyWorldModel, steps: Mapping[Start, Sequence[WatchedStep]]) -> None:
    """Encode every observation, in one batch."""
    model.encode_all([step.observation for new in steps.values() for step in new])
