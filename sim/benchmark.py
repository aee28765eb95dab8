"""Throughput of the environment on one core, while the arm pushes the block."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from sim.bullet import pb
from sim.config import PushTConfig
from sim.gym_pusht import make_env

EPISODE = 50  # steps until the next start


def steps_per_second(
    cameras: Sequence[str] = (), steps: int = 500, seed: int = 0, config: PushTConfig | None = None
) -> dict[str, Any]:
    """Time `env.step` without resets, with actions that circle in the block so that the pusher keeps contact.

    `steps_per_s` is by wall-clock time, `steps_per_cpu_s` by CPU time, independent of other processes; `contact` is the
    fraction of steps that end in contact, `pusher_speed` the mean speed in metres per second, and `numpy_pictures`
    whether this PyBullet was built with NumPy; without it images are converted from tuples.
    """
    env = make_env("pybullet", cameras, config)
    wall = cpu = 0.0
    contacts, speeds = [], []
    for step in range(steps):
        if step % EPISODE == 0:
            _, info = env.reset(seed=seed + step // EPISODE)
            _, *_, info = env.step(_inside(info, step))  # the first step after a reset is not timed: caches are cold
        action = _inside(info, step)
        wall_begin, cpu_begin = time.perf_counter(), time.process_time()
        *_, info = env.step(action)
        wall, cpu = wall + time.perf_counter() - wall_begin, cpu + time.process_time() - cpu_begin
        contacts.append(info["n_contacts"] > 0)
        speeds.append(np.hypot(*info["vel_agent"]))
    env.close()
    return {
        "cameras": list(cameras),
        "steps": steps,
        "steps_per_s": steps / wall,
        "steps_per_cpu_s": steps / cpu,
        "contact": float(np.mean(contacts)),
        "pusher_speed": float(np.mean(speeds)),
        "numpy_pictures": bool(pb.isNumpyEnabled()),
    }


def _inside(info: dict[str, Any], step: int) -> np.ndarray:
    """A point that circles in the block, out of the pusher's reach."""
    angle = 0.3 * step
    return np.asarray(info["block_pose"][:2] + 0.03 * np.array([np.cos(angle), np.sin(angle)]))
