"""Messages from a browser: JSON objects of known types, checked before anything looks at them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from vla_policy.interfaces import InputError

LONGEST_TEXT = 500  # characters of an instruction


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > LONGEST_TEXT or not value.isprintable():
        raise InputError(f"expected one line of at most {LONGEST_TEXT} characters")
    return value


def _sentence(value: Any) -> str:
    if not _text(value).strip():
        raise InputError("expected a sentence, found none")
    return str(value)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError("expected a number")
    return float(value)


def _part(value: Any) -> float:
    if not 0 <= _number(value) <= 1:
        raise InputError("expected a number from 0 to 1")
    return float(value)


def _camera(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 100:
        raise InputError("expected a camera's number")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise InputError("expected true or false")
    return value


def _direction(value: Any) -> list[float]:
    if not isinstance(value, list) or len(value) > 100 or any(abs(_number(part)) > 1 for part in value):
        raise InputError("expected numbers from -1 to 1")
    return [float(part) for part in value]


Fields = Mapping[str, Callable[[Any], Any]]
VIEW: Mapping[str, Fields] = {"hello": {"token": _text}, "seen": {"camera": _camera}, "stop": {}}
HAND: Mapping[str, Fields] = {
    "point": {"u": _part, "v": _part, "t": _number},  # t: seconds since the finger or the key went down
    "push": {"direction": _direction, "t": _number},
    "release": {},
}
REQUESTS: Mapping[str, Fields] = {
    "enable": {"value": _flag},
    "clear": {"token": _text},
    "start": {},
    "end": {"value": _flag},
    "discard": {},
    "instruct": {"value": _sentence},
    "reset": {},
}
LEADERSHIP: Mapping[str, Fields] = {"lead": {"token": _text}, "leave": {}}
TYPES = {**VIEW, **HAND, **REQUESTS, **LEADERSHIP}


def parse(text: str | None) -> dict[str, Any]:
    """A message with its fields, or `InputError` for one that is not exactly of a known type."""
    try:
        message = json.loads(text or "")
    except (ValueError, RecursionError):
        raise InputError("expected JSON") from None
    kind = message.pop("type", None) if isinstance(message, dict) else None
    if not isinstance(kind, str) or kind not in TYPES:
        raise InputError(f"type: expected one of {sorted(TYPES)}")
    fields = TYPES[kind]
    if message.keys() != fields.keys():
        raise InputError(f"{kind}: expected the fields {sorted(fields)}")
    try:
        return {"type": kind, **{name: check(message[name]) for name, check in fields.items()}}
    except (InputError, OverflowError) as error:
        raise InputError(f"{kind}: {error}") from None
