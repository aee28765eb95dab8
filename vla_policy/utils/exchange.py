"""Crash-safe replacement of a folder: a kill at any moment leaves the old or the new one complete."""

from __future__ import annotations

import filecmp
import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from glob import escape
from pathlib import Path

from vla_policy.interfaces import InputError
from vla_policy.utils.files import TEMPORARY, read_json, sync, write_json


class Exchange:
    """Replaces the folder `root` by one built beside it at `building`.

    A journal, written first and removed last, marks the folders as this class's own and lists the files of the old
    folder that the new one has its own version of, if under other names; only those are deleted.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.building = root.with_name(f".{root.name}.building")
        self.replaced = root.with_name(f".{root.name}.replaced")
        self.journal = root.with_name(f".{root.name}.vla_policy.json")

    def begin(self, merged: Iterable[Path]) -> None:
        """Create the folder to build in; `merged` are the files of `root` that it will have its own version of.

        `InputError` if a folder of that name exists that this class did not create.
        """
        for folder in (self.building, self.replaced):
            if folder.exists():
                raise InputError(f"{folder}: expected no such folder, which is created temporarily, found one")
        write_json(self.journal, {"merged": sorted(str(path.relative_to(self.root)) for path in merged)})
        sync(self.root.parent)
        self.building.mkdir()

    def swap(self) -> None:
        """Replace `root` by the complete folder at `building`; `InputError` if it cannot be renamed."""
        try:
            self.root.rename(self.replaced)
        except OSError as error:
            self.clean()
            raise InputError(f"{self.root}: expected a folder that can be renamed, found {error.strerror}") from None
        self.recover()
        sync(self.root.parent)
        self.clean()

    def recover(self) -> None:
        """Finish a swap that was killed between its two renames, while `root` is missing."""
        if not self.root.exists() and self.replaced.is_dir() and self.building.is_dir():
            with suppress(FileNotFoundError):  # another process has recovered it
                self.building.rename(self.root)

    def clean(self) -> None:
        """Remove leftovers of a finished or interrupted exchange; `root` must exist and be locked."""
        for path in self.root.parent.glob(f".{escape(self.journal.name)}.*{TEMPORARY}"):
            path.unlink(missing_ok=True)
        if not self.journal.exists():
            return
        if self.replaced.is_dir() and self.building.is_dir():
            raise InputError(
                f"{self.replaced}: expected nothing beside {self.root}, found what an interrupted exchange had taken "
                "from there; move one of them away"
            )
        if self.replaced.is_dir():
            self._retire()
        elif self.building.is_dir():
            shutil.rmtree(self.building)
        self.journal.unlink()

    def _retire(self) -> None:
        """Remove the old folder after moving files that were added while the new one was built."""
        merged = set(read_json(self.journal)["merged"])
        for folder, folders, files in os.walk(self.replaced, topdown=False):
            for old in (Path(folder, name) for name in [*folders, *files]):
                inside = old.relative_to(self.replaced)
                if old.is_dir() and not old.is_symlink():
                    old.rmdir()
                elif str(inside) in merged:
                    old.unlink()
                else:
                    _keep(old, self.root / inside)
        self.replaced.rmdir()


def link(path: Path, new: Path) -> None:
    """A hard link, or a copy where the file system has none."""
    new.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(path, new, follow_symlinks=False)
    except OSError:
        shutil.copy2(path, new, follow_symlinks=False)
        if not new.is_symlink():
            sync(new)


def _keep(old: Path, new: Path) -> None:
    """Move `old` to `new`; if that exists with other content, both are kept."""
    if os.path.lexists(new) and _same(old, new):
        old.unlink()
        return
    while os.path.lexists(new):
        new = new.with_name(f"{new.name}.old")
    new.parent.mkdir(parents=True, exist_ok=True)
    old.rename(new)


def _same(one: Path, other: Path) -> bool:
    if os.path.samestat(one.lstat(), other.lstat()):
        return True
    if one.is_symlink() or other.is_symlink():
        return one.is_symlink() and other.is_symlink() and one.readlink() == other.readlink()
    return one.is_file() and other.is_file() and filecmp.cmp(one, other, shallow=False)
