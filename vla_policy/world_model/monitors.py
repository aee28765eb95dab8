"""Calibration folders: what they are bound to, and the `Monitor` they give back."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from vla_policy.interfaces import InputError, Interface
from vla_policy.models.checkpoint import WEIGHTS
from vla_policy.monitoring import Calibration, Monitor, PredictionError
from vla_policy.world_model.latent_model import NumpyWorldModel
from vla_policy.world_model.model import WorldModel

DETECTOR = "prediction error"


def binding(policy_folder: Path, world_model_folder: Path, interface: Interface) -> dict[str, str]:
    """What a calibration is made for: the two models' weights, and the interface that both see the robot through."""
    return {
        "policy": weights_digest(policy_folder),
        "world model": weights_digest(world_model_folder),
        "interface (cameras, action space, rate)": interface.digest(),
    }


def weights_digest(folder: Path) -> str:
    """A short hash of a checkpoint's weights; `InputError` if it has none."""
    path = folder / WEIGHTS
    if not path.is_file():
        raise InputError(f"{folder}: expected a checkpoint's folder with {WEIGHTS}, found none")
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def save_calibration(calibration: Calibration, folder: Path, world_model_folder: Path, **more: Any) -> None:
    """Write it, with the way to its world model from there."""
    relative = os.path.relpath(world_model_folder.resolve(), folder.resolve())
    calibration.save(folder, world_model=relative, **more)


def load_monitor(folder: str | Path, policy_folder: str | Path, interface: Interface) -> Monitor:
    """The monitor that `vla-calibrate` made, for the policy in `policy_folder` seen through `interface`.

    `InputError` if it was calibrated for another policy, world model or interface.
    """
    folder = Path(folder)
    calibration, stored = Calibration.load(folder)
    if "world_model" not in stored:
        raise InputError(f"{folder}: expected a calibration that names its world model, found none")
    world_model_folder = (folder / stored["world_model"]).resolve()
    model = WorldModel.from_pretrained(world_model_folder)
    calibration.require(binding(Path(policy_folder), world_model_folder, interface))
    return Monitor(PredictionError(NumpyWorldModel(model)), calibration)
