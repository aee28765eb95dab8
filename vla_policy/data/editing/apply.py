"""Carries a plan out: as a new dataset, or in the place of the old one. A kill at any moment leaves either whole."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from vla_policy.data.dataset import LeRobotDataset
from vla_policy.data.editing.about import OWN
from vla_policy.data.editing.build import Progress, build
from vla_policy.data.editing.plan import Plan
from vla_policy.data.editing.verify import require_planned
from vla_policy.data.format.index import read_info
from vla_policy.data.writing.journal import LOCK, lock, next_file, require_counted
from vla_policy.data.writing.replace import episode_files, replaced
from vla_policy.interfaces import InputError
from vla_policy.utils.exchange import Exchange, link
from vla_policy.utils.files import sync

REWRITTEN = (Path("meta/info.json"), Path("meta/stats.json"), Path("meta/tasks.parquet"), *OWN)


@dataclass(frozen=True)
class Edited:
    """The dataset that an edit made, and `notes` on what it had to do beyond what was asked for."""

    root: Path
    episodes: int
    frames: int
    notes: list[str]


def open_dataset(root: str | Path) -> LeRobotDataset:
    """A v3.0 dataset to be edited; `InputError` for another one, or if an episode is not counted."""
    root = Path(root).resolve()
    Exchange(root).recover()
    version = read_info(root)["codebase_version"]
    if version != "v3.0":
        raise InputError(f"{root}: expected a v3.0 dataset to edit, found {version}; vla-dataset convert makes one")
    dataset = LeRobotDataset(root)
    require_counted(dataset)
    return dataset


def edit(
    root: str | Path, out: str | Path | None, make_plan: Callable[[LeRobotDataset], Plan], progress: Progress
) -> Edited:
    """Apply a plan to the dataset at `root`: in its place, or as a new one at `out`.

    In its place, files that belong to no episode stay, and disk space for a second copy of the rows and of what is
    encoded anew is needed meanwhile. No file gets the name of an old one, so that a reader that has the old dataset
    open finds none rather than other episodes. `InputError`, and nothing changed, for a mistake in the plan, a dataset
    whose records and files disagree, or while a writer holds the lock.
    """
    if out is not None:
        return write_new(make_plan(open_dataset(root)), out, progress)
    root = Path(root).resolve()
    Exchange(root).recover()
    read_info(root)  # before a lock makes a folder
    with lock(root):  # which removes an episode that a killed writer left unfinished
        plan = make_plan(open_dataset(root))
        plan.check()
        records = plan.datasets[0].records.values()
        old = {path for record in records for path in episode_files(record)} | {root / path for path in REWRITTEN}
        with replaced(root, old) as folder:
            notes = _write(plan, folder, next_file(root), link, progress)
    return _edited(root, notes)


def write_new(plan: Plan, out: str | Path, progress: Progress) -> Edited:
    """Write the dataset of a plan to `out`; `InputError`, and nothing written, if there is one already."""
    plan.check()
    out = Path(out).resolve()
    with new_folder(out) as folder:
        notes = _write(plan, folder, 0, _copy, progress)
    return _edited(out, notes)


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder that becomes `out`, a resolved path, once the block has filled it; an exception leaves nothing."""
    there = out.exists()
    with lock(out):
        if (out / "meta" / "info.json").exists():
            raise InputError(f"{out}: expected a new folder, found a dataset")
        try:
            with replaced(out, ()) as folder:
                yield folder
        except BaseException:
            if not there:
                with suppress(OSError):
                    (out / LOCK).unlink()
                    out.rmdir()
            raise


def _write(plan: Plan, folder: Path, first: int, copy: Callable[[Path, Path], object], progress: Progress) -> list[str]:
    built = build(plan, folder, first, copy, progress)
    require_planned(plan, built, LeRobotDataset(folder), progress)
    return built.notes


def _copy(path: Path, new: Path) -> None:
    new.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, new)
    sync(new)


def _edited(root: Path, notes: list[str]) -> Edited:
    dataset = LeRobotDataset(root)
    return Edited(root, dataset.num_episodes, dataset.num_frames, notes)
