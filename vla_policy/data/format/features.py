"""Classification of the features in info.json: cameras, vectors, or ignored."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vla_policy.data.format.layout import BOOKKEEPING
from vla_policy.interfaces import ACTION, LARGEST_SIDE, Feature, InputError, Interface

FLOATS, BITS = {"float16", "float32", "float64"}, (8, 16, 32, 64)
NUMBERS = {"bool"} | FLOATS | {f"int{bits}" for bits in BITS} | {f"uint{bits}" for bits in BITS}
DEEPEST = 4  # nesting depth of names


@dataclass(frozen=True)
class Features:
    """Features by kind; `left_out` has the reason for each ignored one.

    `cameras` are colour images, in videos or data files. `vectors` are scalars, vectors, and matrices flattened row by
    row.
    """

    cameras: Mapping[str, Feature]
    vectors: Mapping[str, Feature]
    dtypes: Mapping[str, np.dtype]  # of the vectors
    left_out: Mapping[str, str]

    def interface(self, path: Path, fps: float) -> Interface:
        """The interface of info.json at `path`; units and frame are undeclared. `InputError` without an action."""
        if ACTION not in self.vectors:
            known = sorted({*self.cameras, *self.vectors, *self.left_out})
            found = f"one left out ({self.left_out[ACTION]})" if ACTION in self.left_out else str(known)
            raise InputError(f"{path}: expected a feature {ACTION!r} of numbers, found {found}")
        observations = {key: feature for key, feature in {**self.cameras, **self.vectors}.items() if is_observed(key)}
        return Interface(observations, self.vectors[ACTION], fps)


def is_observed(key: str) -> bool:
    return key.startswith("observation.")


def read_features(declared: Mapping[str, Mapping[str, Any]]) -> Features:
    """Classify the `features` of an info.json whose dtypes and shapes were checked."""
    cameras, vectors, left_out = {}, {}, {}
    for key, entry in declared.items():
        if key in BOOKKEEPING:
            continue
        dtype, shape = entry["dtype"], tuple(entry["shape"])
        if dtype in ("video", "image"):
            height, width, channels = (*height_first(entry), 0, 0, 0)[:3]
            about = entry.get("info")
            about = about if isinstance(about, Mapping) else {}
            if len(shape) != 3 or channels != 3:
                left_out[key] = f"expected a camera of 3 colours, found the shape {list(shape)}"
            elif about.get("video.is_depth_map") or about.get("is_depth_map"):
                left_out[key] = "expected a camera of 3 colours, found a depth map"
            elif max(shape) > LARGEST_SIDE:
                left_out[key] = f"expected at most {LARGEST_SIDE} pixels a side, found the shape {list(shape)}"
            else:
                cameras[key] = Feature("image", (height, width, channels))
        elif dtype not in NUMBERS:
            left_out[key] = f"expected numbers or pictures, found the dtype {dtype!r}"
        elif len(shape) > 2:
            left_out[key] = f"expected a vector or a matrix, found the shape {list(shape)}"
        else:
            size = math.prod(shape)
            vectors[key] = Feature("float32", (size,), channel_names(entry.get("names"), shape))
    dtypes = {key: np.dtype(declared[key]["dtype"]) for key in vectors}
    return Features(cameras, vectors, dtypes, left_out)


def height_first(entry: Mapping[str, Any]) -> tuple[int, ...]:
    """A camera's shape (H, W, 3), also if declared as (3, H, W) by older datasets."""
    shape, names = tuple(entry["shape"]), entry.get("names")
    named = isinstance(names, Sequence) and len(names) == 3
    channels_first = "channel" in str(names[0]) if named else shape[:1] == (3,) != shape[-1:]  # type: ignore[index]
    return (*shape[1:], shape[0]) if channels_first and len(shape) == 3 else shape


def channel_names(names: Any, shape: Sequence[int]) -> tuple[str, ...]:
    """One name per channel from any known declaration; () if they do not match the shape.

    Known are a list, lists in lists, groups ({"motors": [...]}; several groups give their names to their channels) and
    a table {name: channel}. Names of a matrix's rows and columns are none of its channels.
    """
    size = math.prod(shape)
    if len(shape) > 1 and _are_of_axes(names, shape):
        return ()
    if isinstance(names, Mapping) and all(type(channel) is int for channel in names.values()):
        complete = sorted(names.values()) == list(range(len(names))) and len(names) == size
        return tuple(sorted(names, key=names.__getitem__)) if complete else ()
    found = tuple(_leaves(names, "", DEEPEST))
    return found if len(found) == size else ()


def _are_of_axes(names: Any, shape: Sequence[int]) -> bool:
    """Whether names are, or may as well be, a list for each axis with as many names as it is long."""
    lists = names.values() if isinstance(names, Mapping) else names
    return isinstance(lists, Iterable) and [len(x) if isinstance(x, list) else -1 for x in lists] == list(shape)


def _leaves(names: Any, group: str, depth: int) -> Iterator[str]:
    if isinstance(names, Mapping) and depth:
        for key, value in names.items():
            yield from _leaves(value, f"{group}{key}_" if len(names) > 1 else group, depth - 1)
    elif isinstance(names, Sequence) and not isinstance(names, str) and depth:
        for value in names:
            yield from _leaves(value, group, depth - 1)
    elif isinstance(names, (str, int, float)):
        yield f"{group}{names}"
