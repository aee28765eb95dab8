"""Disturbances: a lasting deviation from nominal behaviour that begins at a step of an episode.

`KINDS` lists them: each class is described by its docstring, its magnitude by `unit` and `default`. All begin at one
event step; until then an episode is bitwise identical to an undisturbed one with the same seed and actions.
Disturbances of actions modify the caller's command inside the environment.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np

from sim import effects
from sim.effects import Effect, SceneEffect
from vla_policy.interfaces import InputError, Interface

FIRST, LAST = 20, 60  # steps between which an event is drawn
_STREAM = 4  # keeps these draws apart from the environment's own, which have the same seed

KINDS: dict[str, type[Effect]] = {
    "block_teleport": effects.BlockTeleport,
    "pusher_teleport": effects.PusherTeleport,
    "recolour": effects.Recolour,
    "light": effects.SwapLight,
    "camera_shift": effects.CameraShift,
    "frozen_camera": effects.FrozenCamera,
    "dropped_frames": effects.DroppedFrames,
    "dropped_actions": effects.DroppedActions,
    "biased_actions": effects.BiasedActions,
    "stuck_block": effects.StuckBlock,
    "slippery_block": effects.SlipperyBlock,
    "heavy_block": effects.HeavyBlock,
    "occluder": effects.Occluder,
    "unknown_object": effects.UnknownObject,
}


@dataclass(frozen=True)
class Disturbance:
    """What happens, how strongly and when."""

    kind: str
    """One of `KINDS`."""
    magnitude: float | None = None
    """In the kind's unit; None: the kind's default, which takes its place here."""
    step: int | None = None
    """The control step, counted from 0, whose effect is the first to differ: after it `step` + 1 steps have been made.

    None: drawn from the reset's seed, `FIRST` to `LAST`.
    """

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"disturbance.kind: expected one of {list(KINDS)}, found {self.kind!r}")
        effect = KINDS[self.kind]
        if self.magnitude is None:
            object.__setattr__(self, "magnitude", effect.default)
        elif effect.default is None:
            raise InputError(f"disturbance.magnitude: expected none for {self.kind}, found {self.magnitude!r}")
        elif not _is_number(self.magnitude) or not 0 < self.magnitude <= effect.most:
            most = f" and up to {effect.most}" if math.isfinite(effect.most) else ""
            raise InputError(
                f"disturbance.magnitude: expected a number above 0{most} ({effect.unit}) for {self.kind}, "
                f"found {self.magnitude!r}"
            )
        if self.step is not None and (not _is_number(self.step) or self.step != int(self.step) or self.step < 0):
            raise InputError(f"disturbance.step: expected a whole number from 0 or none, found {self.step!r}")

    @classmethod
    def parse(cls, text: str) -> Disturbance:
        """Of `KIND`, or `KIND@MAGNITUDE` for another magnitude than the default."""
        kind, at, magnitude = text.partition("@")
        try:
            number = float(magnitude) if at else None
        except ValueError:
            raise InputError(f"disturbance {text!r}: expected a number after @, found {magnitude!r}") from None
        return cls(kind, number)


class DisturbedEnv(gymnasium.Wrapper):
    """An environment in which `disturbance` happens once an episode.

    `info` gains `event`, the kind from the first step that differs on and "" before, and `event_step`, that step.
    Everything random comes from the reset's seed, and a reset undoes everything. `save_state` and `restore_state`
    are those of the environment inside: a state that it restores is undisturbed.
    """

    def __init__(self, env: gymnasium.Env, disturbance: Disturbance) -> None:
        super().__init__(env)
        kind = KINDS[disturbance.kind]
        if issubclass(kind, SceneEffect) and not hasattr(env.unwrapped, "scene"):
            anywhere = [name for name, effect in KINDS.items() if not issubclass(effect, SceneEffect)]
            raise InputError(
                f"disturbance.kind: expected one of {anywhere} where there is no PyBullet scene, "
                f"found {disturbance.kind!r}"
            )
        self.disturbance = disturbance
        self._generator = np.random.default_rng()
        self._effect = Effect(env, None, self._generator)
        self._step, self._event_step = 0, 1  # nothing happens without a reset

    @property
    def interface(self) -> Interface:
        return self.env.get_wrapper_attr("interface")

    @property
    def task(self) -> str:
        """The instruction."""
        return self.env.get_wrapper_attr("task")

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        self._effect.undo()
        self._observation, self._info = self.env.reset(seed=seed, options=options)  # type: ignore[arg-type]
        if seed is not None:
            self._generator = np.random.default_rng([seed, _STREAM])
        drawn = int(self._generator.integers(FIRST, LAST, endpoint=True))
        self._event_step = drawn if self.disturbance.step is None else int(self.disturbance.step)
        kind = KINDS[self.disturbance.kind]
        self._effect = kind(self.env.unwrapped, self.disturbance.magnitude, self._generator)
        self._step = 0
        return self._observation, self._label()

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        since = self._step - self._event_step
        if since == 0:
            self._effect.begin()
        if since >= 0:
            self._effect.advance(since)
            action = self._effect.act(action, self._info)
        observation, reward, terminated, truncated, self._info = self.env.step(action)
        if since >= 0:
            observation = self._effect.see(observation, self._observation)
        self._observation = observation
        self._step += 1
        return observation, float(reward), terminated, truncated, self._label()

    def close(self) -> None:
        self._effect.undo()
        super().close()

    def _label(self) -> dict[str, Any]:
        begun = self._step > self._event_step
        self._info["event"] = self.disturbance.kind if begun else ""
        self._info["event_step"] = self._event_step
        return self._info


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
