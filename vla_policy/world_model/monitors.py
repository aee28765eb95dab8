"""Calibration folders: their binding to models and interface, and loading as a `Monitor`."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vla_policy.interfaces import InputError, Interface
from vla_policy.models.checkpoint import POLICY, checkpoint_folder, model_digest
from vla_policy.monitoring import Calibration, LatentModel, Monitor, PredictionError, Score, Stillness
from vla_policy.monitoring import whitening as whitenings
from vla_policy.monitoring.calibration import FILE
from vla_policy.world_model.batch_scores import prediction_errors, stillness
from vla_policy.world_model.latent_model import NumpyWorldModel
from vla_policy.world_model.model import KIND, WorldModel

DETECTOR = "whitened_error"
Whitening = np.ndarray | None  # (history, D, D), of `DETECTOR` alone
STREAMING_SCORES: dict[str, Callable[[LatentModel, Whitening], Score]] = {
    DETECTOR: PredictionError,
    "prediction_error": lambda model, whitening: PredictionError(model),
    "stillness": lambda model, whitening: Stillness(model),
}
EPISODE_SCORES: dict[str, Callable[[WorldModel, np.ndarray, np.ndarray, Whitening], np.ndarray]] = {
    DETECTOR: prediction_errors,
    "prediction_error": lambda model, latents, commands, whitening: prediction_errors(model, latents, commands),
    "stillness": lambda model, latents, commands, whitening: stillness(latents),
}  # the same of whole episodes: latents (T + 1, D) and commands (T, A) to scores (T + 1,)


def binding(policy: str | Path, world_model_folder: Path, interface: Interface) -> dict[str, str]:
    """What a calibration is valid for: digests of the two models' weights and of the interface."""
    return {
        "policy": model_digest(checkpoint_folder(policy), POLICY),
        "world model": model_digest(world_model_folder, KIND),
        "interface (cameras, action space, rate)": interface.digest(),
    }


def save_calibration(
    calibration: Calibration, folder: Path, world_model_folder: Path, whitening: Whitening = None, **more: Any
) -> None:
    """Write a calibration, bound to its whitening if any, with the relative path of its world model."""
    if whitening is not None:
        whitenings.save_whitening(whitening, folder)
        bound_to = {**calibration.bound_to, "whitening": whitenings.digest(whitening)}
        calibration = replace(calibration, bound_to=bound_to)
    relative = os.path.relpath(world_model_folder.resolve(), folder.resolve())
    calibration.save(folder, world_model=relative, **more)


def load_monitor(folder: str | Path, policy_folder: str | Path, interface: Interface) -> Monitor:
    """The monitor that `vla-calibrate` made, for the policy in `policy_folder` seen through `interface`.

    `InputError` as of `monitor_factory`.
    """
    return monitor_factory(folder, policy_folder, interface)[1]()


def monitor_factory(
    folder: str | Path, policy_folder: str | Path, interface: Interface
) -> tuple[NumpyWorldModel, Callable[[], Monitor]]:
    """Makes that monitor, for one arm each, around the one world model beside it.

    `InputError` if it was calibrated for another policy, world model, interface or whitening.
    """
    folder = Path(folder)
    calibration, stored = Calibration.load(folder)
    if calibration.detector not in STREAMING_SCORES:
        known = list(STREAMING_SCORES)
        raise InputError(f"{folder}: expected a calibration of one of {known}, found one of {calibration.detector!r}")
    relative = str(stored.get("world_model"))
    if not (folder / relative).is_dir():
        raise InputError(f"{folder / FILE}: world_model: expected the folder of one from there, found {relative!r}")
    world_model_folder = (folder / relative).resolve()
    model = WorldModel.from_pretrained(world_model_folder)
    present, whitening = binding(Path(policy_folder), world_model_folder, interface), None
    if calibration.detector == DETECTOR:
        size = model.config.latent
        whitening = whitenings.load_whitening(folder, (model.config.history, size, size))
        present["whitening"] = whitenings.digest(whitening)
    calibration.require(present)
    latents, score = NumpyWorldModel(model), STREAMING_SCORES[calibration.detector]
    return latents, lambda: Monitor(score(latents, whitening), calibration)
