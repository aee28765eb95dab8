"""The few words every part of the project speaks; numpy only.

An `Interface` says what data, a policy, a simulator and a robot must agree on. An `Observation` goes in, an
`ActionChunk` comes out, and a `Policy` is whatever turns one into the other. An `Objective` says what a planner wants.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any, Protocol

import numpy as np

STATE = "observation.state"
ENVIRONMENT_STATE = "observation.environment_state"
GOAL_STATE = "observation.goal_state"  # the block's pose seen from the commanded goal, where there are several
IMAGES = "observation.images."
ACTION = "action"
EXECUTED = "executed_action"  # what the robot was sent, where a demonstrator wanted something else
LARGEST_SIDE = 8192  # pixels of a picture; 8K video has 7680
LARGEST_RATE = 1e6  # Hz


class InputError(ValueError):
    """A mistake in what the user handed in; its message names the thing, what was expected and what was found.

    Programs print it without a traceback and exit with status 2.
    """


class DataError(InputError):
    """An observation, a message or an action chunk that does not fit what was declared of it.

    In a file it is the user's mistake. While a robot runs it is an event, which nodes catch and report.
    """


class Failure(RuntimeError):
    """Something went wrong although the input was right: a full disk, a diverged training, a dead worker.

    Programs print it without a traceback and exit with status 1.
    """


class Unavailable(Failure):
    """Whoever is to answer is not there, such as a policy's server; asking again later may succeed."""


class Refused(Failure):
    """A request that cannot be granted in the present state, such as to enable a robot that is silent."""


