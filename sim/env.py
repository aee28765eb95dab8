"""PushT on an xArm6 in PyBullet, as a Gymnasium environment in metres."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np

from sim.cameras import Camera
from sim.config import FPS, TASK, PushTConfig
from sim.geometry import SUCCESS_COVERAGE, WORKSPACE_HIGH, WORKSPACE_LOW, coverage, reward
from sim.interface import (
    action_space,
    check_vector,
    draw_start,
    observation_space,
    pusht_interface,
    separate,
    vectors,
)
from sim.overrides import Vector
from sim.scene import Scene, SceneState
from vla_policy.interfaces import IMAGES, InputError


@dataclass(frozen=True)
class Assignment:
    """The task of an episode: the instruction, the goal by name and pose, and the block's colour."""

    instruction: str
    goal: str
    goal_pose: Vector
    block_colour: Vector


@dataclass(frozen=True)
class PushTState:
    """A saved state: the scene, the pusher's set-point (2,) and its velocity (2,), the step of the episode."""

    scene: SceneState
    setpoint: np.ndarray
    setpoint_velocity: np.ndarray
    step: int
    assignment: Assignment


class PushTEnv(gymnasium.Env):
    """Push the T onto the goal by position targets for the arm's pusher at 10 Hz.

    Observations are the features of `interface`; an action (2,) is the pusher's target x, y in metres, clipped to the
    workspace. The reward and the end of an episode are gym-pusht's: coverage / 0.95 up to 1, terminated above 0.95,
    truncated after `max_episode_steps`. `info` has gym-pusht's keys: `is_success`, `coverage`, `block_pose` (3,),
    `goal_pose` (3,), `pos_agent` (2,), `vel_agent` (2,), `n_contacts`.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": FPS}  # noqa: RUF012 - Gymnasium's declaration
    start_options: tuple[str, ...] = ("pusher", "block_pose")
    contract = "pusht_sim"  # the robot contract with the limits that its commands have to keep

    def __init__(
        self, config: PushTConfig | None = None, cameras: Sequence[str] = ("top",), render_mode: str | None = None
    ) -> None:
        self.config = config or PushTConfig()
        unknown = sorted(set(cameras) - set(self.config.cameras))
        if unknown:
            raise InputError(f"cameras: expected some of {sorted(self.config.cameras)}, found {unknown}")
        self.render_mode = render_mode
        self.cameras = {name: self._camera(name) for name in cameras}
        sizes = {name: camera.config.size for name, camera in self.cameras.items()}
        self.interface = pusht_interface(sizes, goals=bool(self.config.goals))
        self.observation_space = observation_space(self.interface)
        self.action_space = action_space()
        self.scene = Scene(self.config)
        self._assignment = Assignment(TASK, "", self.config.goal_pose, self.config.colours.block)
        self._step: int | None = None
        self._pictures: dict[str, np.ndarray] | None = None  # shown instead of what the cameras see

    @property
    def task(self) -> str:
        """The instruction."""
        return self._assignment.instruction

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Rebuild the scene at gym-pusht's start for this seed, or at an explicit one.

        `options={"pusher": (2,), "block_pose": (3,)}` gives the start in metres and radians. Starts in which the block
        reaches into a wall or the pusher into the block are changed as `sim.interface.separate` says.
        """
        super().reset(seed=seed)
        pusher, block_pose = draw_start(self.np_random)
        options = options or {}
        unknown = sorted(set(options) - set(self.start_options))
        if unknown:
            raise InputError(f"reset options: expected some of {list(self.start_options)}, found {unknown}")
        if "pusher" in options:
            pusher = np.clip(check_vector(options["pusher"], 2, "pusher"), WORKSPACE_LOW, WORKSPACE_HIGH)
        if "block_pose" in options:
            block_pose = check_vector(options["block_pose"], 3, "block_pose")
        pusher, block_pose = separate(pusher, block_pose)
        self._assignment, self._pictures = self._assign(block_pose, options), None
        self.scene.rebuild(pusher, block_pose, self._assignment.block_colour)
        self._setpoint, self._velocity, self._step = pusher, np.zeros(2), 0
        return self._observe()

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Move towards `action` (2,) for 0.1 s."""
        if self._step is None:
            raise InputError("step: expected a reset before the first step, found none")
        target = np.clip(check_vector(action, 2) + self.config.arm.offset, WORKSPACE_LOW, WORKSPACE_HIGH)
        self.scene.step(self._path(target))
        self._step += 1
        observation, info = self._observe()
        truncated = self._step >= self.config.max_episode_steps
        return observation, reward(info["coverage"]), info["is_success"], truncated, info

    def save_state(self) -> PushTState:
        """The current state, for `restore_state` of any environment with the same configuration."""
        if self._step is None:
            raise InputError("save_state: expected a reset before, found none")
        return PushTState(self.scene.save(), self._setpoint, self._velocity, self._step, self._assignment)

    def restore_state(self, state: PushTState) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Restore a saved state in a rebuilt scene; restores of one state are bitwise identical."""
        self._assignment = state.assignment
        self.scene.restore(state.scene, self._assignment.block_colour)
        self._setpoint, self._velocity, self._step = state.setpoint, state.setpoint_velocity, state.step
        return self._observe()

    def render(self) -> np.ndarray:
        """The scene through the `video` camera (H, W, 3) uint8."""
        return self.video.render(self.scene.client)

    @functools.cached_property
    def video(self) -> Camera:
        """The camera that `render` looks through."""
        return self._camera("video")

    def freeze_cameras(self, observation: Mapping[str, np.ndarray]) -> None:
        """Show `observation`'s pictures until the next reset, which saves the time of rendering."""
        self._pictures = {key: value for key, value in observation.items() if key in self.interface.cameras}

    def place_pusher(self, pusher: np.ndarray) -> None:
        """Put the arm at rest with the pusher at `pusher` (2,)."""
        self.scene.place_pusher(pusher)
        self._setpoint, self._velocity = pusher, np.zeros(2)

    def close(self) -> None:
        self.scene.close()

    def _assign(self, block_pose: np.ndarray, options: Mapping[str, Any]) -> Assignment:
        """The task of an episode that starts with the block at `block_pose` (3,): here always the same."""
        return self._assignment

    def _camera(self, name: str) -> Camera:
        return Camera(self.config.cameras[name], self.config.colours)

    def _path(self, target: np.ndarray) -> np.ndarray:
        """Set-points (substeps, 2) of the next 0.1 s.

        gym-pusht's PD controller at 100 Hz, with a speed limit, interpolated to the physics rate.
        """
        arm, dt = self.config.arm, 0.01
        (x, y), (u, v) = self._setpoint.tolist(), self._velocity.tolist()
        (low_x, low_y), (high_x, high_y) = WORKSPACE_LOW.tolist(), WORKSPACE_HIGH.tolist()
        target_x, target_y = target.tolist()
        points = [(x, y)]
        for _ in range(10):  # plain floats are faster than arrays of two
            u += (arm.stiffness * (target_x - x) - arm.damping * u) * dt
            v += (arm.stiffness * (target_y - y) - arm.damping * v) * dt
            slower = min(1.0, arm.max_speed / max(math.hypot(u, v), 1e-12))
            u, v = u * slower, v * slower
            x, y = min(max(x + u * dt, low_x), high_x), min(max(y + v * dt, low_y), high_y)
            points.append((x, y))
        self._setpoint, self._velocity = np.array([x, y]), np.array([u, v])
        when = np.arange(1, self.config.physics.substeps + 1) * 10 / self.config.physics.substeps
        return np.stack([np.interp(when, np.arange(11), axis) for axis in np.transpose(points)], axis=-1)

    def _observe(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        position, velocity = self.scene.pusher_state()
        block_pose = self.scene.block_pose()
        goal_pose = np.array(self._assignment.goal_pose)
        covered = coverage(block_pose, goal_pose)
        observation = vectors(position[:2], block_pose)
        if self._pictures is not None:
            observation |= self._pictures
        else:
            observation |= {IMAGES + name: camera.render(self.scene.client) for name, camera in self.cameras.items()}
        info = {
            "is_success": covered > SUCCESS_COVERAGE,
            "coverage": covered,
            "block_pose": block_pose,
            "goal_pose": goal_pose,
            "pos_agent": position[:2],
            "vel_agent": velocity[:2],
            "n_contacts": self.scene.n_contacts(),
        }
        return observation, info
