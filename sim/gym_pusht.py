"""An adapter of gym-pusht to `PushTEnv`'s interface: metres in the base frame, the same keys, the same starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np

from sim.config import FPS, TASK, PushTConfig
from sim.disturbances import Disturbance, DisturbedEnv
from sim.env import PushTEnv
from sim.geometry import (
    PIXEL,
    WORKSPACE_HIGH,
    WORKSPACE_LOW,
    pose_from_pixels,
    pose_to_pixels,
    position_from_pixels,
    position_to_pixels,
)
from sim.interface import action_space, check_vector, observation_space, pusht_interface, vectors
from sim.language.env import LanguagePushTEnv
from vla_policy.interfaces import InputError

IMAGE_SIZE = 96


class GymPushTEnv(gymnasium.Env):
    """gym-pusht 0.1 with `PushTEnv`'s observations, actions and `info`; its one camera is called "top".

    Rewards, ends and starts are gym-pusht's own. Needs the package gym-pusht.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": FPS}  # noqa: RUF012 - Gymnasium's declaration
    task = TASK
    contract = PushTEnv.contract

    def __init__(
        self, cameras: Sequence[str] = (), max_episode_steps: int = 300, render_mode: str | None = None
    ) -> None:
        try:
            from gym_pusht.envs.pusht import PushTEnv as Inner
        except ImportError:
            raise InputError(
                "env gym_pusht: expected the package gym-pusht (pip install gym-pusht), found none"
            ) from None
        unknown = sorted(set(cameras) - {"top"})
        if unknown:
            raise InputError(f"cameras: gym-pusht has only 'top', found {unknown}")
        self.render_mode = render_mode
        self.inner = Inner(obs_type="state", render_mode="rgb_array")
        self.interface = pusht_interface(dict.fromkeys(cameras, IMAGE_SIZE))
        self.observation_space = observation_space(self.interface)
        self.action_space = action_space()
        self._max_episode_steps = max_episode_steps
        self._step: int | None = None

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """gym-pusht's start for this seed, or an explicit one: `options={"pusher": (2,), "block_pose": (3,)}`."""
        super().reset(seed=seed)
        options = options or {}
        unknown = sorted(set(options) - {"pusher", "block_pose"})
        if unknown:
            raise InputError(f"reset options: expected 'pusher' and 'block_pose', found {unknown}")
        self.inner.reset(seed=seed)
        if "pusher" in options:
            pusher = position_to_pixels(check_vector(options["pusher"], 2, "pusher"))
            self.inner.agent.position = pusher.tolist()
        if "block_pose" in options:
            pose = pose_to_pixels(check_vector(options["block_pose"], 3, "block_pose"))
            self.inner.block.angle = float(pose[2])  # first: it turns the block about its centre of mass
            self.inner.block.position = pose[:2].tolist()
        if options:
            self.inner.space.reindex_shapes_for_body(self.inner.agent)
            self.inner.space.reindex_shapes_for_body(self.inner.block)
        self._step = 0
        return self._observe()

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Move towards `action` (2,), metres, for a tenth of a second."""
        if self._step is None:
            raise InputError("step: expected a reset before the first step, found none")
        target = np.clip(check_vector(action, 2), WORKSPACE_LOW, WORKSPACE_HIGH)
        _, reward, terminated, _, _ = self.inner.step(position_to_pixels(target))
        self._step += 1
        observation, info = self._observe()
        return observation, float(reward), bool(terminated), self._step >= self._max_episode_steps, info

    def render(self) -> np.ndarray:
        """gym-pusht's own image (680, 680, 3) uint8."""
        return np.ascontiguousarray(self.inner.render())

    def close(self) -> None:
        self.inner.close()

    def _observe(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        inner = self.inner._get_info()
        covered = float(self.inner._get_coverage())
        info = {
            "is_success": covered > self.inner.success_threshold,
            "coverage": covered,
            "block_pose": pose_from_pixels(inner["block_pose"]),
            "goal_pose": pose_from_pixels(inner["goal_pose"]),
            "pos_agent": position_from_pixels(inner["pos_agent"]),
            "vel_agent": -np.asarray(inner["vel_agent"])[::-1] * PIXEL,
            "n_contacts": inner["n_contacts"],
        }
        observation = vectors(info["pos_agent"], info["block_pose"])
        for key in self.interface.cameras:
            observation[key] = np.ascontiguousarray(self.inner._render())
        return observation, info


def make_env(
    name: str,
    cameras: Sequence[str] = ("top",),
    config: PushTConfig | None = None,
    render_mode: str | None = None,
) -> PushTEnv | GymPushTEnv:
    """The environment "pybullet" or "gym_pusht", which takes no scene from `config`; `InputError` for another name.

    With `config.goals` it is the language-conditioned one, which only PyBullet has.
    """
    if name == "pybullet" and config is not None and config.goals:
        return LanguagePushTEnv(config, cameras, render_mode)
    if name == "pybullet":
        return PushTEnv(config, cameras, render_mode)
    if name == "gym_pusht":
        if config is not None and config.goals:
            raise InputError(f"env: expected 'pybullet' for a task with goals {list(config.goals)}, found 'gym_pusht'")
        return GymPushTEnv(cameras, (config or PushTConfig()).max_episode_steps, render_mode)
    raise InputError(f"env: expected 'pybullet' or 'gym_pusht', found {name!r}")


def make_disturbed_env(
    name: str, cameras: Sequence[str], config: PushTConfig | None, disturbance: Disturbance | None
) -> PushTEnv | GymPushTEnv | DisturbedEnv:
    """The environment of `make_env`, in a `DisturbedEnv` if there is a disturbance.

    gym-pusht has disturbances of images and actions, not of the scene.
    """
    env = make_env(name, cameras, config)
    return env if disturbance is None else DisturbedEnv(env, disturbance)