@contextmanager
def within(place: str | Path) -> Iterator[None]:
    """Say of an `InputError` where the mistake is: in which file, or under which key."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{place}: {error}") from None


@dataclass(frozen=True)
class Feature:
    """One named array of a frame.

    `dtype` is "float32" or "image" (uint8, height x width x 3, RGB). `names` and `units` have one entry a channel of a
    vector (SI units: "m", "rad", "1"); both are empty for images, and empty units mean that nobody declared them.
    """

    dtype: str
    shape: tuple[int, ...]
    names: tuple[str, ...] = ()
    units: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.dtype not in ("float32", "image"):
            raise InputError(f"feature dtype: expected 'float32' or 'image', found {self.dtype!r}")
        if not all(isinstance(size, int) and not isinstance(size, bool) and size > 0 for size in self.shape):
            raise InputError(f"feature shape: expected whole numbers above 0, found {list(self.shape)}")
        if self.dtype == "image" and (len(self.shape) != 3 or self.shape[2] != 3 or max(self.shape) > LARGEST_SIDE):
            expected = f"(height, width, 3) with at most {LARGEST_SIDE} pixels a side"
            raise InputError(f"image feature shape: expected {expected}, found {self.shape}")
        for what, values in (("names", self.names), ("units", self.units)):
            if self.dtype == "float32" and values and len(values) != int(np.prod(self.shape)):
                raise InputError(f"feature {what}: expected {int(np.prod(self.shape))} entries, found {list(values)}")

    def to_dict(self) -> dict[str, Any]:
        return {
            "dtype": self.dtype,
            "shape": list(self.shape),
            "names": list(self.names),
            "units": list(self.units),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Feature:
        _require_keys(data, ("dtype", "shape"))
        names, units = data.get("names", ()), data.get("units", ())
        for what, value in (("shape", data["shape"]), ("names", names), ("units", units)):
            if not isinstance(value, list | tuple):
                raise InputError(f"{what}: expected a list, found {value!r:.80}")
        for what, value in (("names", names), ("units", units)):
            if not all(isinstance(entry, str) for entry in value):
                raise InputError(f"{what}: expected words, found {list(value)}")
        return cls(data["dtype"], tuple(data["shape"]), tuple(names), tuple(units))

    def differences(self, other: Feature) -> list[str]:
        """What `other` has that this one does not agree with; undeclared names and units agree with everything."""
        found = []
        for what in ("dtype", "shape", "names", "units"):
            mine, theirs = getattr(self, what), getattr(other, what)
            if mine != theirs and not (what in ("names", "units") and (not mine or not theirs)):
                found.append(f"{what} expected {_show(mine)}, found {_show(theirs)}")
        return found


@dataclass(frozen=True)
class Interface:
    """What data, policies, simulators and robots agree on. Topics, drivers and limits are not part of it.

    `observations` maps LeRobot feature names (`observation.state`, `observation.images.<camera>`) to features,
    `fps` is the rate of frames and actions in Hz, `frame` the coordinate frame of the actions ("" if undeclared).
    """

    observations: Mapping[str, Feature]
    action: Feature
    fps: float
    frame: str = ""

    def __post_init__(self) -> None:
        rate = self.fps
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate <= LARGEST_RATE:
            raise InputError(f"interface: fps: expected a number above 0, found {rate!r}")

    @property
    def cameras(self) -> list[str]:
        """Keys of the image features, in order."""
        return [key for key, feature in self.observations.items() if feature.dtype == "image"]

    def select(self, keys: Iterable[str]) -> Interface:
        """The same interface with only these observation keys; `InputError` if one is missing."""
        keys = list(keys)
        missing = [key for key in keys if key not in self.observations]
        if missing:
            raise InputError(f"observation keys {missing} are not provided; found {sorted(self.observations)}")
        return Interface({key: self.observations[key] for key in keys}, self.action, self.fps, self.frame)

    def differences(self, provided: Interface) -> list[str]:
        """Why something that provides `provided` cannot serve something that needs this interface.

        Keys provided beyond the needed ones are no difference.
        """
        found = []
        for key, feature in self.observations.items():
            if key not in provided.observations:
                found.append(f"{key}: missing, found {sorted(provided.observations)}")
            else:
                found += [f"{key}: {line}" for line in feature.differences(provided.observations[key])]
        found += [f"action: {line}" for line in self.action.differences(provided.action)]
        if self.fps != provided.fps:
            found.append(f"fps: expected {self.fps:g}, found {provided.fps:g}")
        if self.frame and provided.frame and self.frame != provided.frame:
            found.append(f"frame: expected {self.frame!r}, found {provided.frame!r}")
        return found

    def require(self, provided: Interface, needs: str, provides: str) -> None:
        """Raise `InputError` naming every difference unless `provides` can serve `needs`."""
        found = self.differences(provided)
        if found:
            raise InputError(f"{needs} and {provides} do not fit: " + "; ".join(found))

    def digest(self) -> str:
        """A short hash that two equal interfaces share."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        return {
            "observations": {key: feature.to_dict() for key, feature in self.observations.items()},
            "action": self.action.to_dict(),
            "fps": float(self.fps),
            "frame": self.frame,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Interface:
        """What `to_dict` gave; `InputError` naming the key of anything else."""
        with within("interface"):
            _require_keys(data, ("observations", "action", "fps"))
        if not isinstance(data["observations"], Mapping):
            raise InputError(f"interface: observations: expected features by key, found {data['observations']!r:.80}")
        observations = {}
        for key, value in data["observations"].items():
            with within(f"interface: {key}"):
                observations[key] = Feature.from_dict(value)
        with within(f"interface: {ACTION}"):
            action = Feature.from_dict(data["action"])
        frame = data.get("frame", "")
        if not isinstance(frame, str):
            raise InputError(f"interface: frame: expected a word, found {frame!r}")
        return cls(observations, action, data["fps"], frame)


@dataclass(frozen=True)
class Observation:
    """What was seen at one moment.

    `values` holds one array a feature key (images uint8 HWC, vectors float32), `task` the instruction, `t` the time
    stamp in seconds.
    """

    values: Mapping[str, np.ndarray]
    task: str
    t: float

    def check(self, interface: Interface) -> None:
        """Raise `DataError` naming the key unless every feature of `interface` is here, well-shaped and finite."""
        for key, feature in interface.observations.items():
            if key not in self.values:
                raise DataError(f"observation: key {key!r} is missing, found {sorted(self.values)}")
            value = np.asarray(self.values[key])
            if value.shape != feature.shape:
                raise DataError(f"observation {key!r}: expected shape {feature.shape}, found {value.shape}")
            if feature.dtype == "image" and value.dtype != np.uint8:
                raise DataError(f"observation {key!r}: expected uint8 pixels, found {value.dtype}")
            if feature.dtype != "image" and not np.isfinite(value).all():
                raise DataError(f"observation {key!r}: expected finite numbers, found {value.tolist()}")


