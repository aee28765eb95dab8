"""Damage as disks, editors and hands do it to a folder of files, one at a time, by a seed."""

from __future__ import annotations

import json
import math
import random
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

ODD: list[Any] = [
    None, 0, -1, 1, 7, 10**9, 2**63, 1e308, math.nan, -math.inf, "", "x", "a/../b", "\0", [], {}, [None], {"a": 1},
    True, False, ["a", "b"], [-1, -1], [10**6, 10**6, 3], [[[1]]], "9" * 5000, "${a.b}", "???", 0.5,
]  # fmt: skip


DAMAGES = ["truncated", "bits", "zeros", "inserted", "empty"]


def damaged(data: bytes, how: str, at: int, rng: random.Random) -> bytes:
    """`data` that ends at `at`, with a few bits flipped, 64 bytes zeroed or 16 inserted there, or nothing of it."""
    found = bytearray(data)
    match how:
        case "truncated":
            del found[at:]
        case "bits":
            for _ in range(rng.choice([1, 3, 20])):
                found[rng.randrange(len(found))] ^= 1 << rng.randrange(8)
        case "zeros":
            found[at : at + 64] = bytes(len(found[at : at + 64]))
        case "inserted":
            found[at:at] = rng.randbytes(16)
        case "empty":
            found.clear()
    return bytes(found)


class Damaged:
    """`folder` with one thing wrong: `next` repairs it and does something else to it, and says what."""

    def __init__(self, folder: Path, whole: Path, others: list[Path], seed: int) -> None:
        """`whole` is what is copied to `folder`, `others` are folders whose files may take the place of its own."""
        self.folder, self._whole, self._others = folder, whole, others
        self._random = random.Random(seed)
        self._files = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file())

    def next(self) -> str:
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self._whole, self.folder)
        file = self._random.choice(self._files)
        path = self.folder / file
        ways: list[Callable[[Path], str]] = [self._flip, self._swap, self._remove]
        if path.suffix in (".json", ".yaml"):
            ways += 9 * [self._edit]
        elif path.suffix == ".safetensors":
            ways += 3 * [self._header]
        return f"{file}: {self._random.choice(ways)(path)}"

    def _flip(self, path: Path) -> str:
        data = path.read_bytes()
        how, at = self._random.choice(DAMAGES), self._random.randrange(len(data))
        path.write_bytes(damaged(data, how, at, self._random))
        return how

    def _swap(self, path: Path) -> str:
        other = self._random.choice(self._others)
        files = [found for found in sorted(other.rglob("*")) if found.is_file()]
        taken = self._random.choice([file for file in files if file.suffix == path.suffix] or files)
        shutil.copy(taken, path)
        return f"swapped for {taken.name} of {other.name}"

    def _remove(self, path: Path) -> str:
        path.unlink()
        return "removed"

    def _edit(self, path: Path) -> str:
        read, write = (json.loads, json.dumps) if path.suffix == ".json" else (yaml.safe_load, yaml.safe_dump)
        data = read(path.read_text())
        where = self._random.choice(list(_places(data)))
        parent = data
        for key in where[:-1]:
            parent = parent[key]
        if self._random.random() < 0.15 and isinstance(parent, dict):
            del parent[where[-1]]
            said = "deleted"
        else:
            parent[where[-1]] = self._random.choice(ODD)
            said = f"= {parent[where[-1]]!r:.40}"
        path.write_text(write(data))
        return f"{'.'.join(map(str, where))} {said}"

    def _header(self, path: Path) -> str:
        data, pick = path.read_bytes(), self._random
        length = struct.unpack("<Q", data[:8])[0]
        header = json.loads(data[8 : 8 + length])
        name = pick.choice([name for name in header if name != "__metadata__"])
        entry = header[name]
        size = math.prod(entry["shape"])
        key, value = pick.choice(
            [
                ("shape", [2**40, 2**20]),
                ("shape", [size]),
                ("shape", [*entry["shape"], 1]),
                ("shape", [-size]),
                ("data_offsets", [0, 2**50]),
                ("data_offsets", [0, 4]),
                ("dtype", "F8_E9"),
                ("dtype", "I32"),
                ("dtype", "F8_E4M3"),
                (None, 2**62),
                (None, 5),
            ]
        )
        if key is None:
            path.write_bytes(struct.pack("<Q", value) + data[8:])
            return f"a header of {value} bytes"
        entry[key] = value
        if pick.random() < 0.2:
            header["another"] = header.pop(name)
        text = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])
        return f"{key} of {name} = {value}"


def _places(data: Any, where: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The keys that lead to each value of nested mappings and lists."""
    for key, value in data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ():
        yield (*where, key)
        yield from _places(value, (*where, key))
