"""Open-loop replay of recorded actions in simulation, and the block's deviation from the recording."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sim.config import FPS
from sim.env import PushTEnv
from sim.geometry import SUCCESS_COVERAGE, coverage, wrap_angle
from sim.gym_pusht import GymPushTEnv


@dataclass(frozen=True)
class Replay:
    """One episode of T frames, replayed.

    `position_error` (T,) in metres and `angle_error` (T,) in radians are the block's distance from the recording;
    `coverage` (T + 1,) is the replayed block's, the last one after the last action, whose effect no frame shows;
    `recorded_coverage` (T,) is the recorded one's.
    """

    position_error: np.ndarray
    angle_error: np.ndarray
    coverage: np.ndarray
    recorded_coverage: np.ndarray

    @property
    def success(self) -> bool:
        return bool(self.coverage.max() > SUCCESS_COVERAGE)

    @property
    def recorded_success(self) -> bool:
        return bool(self.recorded_coverage.max() > SUCCESS_COVERAGE)


def replay(
    env: PushTEnv | GymPushTEnv,
    pusher: np.ndarray,
    block_poses: np.ndarray,
    actions: np.ndarray,
    on_frame: Callable[[int, Mapping[str, Any]], None] | None = None,
) -> Replay:
    """Send `actions` (T, 2) to `env` from the recorded start: the pusher (2,) and the first of `block_poses` (T, 3).

    The replay continues to the last action regardless of termination. `on_frame(t, info)` is called before action t is
    sent.
    """
    _, info = env.reset(seed=0, options={"pusher": pusher, "block_pose": block_poses[0]})
    infos = [info]
    for t, action in enumerate(actions):
        if on_frame is not None:
            on_frame(t, infos[-1])
        infos.append(env.step(action)[-1])
    poses = np.array([info["block_pose"] for info in infos[:-1]])
    return Replay(
        position_error=np.linalg.norm(poses[:, :2] - block_poses[:, :2], axis=1),
        angle_error=np.abs(wrap_angle(poses[:, 2] - block_poses[:, 2])),
        coverage=np.array([info["coverage"] for info in infos]),
        recorded_coverage=np.array([coverage(pose, info["goal_pose"]) for pose in block_poses]),
    )


def summarize_replays(replays: Sequence[Replay]) -> dict[str, Any]:
    """Median errors in millimetres and degrees, over all frames, at each full second and at the episodes' ends.

    A second's medians are over the `n` episodes that are still running. Success and coverage come with counts and with
    what was recorded; `max_coverages` has one entry an episode.
    """
    frames = np.arange(0, max(len(r.position_error) for r in replays), FPS)
    rows = [(frame, [r for r in replays if len(r.position_error) > frame]) for frame in frames.tolist()]
    return {
        "n_episodes": len(replays),
        "n_success": sum(r.success for r in replays),
        "n_success_recorded": sum(r.recorded_success for r in replays),
        "max_coverages": [float(r.coverage.max()) for r in replays],
        "mean_max_coverage_recorded": float(np.mean([r.recorded_coverage.max() for r in replays])),
        "mean_final_coverage": float(np.mean([r.coverage[-1] for r in replays])),
        "mean_final_coverage_recorded": float(np.mean([r.recorded_coverage[-1] for r in replays])),
        "all_frames": _medians(
            np.concatenate([r.position_error for r in replays]), np.concatenate([r.angle_error for r in replays])
        ),
        "end": _medians([r.position_error[-1] for r in replays], [r.angle_error[-1] for r in replays]),
        "over_time": [
            {"seconds": frame / FPS, "n": len(running)}
            | _medians([r.position_error[frame] for r in running], [r.angle_error[frame] for r in running])
            for frame, running in rows
        ],
    }


def _medians(position: Sequence[float] | np.ndarray, angle: Sequence[float] | np.ndarray) -> dict[str, float]:
    return {"position_mm": 1000 * float(np.median(position)), "angle_deg": float(np.degrees(np.median(angle)))}