@dataclass(frozen=True)
class ActionChunk:
    """Actions to come: `actions` (T, D) in the robot's own units; row k is due at `t_obs + k * dt` seconds.

    `imagined` has the states by key (1 + F, ...) that a planner takes to be the present one, and expects to follow each
    of the first F rows; empty without one.
    """

    actions: np.ndarray
    t_obs: float
    dt: float
    imagined: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        if np.ndim(self.actions) != 2 or len(self.actions) == 0:
            raise DataError(f"action chunk: expected shape (T, D) with T >= 1, found {np.shape(self.actions)}")
        if not self.dt > 0:
            raise DataError(f"action chunk: expected dt > 0 seconds, found {self.dt}")


@dataclass(frozen=True, kw_only=True)
class Branches(ActionChunk):
    """A chunk that is decided when it comes: of `candidates` (K, T, D) the one whose future is nearest to what is seen.

    `expected` has the states (K, 1 + F, D) by key at `t_obs` and each control period after it, `scale` (1 + F, D) by
    key how far these usually are from the present one; a channel that never moves has scale 0 and does not count.
    `states` are those that an observation shows, by key. `actions` is the first candidate.
    """

    candidates: np.ndarray
    expected: Mapping[str, np.ndarray]
    scale: Mapping[str, np.ndarray]
    states: Callable[[Observation], Mapping[str, np.ndarray]] = attrgetter("values")

    def nearest(self, seen: Observation) -> ActionChunk:
        """The candidate that was expected to be nearest to this by its time."""
        periods, errors, states = (seen.t - self.t_obs) / self.dt, [], self.states(seen)
        for key, expected in self.expected.items():
            scale = _between(self.scale[key], periods)
            errors.append((_between(expected, periods) - states[key])[:, scale > 0] / scale[scale > 0])
        best = int(np.linalg.norm(np.concatenate(errors, axis=1), axis=1).argmin())
        return ActionChunk(self.candidates[best], self.t_obs, self.dt)


def _between(rows: np.ndarray, place: float) -> np.ndarray:
    """Rows (..., F, D) at a place (0 is the first) between two of them, linearly; beyond the last one that."""
    before = min(max(int(place), 0), rows.shape[-2] - 2)
    share = min(max(place - before, 0.0), 1.0)
    between: np.ndarray = (1 - share) * rows[..., before, :] + share * rows[..., before + 1, :]
    return between


@dataclass(frozen=True)
class Given:
    """What an arm will be doing while its next chunk is computed, which that chunk continues.

    `rows` (n, D), in the robot's own units, are those of the chunk being executed from the time of the newest
    observation on. The first `frozen` of them will have been executed before the next chunk is there.
    """

    rows: np.ndarray
    frozen: int

    def __post_init__(self) -> None:
        if np.ndim(self.rows) != 2 or not 0 < self.frozen <= len(self.rows):
            raise DataError(
                f"given rows: expected shape (n, D) and 1 to n of them frozen, found {np.shape(self.rows)} and "
                f"{self.frozen}"
            )


class Policy(Protocol):
    """Anything that acts. Batched, so that one arm and a hundred simulated ones take the same path."""

    interface: Interface
    n_obs_steps: int
    n_action_steps: int

    def predict(self, histories: Sequence[Sequence[Observation]], generator: np.random.Generator) -> list[ActionChunk]:
        """One chunk a history. A history holds `n_obs_steps` observations, oldest first, one `1 / fps` apart."""
        ...


class ContinuingPolicy(Policy, Protocol):
    """A policy whose chunks can continue what an arm is doing meanwhile (real-time chunking)."""

    def predict(
        self,
        histories: Sequence[Sequence[Observation]],
        generator: np.random.Generator,
        given: Sequence[Given | None] = (),
    ) -> list[ActionChunk]:
        """One chunk a history, whose first rows are the frozen ones of its entry in `given`, exactly.

        `given` is empty if there is nothing to continue anywhere, else it has an entry a history.
        """
        ...


Future = Mapping[str, np.ndarray]
"""What K candidates lead to in F steps: states (K, F, D) by key, and under `ACTION` their commands (K, F, A)."""

Objective = Callable[[Future], np.ndarray]
"""Scores (K,) of a future, the highest for the best candidate."""


def _require_keys(data: Any, keys: Sequence[str]) -> None:
    if not isinstance(data, Mapping):
        raise InputError(f"expected the keys {list(keys)}, found {data!r:.80}")
    for key in keys:
        if key not in data:
            raise InputError(f"key {key!r} is missing, found {sorted(map(str, data))}")


def _show(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
