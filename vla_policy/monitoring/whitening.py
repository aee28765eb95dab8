"""Whitening of prediction errors: each latent direction is scaled by its nominal error.

Nominal errors are large along some directions and small along others; in the plain squared error the former hide
anomalies along the latter. The squared norm of a whitened error is its squared Mahalanobis distance.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from vla_policy.interfaces import InputError

FILE = "whitening.safetensors"
SHRINKAGE = 0.1  # towards the mean variance: the smallest variances are uncertain with few episodes


def fit_whitening(errors: np.ndarray) -> np.ndarray:
    """W (D, D) from nominal errors (N, D), so that W^T W = (S + c tr(S) / D I)^-1, with S their mean outer product and
    c = `SHRINKAGE`. `InputError` unless they are finite, and some are not zero.
    """
    if not len(errors) or not np.isfinite(errors).all() or not errors.any():
        raise InputError(f"whitening: expected finite prediction errors that are not all zero, found {errors}")
    exact = np.asarray(errors, np.float64)
    second_moment = exact.T @ exact / len(exact)
    size = len(second_moment)
    shrunk = second_moment + SHRINKAGE * np.trace(second_moment) / size * np.eye(size)
    return np.linalg.inv(np.linalg.cholesky(shrunk)).astype(np.float32)


def digest(whitening: np.ndarray) -> str:
    """A short hash for binding a calibration."""
    return hashlib.sha256(np.ascontiguousarray(whitening, np.float32).tobytes()).hexdigest()[:16]


def save_whitening(whitening: np.ndarray, folder: Path) -> None:
    """Write whitening.safetensors (history, D, D) into `folder` atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{FILE}.tmp"
    save_file({"whitening": np.ascontiguousarray(whitening, np.float32)}, temporary)
    temporary.chmod(0o644)
    temporary.replace(folder / FILE)


def load_whitening(folder: Path, shape: tuple[int, int, int]) -> np.ndarray:
    """The whitening of this shape in `folder`; `InputError` names a missing or corrupt file, or another shape."""
    path = folder / FILE
    if not path.is_file():
        raise InputError(f"{folder}: expected {FILE} beside the calibration, as vla-calibrate writes it, found none")
    try:
        with safe_open(path, "np") as file:
            part = file.get_slice("whitening") if "whitening" in file.keys() else None  # noqa: SIM118, no mapping
            if part is None or tuple(part.get_shape()) != shape:
                found = "none" if part is None else f"shape {tuple(part.get_shape())}"
                raise InputError(f"{path}: expected a whitening of shape {shape}, found {found}")
            if part.get_dtype() != "F32":
                raise InputError(f"{path}: whitening: expected F32 numbers, found {part.get_dtype()}")
            whitening: np.ndarray = file.get_tensor("whitening")
    except SafetensorError as error:
        raise InputError(f"{path}: truncated or not a safetensors file ({error})") from None
    if not np.isfinite(whitening).all():
        raise InputError(f"{path}: expected finite numbers, found {np.count_nonzero(~np.isfinite(whitening))} others")
    return whitening
