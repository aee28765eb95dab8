"""Watchers of rollouts that need a world model: recording latents and scores, or monitors that hold the arms.

All episodes' latents of one update are computed in one batch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from vla_policy.interfaces import Interface
from vla_policy.monitoring import ChunkInconsistency, Monitor, PixelDifference, Score
from vla_policy.rollouts.results import Start
from vla_policy.rollouts.watch import Seen
from vla_policy.world_model import NumpyWorldModel
from vla_policy.world_model.monitors import monitor_factory


class Recorder:
    """Records what every score can be computed from afterwards: latents, pixel differences, chunk inconsistencies.

    Latents come from the model given; scores are NaN while there is nothing to say.
    """

    may_halt = False

    def __init__(self, model: NumpyWorldModel) -> None:
        self.model, self.cameras = model, list(model.cameras)
        self._scores: dict[Start, dict[str, Score]] = defaultdict(
            lambda: {"pixel": PixelDifference(self.cameras), "chunk": ChunkInconsistency()}
        )
        self._values: dict[Start, dict[str, list[np.ndarray]]] = defaultdict(lambda: defaultdict(list))

    def update(self, seen: Mapping[Start, Sequence[Seen]]) -> Collection[Start]:
        _encode(self.model, seen)
        for start, news in seen.items():
            values = self._values[start]
            for new in news:
                values["latent"].append(self.model.encode(new.observation))
                for name, score in self._scores[start].items():
                    value = score.update(new.observation, new.command, new.chunk)
                    values[name].append(np.array(np.nan if value is None else value))
        return ()

    def record(self, start: Start) -> dict[str, np.ndarray]:
        del self._scores[start]
        return {name: np.stack(values) for name, values in self._values.pop(start).items()}


class Guards:
    """A monitor for each arm, which may hold it."""

    may_halt = True

    def __init__(self, model: NumpyWorldModel, make_monitor: Callable[[], Monitor]) -> None:
        """Monitors are around `model`."""
        self.model, self.cameras = model, list(model.cameras)
        self._monitors: dict[Start, Monitor] = defaultdict(make_monitor)
        self._scores: dict[Start, list[float]] = defaultdict(list)

    def update(self, seen: Mapping[Start, Sequence[Seen]]) -> Collection[Start]:
        _encode(self.model, seen)
        halted = set()
        for start, news in seen.items():
            for new in news:
                surprise = self._monitors[start].update(new.observation, new.command, new.chunk)
                self._scores[start].append(surprise.score)
                if surprise.is_surprised:
                    halted.add(start)
        return halted

    def record(self, start: Start) -> dict[str, np.ndarray]:
        threshold = self._monitors.pop(start).calibration.threshold
        return {"surprise": np.array(self._scores.pop(start)), "threshold": np.array(threshold)}


def guards(monitor: str, policy_folder: str, interface: Interface) -> Guards:
    """The calibrated monitor in a folder, for every arm of a rollout; `InputError` if it does not fit the policy."""
    return Guards(*monitor_factory(monitor, policy_folder, interface))


def _encode(model: NumpyWorldModel, seen: Mapping[Start, Sequence[Seen]]) -> None:
    """For every observation, in one batch."""
    model.encode_all([new.observation for news in seen.values() for new in news])
