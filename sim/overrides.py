"""Overrides of a frozen dataclass by nested mappings from YAML and command lines, with type checks."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np

from vla_policy.interfaces import InputError

Vector = tuple[float, float, float]
T = TypeVar("T")

_BLANK: dict[Any, Any] = {Vector: (0.0, 0.0, 0.0), float: 0.0}  # stand-ins whose type a new entry's required fields get


def replace(default: T, values: Mapping[str, Any], where: str) -> T:
    """The dataclass `default` with `values` in place of its fields.

    Fields that are dictionaries keep their other entries. `InputError` begins with `where`, the place in the
    configuration, and names a key or a value that is wrong.
    """
    types = typing.get_type_hints(type(default))
    if not isinstance(values, Mapping):
        raise InputError(f"{where}: expected keys out of {sorted(types)}, found {values!r}")
    unknown = sorted(set(values) - set(types))
    if unknown:
        raise InputError(f"{where}: expected keys out of {sorted(types)}, found {unknown}")
    changes = {}
    for key, value in values.items():
        current: Any = getattr(default, key)
        place = f"{where}.{key}"
        if isinstance(current, dict):
            if not isinstance(value, Mapping):
                raise InputError(f"{place}: expected {key} by name, found {value!r}")
            kind = typing.get_args(types[key])[1]
            what = key.removesuffix("s").replace("_", " ")
            changes[key] = current | {
                name: _entry(kind, current.get(name), entry, f"{place}.{name}", what) for name, entry in value.items()
            }
        elif dataclasses.is_dataclass(types[key]):
            changes[key] = replace(current, value, place)
        else:
            changes[key] = _convert(current, value, place)
    return dataclasses.replace(default, **changes)  # type: ignore[type-var]


def _entry(kind: Any, default: Any, values: Any, where: str, what: str) -> Any:
    """A dictionary's entry of the type `kind`; a new dataclass needs all of its fields that have no default."""
    if kind in _BLANK:
        return _convert(_BLANK[kind], values, where)
    if default is None:
        required = [f.name for f in dataclasses.fields(kind) if f.default is dataclasses.MISSING]
        missing = sorted(set(required) - set(values)) if isinstance(values, Mapping) else []
        if missing:
            raise InputError(f"{where}: a new {what} needs {missing}, found {sorted(values)}")
        types = typing.get_type_hints(kind)
        default = kind(**{name: _BLANK[types[name]] for name in required})
    return replace(default, values, where)


def _convert(default: Any, value: Any, where: str) -> Any:
    """`value` as the type of `default`: text, a number that is not negative, or as many numbers of any sign."""
    if isinstance(default, str | None):
        if isinstance(value, str) or (default is None and value is None):
            return value
        raise InputError(f"{where}: expected text, found {value!r}")
    try:
        if isinstance(default, tuple):
            numbers = tuple(float(v) for v in value)
            if len(numbers) == len(default) and np.isfinite(numbers).all():
                return numbers
        elif isinstance(default, int) and int(value) == value and value > 0:
            return int(value)
        elif isinstance(default, float) and np.isfinite(float(value)) and float(value) >= 0:
            return float(value)
    except (TypeError, ValueError):
        pass
    expected = (
        f"{len(default)} numbers"
        if isinstance(default, tuple)
        else "a number that is not negative"
        if isinstance(default, float)
        else "a whole number above 0"
    )
    raise InputError(f"{where}: expected {expected}, found {value!r}")
