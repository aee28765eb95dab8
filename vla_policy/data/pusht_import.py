"""The public PushT demonstrations (npz or the original zarr), turned into a LeRobotDataset."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vla_policy.data.dataset import check_finite
from vla_policy.data.files import read_json
from vla_policy.data.writer import LeRobotWriter
from vla_policy.interfaces import ACTION, ENVIRONMENT_STATE, IMAGES, STATE, Feature, InputError, Interface

CAMERA = IMAGES + "top"
# The names of the arrays in the npz, and those of the zarr where they differ.
SHAPES = {"image": (96, 96, 3), "state": (5,), "action": (2,), "episode_ends": ()}
ZARR_NAMES = {"image": "data/img", "state": "data/state", "action": "data/action", "episode_ends": "meta/episode_ends"}


@dataclass(frozen=True)
class PixelMap:
    """How gym-pusht's pixels become metres; whoever imports hands it in, because only the simulation knows."""

    position: Callable[[np.ndarray], np.ndarray]  # (..., 2) px to (..., 2) m
    pose_features: Callable[[np.ndarray], np.ndarray]  # x, y px and angle (..., 3) to x, y, cos, sin (..., 4)


def pusht_interface(images: bool = True) -> Interface:
    """What the imported dataset provides."""
    xy = Feature("float32", (2,), ("x", "y"), ("m", "m"))
    pose = Feature("float32", (4,), ("x", "y", "cos", "sin"), ("m", "m", "1", "1"))
    observations = {STATE: xy, ENVIRONMENT_STATE: pose}
    if images:
        observations[CAMERA] = Feature("image", SHAPES["image"])
    return Interface(observations, xy, 10, "base")


def import_pusht(
    source: str | Path,
    out: str | Path,
    pixels: PixelMap,
    task: str,
    images: bool = True,
    codec: str = "h264",
    progress: Callable[[range], Iterable[int]] = iter,
) -> LeRobotWriter:
    """Read the demonstrations at `source` (.npz or a zarr folder) into a new dataset at `out`; closed when returned.

    An interrupted import goes on where it stopped. `InputError` names file and array if the layout is another.
    """
    arrays = _load(Path(source), images)
    ends = arrays["episode_ends"]
    starts = np.concatenate([[0], ends[:-1]])
    with LeRobotWriter(out, pusht_interface(images), robot_type="pusht", codec=codec) as writer:
        if writer.num_episodes > len(ends):
            raise InputError(f"{out}: expected at most {len(ends)} episodes of {source}, found {writer.num_episodes}")
        for episode in progress(range(writer.num_episodes, len(ends))):
            rows = slice(int(starts[episode]), int(ends[episode]))
            state = arrays["state"][rows]
            columns = {
                STATE: pixels.position(state[:, :2]),
                ENVIRONMENT_STATE: pixels.pose_features(state[:, 2:]),
                ACTION: pixels.position(arrays["action"][rows]),
            }
            frames = {CAMERA: _pictures(Path(source), arrays["image"], rows)} if images else {}
            writer.add_episode(columns, frames, task)
    return writer


def _load(path: Path, images: bool) -> dict[str, np.ndarray]:
    if not path.exists():
        raise InputError(f"{path}: expected the PushT demonstrations (.npz or zarr), found nothing")
    names = [name for name in SHAPES if images or name != "image"]
    arrays = dict(_from_zarr(path, names) if path.is_dir() else _from_npz(path, names))
    steps = len(arrays["action"])
    for name, array in arrays.items():
        expected = SHAPES[name] if name == "episode_ends" else (steps, *SHAPES[name])
        shape = array.shape[1:] if name == "episode_ends" else array.shape
        if shape != expected:
            raise InputError(f"{path}, {name!r}: expected shape {expected}, found {array.shape}")
        if name in ("state", "action"):
            check_finite(array, f"{path}, {name!r}")
    ends = arrays["episode_ends"]
    if len(ends) == 0 or ends[-1] != steps or (np.diff(ends, prepend=0) <= 0).any():
        raise InputError(f"{path}, 'episode_ends': expected increasing numbers up to {steps}, found {ends[-3:]} last")
    return arrays


def _pictures(path: Path, array: Any, rows: slice) -> np.ndarray:
    """Rows of the image array, uint8 or floats from 0 to 255, as uint8."""
    try:
        frames = np.asarray(array[rows])
    except Exception as error:  # a broken chunk of a zarr: each compressor has its own
        raise InputError(f"{path}, 'image': expected readable rows {rows.start} to {rows.stop} ({error})") from None
    if frames.dtype != np.uint8 and not 1 < frames.max() <= 255:
        raise InputError(f"{path}, 'image': expected values up to 255, found {frames.dtype} up to {frames.max()}")
    return frames.astype(np.uint8)


def _from_npz(path: Path, names: list[str]) -> Iterator[tuple[str, np.ndarray]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [name for name in names if name not in file]
            if missing:
                raise InputError(f"{path}: expected the arrays {names}, found {sorted(file)}")
            for name in names:
                yield name, file[name]
    except InputError:
        raise
    except Exception as error:  # numpy, zipfile and zlib each have their own for a broken file
        raise InputError(f"{path}: expected a whole npz file, found a broken one ({error})") from None


def _from_zarr(path: Path, names: list[str]) -> Iterator[tuple[str, Any]]:
    try:
        import zarr
    except ImportError:
        raise InputError("zarr: expected it to be installed (pip install zarr), found no such module") from None
    for name in names:
        folder = path / ZARR_NAMES[name]
        if not (folder / ".zarray").exists():
            raise InputError(f"{path}: expected the zarr array {ZARR_NAMES[name]!r}, found none")
        read_json(folder / ".zarray")
        try:
            array = zarr.open_array(str(folder), mode="r")
            yield name, array if name == "image" else np.asarray(array[:])
        except Exception as error:  # a broken chunk: each compressor has its own
            raise InputError(f"{folder}: expected a readable zarr array, found a broken one ({error})") from None
