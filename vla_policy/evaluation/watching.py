"""Looking on while an episode is played: recording what monitors would see, or letting one hold the arm."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import parent_process
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from sim.geometry import T_CORNERS, transform
from vla_policy.evaluation.statistics import mean_interval
from vla_policy.interfaces import ActionChunk, Interface, Observation
from vla_policy.monitoring import ChunkInconsistency, LatentModel, Monitor, PixelDifference, Score
from vla_policy.world_model import load_monitor

if TYPE_CHECKING:
    from vla_policy.evaluation.episode import EpisodeResult

WRONG = 0.001  # metres that a push must bring the block's corners farther from the goal, on average, to be a wrong one


class Watch(Protocol):
    @property
    def cameras(self) -> Sequence[str]:
        """Observation keys that it looks at."""

    def reset(self) -> None:
        """At the start of an episode."""

    def update(self, observation: Observation, command: np.ndarray | None, chunk: ActionChunk | None) -> bool:
        """Whether the arm has to hold from now on; the arguments are those of `monitoring.Monitor.update`."""
        ...

    def record(self) -> dict[str, np.ndarray]:
        """What was seen at each observation of the episode so far, by name."""
        ...


WatchFactory = Callable[[], Watch]


class Recorder:
    """Records what every score can be computed from afterwards: latents, pixel differences, chunk inconsistencies.

    Latents come from the model given; scores are NaN while there is nothing to say.
    """

    def __init__(self, model: LatentModel) -> None:
        self.model, self.cameras = model, list(model.cameras)
        self._scores: dict[str, Score] = {"pixel": PixelDifference(model.cameras), "chunk": ChunkInconsistency()}
        self.reset()

    def reset(self) -> None:
        self._latents: list[np.ndarray] = []
        self._values: dict[str, list[float]] = {name: [] for name in self._scores}
        for score in self._scores.values():
            score.reset()

    def update(self, observation: Observation, command: np.ndarray | None, chunk: ActionChunk | None) -> bool:
        self._latents.append(self.model.encode(observation))
        for name, score in self._scores.items():
            value = score.update(observation, command, chunk)
            self._values[name].append(np.nan if value is None else value)
        return False

    def record(self) -> dict[str, np.ndarray]:
        return {"latent": np.stack(self._latents), **{name: np.array(v) for name, v in self._values.items()}}


class Guard:
    """A monitor that may hold the arm."""

    def __init__(self, monitor: Monitor) -> None:
        self.monitor, self.cameras = monitor, list(monitor.score.cameras)
        self.reset()

    def reset(self) -> None:
        self.monitor.reset()
        self._scores: list[float] = []

    def update(self, observation: Observation, command: np.ndarray | None, chunk: ActionChunk | None) -> bool:
        surprise = self.monitor.update(observation, command, chunk)
        self._scores.append(surprise.score)
        return surprise.is_surprised

    def record(self) -> dict[str, np.ndarray]:
        return {"surprise": np.array(self._scores), "threshold": np.array(self.monitor.calibration.threshold)}


def one_thread_in_workers() -> None:
    """Simulating workers are as many as there are cores: more threads of torch would only slow each other down."""
    if parent_process() is not None:
        torch.set_num_threads(1)


def guard(monitor: str, policy_folder: str, interface: Interface) -> Guard:
    """The calibrated monitor in a folder, for a worker process."""
    one_thread_in_workers()
    return Guard(load_monitor(monitor, policy_folder, interface))


@dataclass(frozen=True)
class Aftermath:
    """What came after an event: the step that it changed first, steps acted (not held) and wrong pushes from there on,
    and the first step that was held because of the monitor, None if none was.
    """

    event_step: int
    acted: int
    wrong_pushes: int
    stopped_step: int | None


class EventLog:
    """Counts one episode's aftermath from `info`, which names the event as `sim.DisturbedEnv` does."""

    def __init__(self, info: Mapping[str, Any]) -> None:
        self._event_step: int | None = info.get("event_step")
        self._distance = _distance(info)
        self._acted = self._wrong = 0
        self._stopped: int | None = None

    def step(self, step: int, info: Mapping[str, Any], held: bool, halted: bool) -> None:
        """Control step `step` was made with a command that acted or held, and led to `info`."""
        before, self._distance = self._distance, _distance(info)
        if halted and self._stopped is None:
            self._stopped = step
        if self._event_step is not None and step >= self._event_step:
            self._acted += not held
            # What the block does in the event's own step may be the event itself.
            self._wrong += step > self._event_step and self._distance - before > WRONG and not held

    def aftermath(self, steps: int) -> Aftermath | None:
        """None if the episode was over before the event, or had none."""
        if self._event_step is None or steps <= self._event_step:
            return None
        return Aftermath(self._event_step, self._acted, self._wrong, self._stopped)


def _distance(info: Mapping[str, Any]) -> float:
    """Mean distance (metres) of the block's corners from where they belong; 0 where there is no goal pose."""
    if "goal_pose" not in info:
        return 0.0
    here, there = (transform(T_CORNERS, np.asarray(info[key], float)) for key in ("block_pose", "goal_pose"))
    return float(np.linalg.norm(here - there, axis=-1).mean())


def watched_summary(results: Sequence[EpisodeResult], monitor: str | None) -> dict[str, Any]:
    """What summary.json says of monitor and event; nothing if there was neither."""
    found: dict[str, Any] = {}
    if monitor is not None:
        halted = sum(r.watched["surprise"].max() > r.watched["threshold"] for r in results if r.watched)
        found |= {"monitor": monitor, "halted_episodes": int(halted)}
    aftermaths = [result.aftermath for result in results if result.aftermath is not None]
    return found | ({"aftermath": aftermath_summary(aftermaths)} if aftermaths else {})


def aftermath_summary(found: Sequence[Aftermath]) -> dict[str, Any]:
    """Of the episodes (at least one) with the event: how many were stopped, how soon, and what was done until then."""
    delays = [a.stopped_step - a.event_step for a in found if a.stopped_step is not None]
    after = [delay for delay in delays if delay >= 1]  # the step after the event's is the first that can know of it
    return {
        "n": len(found),
        "stopped_after_event": len(after),
        "stopped_before_event": len(delays) - len(after),
        "steps_to_stop_p50": float(np.median(after)) if after else None,
        "steps_to_stop_p95": float(np.percentile(after, 95)) if after else None,
        "mean_acted_steps": float(np.mean([a.acted for a in found])),
        "mean_acted_steps_ci95": mean_interval([a.acted for a in found]),
        "mean_wrong_pushes": float(np.mean([a.wrong_pushes for a in found])),
        "mean_wrong_pushes_ci95": mean_interval([a.wrong_pushes for a in found]),
    }
