"""Messages between a policy's server and its clients.

Each is a safetensors file of named tensors; the JSON header stands in the file's metadata. After the websocket's own
handshake, whose `Authorization` header has the token, these are sent:

| from | kind | header | tensors |
|---|---|---|---|
| client | hello | version, interface (a digest; null: any) | |
| server | policy | version, what `Served` says | |
| client | predict | id, tasks, generator, frozen (where chunks continue something) | see `observations` |
| server | chunks | id, generator | actions (B, rows, D) float64 |
| client | read | id, instruction | |
| server | reading | id, unreadable | |
| server | error | message, mistake (of the one who asked), id where there is one | |

A client that asks again before it is answered is answered only its newest question of each kind.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from vla_policy.interfaces import DataError, InputError

VERSION = 1  # of these messages; that of hello, policy and error stays as it is
MOST_HISTORIES = 64  # in one request
LARGEST_HEADER = 1 << 20  # bytes
LARGEST_ANSWER = 16 << 20  # bytes

HELLO, POLICY, PREDICT, CHUNKS, READ, READING, ERROR = (
    "hello",
    "policy",
    "predict",
    "chunks",
    "read",
    "reading",
    "error",
)
_HEADER = "header"  # the key in the metadata
T = TypeVar("T")


class Message(NamedTuple):
    """A message as it was received."""

    header: dict[str, Any]
    tensors: dict[str, np.ndarray]

    @property
    def kind(self) -> str:
        return self.get("kind", str)

    def get(self, key: str, kind: type[T]) -> T:
        """The header's entry; `DataError` if there is none of this type."""
        value = self.header.get(key)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise DataError(f"message: {key}: expected a {kind.__name__}, found {value!r:.80}")
        return value


def pack(kind: str, tensors: Mapping[str, np.ndarray] | None = None, **header: Any) -> bytes:
    """A message of this kind."""
    whole = {name: np.ascontiguousarray(value) for name, value in (tensors or {}).items()}
    return save(whole, {_HEADER: json.dumps({"kind": kind, **header})})


def unpack(data: bytes | str) -> Message:
    """What `pack` made; `DataError` for anything else."""
    if not isinstance(data, bytes):
        raise DataError("message: expected a safetensors file, found text")
    try:
        size = int.from_bytes(data[:8], "little")
        if size > LARGEST_HEADER:
            raise ValueError(f"a header of {size} bytes")
        header = json.loads(json.loads(data[8 : 8 + size])["__metadata__"][_HEADER])
        message = Message(header, load(data))
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"message: expected a safetensors file with a JSON header, found {error!s:.200}") from None
    if not isinstance(header, dict):
        raise DataError(f"message: expected a JSON object as header, found {header!r:.80}")
    return message


def generator_state(generator: np.random.Generator) -> dict[str, Any]:
    """What continues this generator elsewhere, in JSON; `InputError` unless it is one of `np.random.default_rng`."""
    state = dict(generator.bit_generator.state)
    if state["bit_generator"] != "PCG64":
        raise InputError(f"generator: expected one of np.random.default_rng, found {state['bit_generator']}")
    return state


def set_generator_state(generator: np.random.Generator, state: dict[str, Any]) -> None:
    """Continue where the generator of this `generator_state` was; `DataError` if it is none."""
    try:
        generator.bit_generator.state = state
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise DataError(f"message: generator: expected the state of a PCG64, found {error!s:.80}") from None
