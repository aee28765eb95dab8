"""Results of made-up episodes, and folders of evaluations as vla-eval leaves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vla_policy.evaluation.success.report import summarize, write_episodes
from vla_policy.rollouts.results import EpisodeResult
from vla_policy.utils.files import write_json


def episode(seed: int, success: bool, coverage: float = 0.5) -> EpisodeResult:
    return EpisodeResult(
        seed=seed,
        success=success,
        steps=100 + seed % 10,
        max_coverage=coverage,
        final_coverage=coverage / 2,
        max_reward=min(coverage / 0.95, 1),
        sum_reward=10.0,
        clipped_steps=3,
        held_steps=0,
        pusher=(0.1 + seed / 3, 0.2),
        block_pose=(0.4, 0.1, np.pi / seed),
        actions=np.zeros((2, 2)),
    )


def write_run(folder: Path, results: list[EpisodeResult], **more: Any) -> Path:
    """`more` is added to the summary, or replaces something of it."""
    said = {"env": "pybullet", "task": "push", "seed": results[0].seed, "checkpoint": folder.name}
    summary = summarize(results, **{**said, "chunk_ms": {"p50": 20.0, "p95": 30.0}, **more})
    write_json(folder / "summary.json", summary)
    write_episodes(folder / "episodes.csv", results)
    return folder
