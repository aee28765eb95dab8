"""Import of the public PushT demonstrations (npz or the original zarr) as a LeRobotDataset."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from vla_policy.data.dataset import check_finite
from vla_policy.data.writing.writer import LeRobotWriter
from vla_policy.interfaces import ACTION, ENVIRONMENT_STATE, GOAL_STATE, IMAGES, STATE, Feature, InputError, Interface
from vla_policy.utils.files import broken

CAMERA = IMAGES + "top"
ROBOT_TYPE = "pusht"
# Array names in the npz, and in the zarr where they differ.
SHAPES = {"image": (96, 96, 3), "state": (5,), "action": (2,), "episode_ends": ()}
ZARR_NAMES = {"image": "data/img", "state": "data/state", "action": "data/action", "episode_ends": "meta/episode_ends"}
ZARR_FILES = (".zarray", "zarr.json")  # array metadata in formats 2 and 3
MEMBERS = 10  # array names listed in an error
BROKEN = (OSError, ValueError, LookupError, EOFError, RuntimeError, TypeError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class PixelMap:
    """Conversion of gym-pusht's pixels to metres, provided by the simulation."""

    position: Callable[[np.ndarray], np.ndarray]  # (..., 2) px to (..., 2) m
    pose_features: Callable[[np.ndarray], np.ndarray]  # x, y px and angle (..., 3) to x, y, cos, sin (..., 4)
    goal_features: Callable[[np.ndarray], np.ndarray] | None = None  # relative to a goal other than the default


def pusht_interface(images: bool = True, goal: bool = False) -> Interface:
    """The interface of the imported dataset."""
    xy = Feature("float32", (2,), ("x", "y"), ("m", "m"))
    pose = Feature("float32", (4,), ("x", "y", "cos", "sin"), ("m", "m", "1", "1"))
    observations = {STATE: xy, ENVIRONMENT_STATE: pose} | ({GOAL_STATE: pose} if goal else {})
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
    """Read the demonstrations at `source` (.npz, or zarr in a folder or a zip file) into a new dataset at `out`.

    With `pixels.goal_features` the block's pose relative to the goal is an observation as well. An interrupted import
    is resumed. The returned writer is closed. `InputError` names file and array for another layout.
    """
    arrays = _load(Path(source), images)
    ends = arrays["episode_ends"]
    starts = np.concatenate([[0], ends[:-1]])
    interface = pusht_interface(images, pixels.goal_features is not None)
    with LeRobotWriter(out, interface, robot_type=ROBOT_TYPE, codec=codec) as writer:
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
            if pixels.goal_features is not None:
                columns[GOAL_STATE] = pixels.goal_features(state[:, 2:])
            frames = {CAMERA: _images(Path(source), arrays["image"], rows)} if images else {}
            writer.add_episode(columns, frames, task)
    return writer


def _load(path: Path, images: bool) -> dict[str, Any]:
    if not path.exists():
        raise InputError(f"{path}: expected the PushT demonstrations (.npz or zarr), found nothing")
    names = [name for name in SHAPES if images or name != "image"]
    arrays = dict(_from_npz(path, names) if _is_npz(path) else _from_zarr(path, names))
    steps = len(arrays["action"])
    for name, array in arrays.items():
        expected = SHAPES[name] if name == "episode_ends" else (steps, *SHAPES[name])
        shape = array.shape[1:] if name == "episode_ends" else array.shape
        if shape != expected:
            raise InputError(f"{path}, {name!r}: expected shape {expected}, found {array.shape}")
        if array.dtype.kind not in "fiu":
            raise InputError(f"{path}, {name!r}: expected numbers, found {array.dtype}")
        if name in ("state", "action"):
            check_finite(array, f"{path}, {name!r}")
    ends = arrays["episode_ends"]
    if len(ends) == 0 or ends[-1] != steps or not (np.diff(ends, prepend=0) > 0).all():
        raise InputError(f"{path}, 'episode_ends': expected increasing numbers up to {steps}, found {ends[-3:]} last")
    return arrays


def _images(path: Path, array: Any, rows: slice) -> np.ndarray:
    """Rows of the image array (uint8, or floats from 0 to 255) as uint8."""
    with _naming(path, "image"):
        frames = np.asarray(array[rows])
    if frames.dtype != np.uint8 and not 1 < frames.max() <= 255:
        raise InputError(f"{path}, 'image': expected values up to 255, found {frames.dtype} up to {frames.max()}")
    return frames.astype(np.uint8)


def _is_npz(path: Path) -> bool:
    """Whether a zip file is an npz rather than a zipped zarr."""
    if path.is_dir():
        return False
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path}: expected an npz file or a zarr, found {broken(path, 'no zip file')}")
    with _naming(path, "contents"), zipfile.ZipFile(path) as file:
        return not any(PurePosixPath(name).name in ZARR_FILES for name in file.namelist())


def _from_npz(path: Path, names: list[str]) -> Iterator[tuple[str, np.ndarray]]:
    with _naming(path, "contents"), np.load(path, allow_pickle=False) as file:
        missing = [name for name in names if name not in file]
        if missing:
            some = f"{sorted(file)[:MEMBERS]}" + (f" and {len(file) - MEMBERS} more" if len(file) > MEMBERS else "")
            raise InputError(f"{path}: expected the arrays {names}, found {some}")
        for name in names:
            with _naming(path, name):
                yield name, file[name]


def _from_zarr(path: Path, names: list[str]) -> Iterator[tuple[str, Any]]:
    """Arrays of zarr format 2 or 3, in a folder or a zip file, where they may be in a subfolder."""
    try:
        import zarr
        from zarr.storage import ZipStore
    except ImportError:
        raise InputError("zarr: expected it to be installed (pip install zarr), found no such module") from None
    with _naming(path, "contents"):
        store = str(path) if path.is_dir() else ZipStore(path, mode="r")
        group = zarr.open_group(store, mode="r", path=_zarr_group(path))
    for name in names:
        place = ZARR_NAMES[name]
        with _naming(path, place):
            array = group.get(place)
            if not isinstance(array, zarr.Array):
                raise InputError(f"{path}: expected the zarr array {place!r}, found none")
            yield name, array if name == "image" else np.asarray(array[:])


def _zarr_group(path: Path) -> str:
    """Path of the group with `meta/episode_ends` in a folder or zip file, "" at the top."""
    if path.is_dir():
        places = [PurePosixPath(each.relative_to(path).as_posix()) for each in path.rglob("meta/episode_ends/*")]
    else:
        with zipfile.ZipFile(path) as file:
            places = [PurePosixPath(name) for name in file.namelist()]
    for place in places:
        if place.name in ZARR_FILES and place.parts[-3:-1] == ("meta", "episode_ends"):
            return "/".join(place.parts[:-3])
    raise InputError(f"{path}: expected a zarr group with {list(ZARR_NAMES.values())}, found none")


@contextmanager
def _naming(path: Path, what: str) -> Iterator[None]:
    """Convert reading errors to an `InputError` naming file and array."""
    try:
        yield
    except InputError:
        raise
    except BROKEN as error:
        raise InputError(f"{path}, {what!r}: expected a readable array, found {broken(path, error)}") from None
