"""Typed values of a YAML file; `InputError` names the key of a wrong one."""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

from vla_policy.interfaces import InputError

LONGEST = 256  # entries of a list
_TOPIC = re.compile(r"~?/?[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)*")
_SHOWN = reprlib.Repr()
_SHOWN.maxlevel, _SHOWN.maxlist, _SHOWN.maxdict, _SHOWN.maxstring = 3, 32, 16, 120


def shown(value: Any) -> str:
    """Any value in one line of bounded length."""
    return _SHOWN.repr(value)


def refuse(where: str, expected: str, value: Any) -> InputError:
    """The error for a value other than expected."""
    return InputError(f"{where}: expected {expected}, found {shown(value)}")


def mapping(value: Any, where: str, needed: set[str], optional: set[str]) -> Mapping[str, Any]:
    """A mapping with all `needed` keys and no others than `optional` ones."""
    if not isinstance(value, Mapping):
        raise refuse(where, f"the keys {sorted(needed or optional)}", value)
    missing, unknown = sorted(needed - set(value)), sorted(map(str, set(value) - needed - optional))
    if missing or unknown:
        found = f"found {shown(unknown)}" if unknown else f"{missing} missing"
        raise InputError(f"{where}: expected the keys {sorted(needed | optional)}, {found}")
    return value


def by_name(value: Any, where: str) -> Mapping[str, Any]:
    """A mapping with string keys."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise refuse(where, "entries by name", value)
    return value


def items(value: Any, where: str, what: str) -> Sequence[Any]:
    """A non-empty list."""
    if not isinstance(value, list) or not 0 < len(value) <= LONGEST:
        raise refuse(where, what, value)
    return value


def text(value: Any, where: str, empty: bool = False) -> str:
    """Printable characters."""
    if not isinstance(value, str) or not value.isprintable() or not (value.strip() or empty):
        raise refuse(where, "text", value)
    return value


def texts(value: Any, where: str, size: int | None = None) -> tuple[str, ...]:
    """Different texts; whole numbers are taken for their digits, as in joints that are named by them."""
    found = [str(v) if type(v) is int else v for v in items(value, where, "a list of texts")]
    good = all(isinstance(v, str) and v.strip() and v.isprintable() for v in found) and len(set(found)) == len(found)
    if not good or size not in (None, len(found)):
        raise refuse(where, "different texts" if size is None else f"{size} different ones, one a name", value)
    return tuple(found)


def units(value: Any, where: str, size: int) -> tuple[str, ...]:
    """A unit for each of `size` channels."""
    found = [str(v) if type(v) is int else v for v in items(value, where, "a list of units")]
    if len(found) != size or not all(isinstance(v, str) and v.strip() and v.isprintable() for v in found):
        raise refuse(where, f"{size} units, one a name", value)
    return tuple(found)


def topic(value: Any, where: str) -> str:
    """A valid ROS topic name."""
    if not isinstance(value, str) or not _TOPIC.fullmatch(value):
        raise refuse(where, "a topic such as /joint_states", value)
    return value


def choice(value: Any, where: str, known: Sequence[str]) -> str:
    """One of `known`."""
    if value not in known:
        raise refuse(where, f"one of {list(known)}", value)
    return str(value)


def number(value: Any, where: str) -> float:
    """A finite number."""
    if not _is_number(value):
        raise refuse(where, "a finite number", value)
    return float(value)


def positive(value: Any, where: str) -> float:
    """A finite number above 0."""
    if not _is_number(value) or not value > 0:
        raise refuse(where, "a number above 0", value)
    return float(value)


def within(value: Any, where: str, least: float, most: float) -> float:
    """A number above 0 from `least` to `most`."""
    if not least <= positive(value, where) <= most:
        raise refuse(where, f"{least:g} to {most:g}", value)
    return float(value)


def numbers(value: Any, where: str, size: int | None = None) -> tuple[float, ...]:
    """`size` finite numbers."""
    if not isinstance(value, list) or size not in (None, len(value)) or not all(map(_is_number, value)):
        raise refuse(where, "finite numbers" if size is None else f"{size} finite numbers", value)
    return tuple(map(float, value))


def integers(value: Any, where: str, size: int, least: int, most: int) -> tuple[int, ...]:
    """`size` integers from `least` to `most`."""
    if not isinstance(value, list) or len(value) != size or not all(type(v) is int for v in value):
        raise refuse(where, f"{size} whole numbers", value)
    if not all(least <= v <= most for v in value):
        raise refuse(where, f"{size} whole numbers from {least} to {most}", value)
    return tuple(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e18 and math.isfinite(value)
