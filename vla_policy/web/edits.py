"""Changes of a dataset that the page collects, and how they are made: by the functions of `vla_policy.data.editing`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from vla_policy.interfaces import InputError

LONGEST_TEXT = 500  # characters of a sentence or a name


class Editing(Protocol):
    """What is needed of `vla_policy.data.editing`. Each call leaves the old dataset or the new one, whole."""

    def revise(
        self, root: Path, tasks: Mapping[int, str], deleted: Collection[int], require: Callable[[], None], /
    ) -> Any: ...

    def split(self, root: Path, out: Path, parts: Mapping[str, Sequence[int]], /) -> Any: ...

    def merge(self, roots: Sequence[Path], out: Path, /) -> Any: ...


@dataclass(frozen=True)
class Edits:
    """New sentences by episode, and the episodes to delete."""

    tasks: Mapping[int, str]
    deleted: frozenset[int]

    @classmethod
    def from_json(cls, data: Any) -> Edits:
        """`InputError` for anything but {"tasks": {"0": "..."}, "deleted": [1]}."""
        if not isinstance(data, dict) or data.keys() != {"tasks", "deleted"} or not isinstance(data["tasks"], dict):
            raise InputError("edits: expected tasks and deleted")
        tasks = {_index(key): sentence(value) for key, value in data["tasks"].items()}
        return cls(tasks, frozenset(indices(data["deleted"])))


def save(editing: Editing, root: Path, edits: Edits, require: Callable[[], None]) -> str:
    """Change the dataset in its place, if `require` raises nothing once nobody else may change it."""
    tasks = {index: task for index, task in edits.tasks.items() if index not in edits.deleted}
    if tasks or edits.deleted:
        editing.revise(root, tasks, sorted(edits.deleted), require)
    return f"saved: {len(tasks)} with another sentence, {len(edits.deleted)} deleted"


def split(editing: Editing, root: Path, name: str, episodes: Sequence[int]) -> str:
    """Copy episodes to a new dataset beside this one."""
    editing.split(root, root.parent, {name: episodes})
    return f"{root.parent / name} has {len(episodes)} episodes"


def merge(editing: Editing, root: Path, other: str, name: str) -> str:
    """Join this dataset and another one beside it to a new one."""
    if other not in neighbours(root):
        raise InputError(f"merge: expected one of {neighbours(root)}, found {other!r}")
    editing.merge([root, root.parent / other], root.parent / name)
    return f"{root.parent / name} has the episodes of {root.name} and {other}"


def neighbours(root: Path) -> list[str]:
    """The names of the datasets beside this one."""
    found = (path.parents[1] for path in root.parent.glob("*/meta/info.json"))
    return sorted(path.name for path in found if path != root and not path.name.startswith("."))


def indices(value: Any) -> list[int]:
    """Episode numbers of JSON."""
    if not isinstance(value, list) or any(isinstance(k, bool) or not isinstance(k, int) for k in value):
        raise InputError("episodes: expected whole numbers")
    return value


def sentence(value: Any) -> str:
    """A line of text of JSON."""
    if not isinstance(value, str) or not 0 < len(value.strip()) <= LONGEST_TEXT or not value.isprintable():
        raise InputError(f"expected one line of at most {LONGEST_TEXT} characters")
    return value.strip()


def folder(value: Any) -> str:
    """The name of a new folder."""
    name = sentence(value)
    if Path(name).name != name or name.startswith(".") or len(name) > 100:
        raise InputError(f"name: expected that of a new folder, found {name!r}")
    return name


def _index(key: str) -> int:
    if not key.isdecimal() or not key.isascii() or len(key) > 9:
        raise InputError(f"episodes: expected whole numbers, found {key!r}")
    return int(key)
