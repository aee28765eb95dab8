"""The edits of a dataset as library calls, each in its place or, with `out`, as a new dataset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from vla_policy.data.dataset import LeRobotDataset
from vla_policy.data.editing.apply import Edited, edit, open_dataset, write_new
from vla_policy.data.editing.build import Progress
from vla_policy.data.editing.plan import Part, Plan
from vla_policy.data.editing.selection import require_episodes
from vla_policy.data.format.layout import BOOKKEEPING
from vla_policy.data.format.parquet import column_names
from vla_policy.interfaces import InputError

Root = str | Path


def delete(root: Root, episodes: Collection[int], out: Root | None = None, progress: Progress = iter) -> Edited:
    """Without these episodes; those behind them get new numbers."""

    def plan(dataset: LeRobotDataset) -> Plan:
        require_episodes([*episodes], dataset.episodes, "delete")
        kept = [Part(dataset, index) for index in dataset.episodes if index not in episodes]
        return Plan(kept, {"edit": "delete", "episodes": sorted(episodes)})

    return edit(root, out, plan, progress)


def split(root: Root, out: Root, parts: Mapping[str, Sequence[int]], progress: Progress = iter) -> dict[str, Edited]:
    """New datasets `out`/name of the episodes of each name; none may be there twice."""
    dataset = open_dataset(root)
    twice = [index for index, count in Counter(chain(*parts.values())).items() if count > 1]
    if twice:
        raise InputError(f"split: expected every episode once at most, found {min(twice)} more often")
    plans = {}
    for name, chosen in parts.items():
        if not name or Path(name).name != name or name.startswith("."):
            raise InputError(f"split: expected names of folders, found {name!r}")
        require_episodes(chosen, dataset.episodes, name)
        if (Path(out) / name).exists():
            raise InputError(f"{Path(out) / name}: expected no such folder, found one")
        about = {"edit": "split", "of": dataset.root.name, "name": name, "episodes": sorted(chosen)}
        plans[name] = Plan([Part(dataset, index) for index in sorted(chosen)], about)
        plans[name].check()
    return {name: write_new(plan, Path(out) / name, progress) for name, plan in plans.items()}


def merge(roots: Sequence[Root], out: Root, progress: Progress = iter) -> Edited:
    """One dataset of the episodes of all, in the order of `roots`; `InputError` if they do not fit together."""
    datasets = [open_dataset(root) for root in roots]
    names = [str(dataset.root) for dataset in datasets]
    if len(set(names)) < max(2, len(names)):
        raise InputError(f"merge: expected two or more different datasets, found {names}")
    for other in datasets[1:]:
        _require_alike(datasets[0], other)
    counts = {dataset.root.name: dataset.num_episodes for dataset in datasets}
    parts = [Part(dataset, index) for dataset in datasets for index in dataset.episodes]
    return write_new(Plan(parts, {"edit": "merge", "of": list(counts.items())}), out, progress)


def _require_alike(one: LeRobotDataset, other: LeRobotDataset) -> None:
    """`InputError` naming the first difference in rate, robot or features."""
    first, second = _essence(one), _essence(other)
    for what in dict.fromkeys((*first, *second)):
        expected, found = first.get(what, "none"), second.get(what, "none")
        if expected != found and not (what == "robot_type" and not (expected and found)):
            raise InputError(
                f"{other.root}: expected {what} as in {one.root}, {expected}, found {found}; vla-dataset rename, drop "
                "and reencode change what differs"
            )


def _essence(dataset: LeRobotDataset) -> dict[str, Any]:
    """What must be the same in datasets that become one."""
    alike: dict[str, Any] = {"fps": dataset.fps, "robot_type": dataset.info.get("robot_type") or ""}
    for key, entry in dataset.features.items():
        if key not in BOOKKEEPING:
            codec = (entry.get("info") or {}).get("video.codec")
            about = {"dtype": entry["dtype"], "shape": entry["shape"], "names": entry.get("names")}
            alike[key] = about | ({"codec": codec} if codec else {})
    return alike


def retask(
    root: Root,
    task: str,
    episodes: Collection[int] | None = None,
    old: str | None = None,
    out: Root | None = None,
    progress: Progress = iter,
) -> Edited:
    """Another sentence for `episodes` (default: all) or, with `old`, for those of their frames that have this one."""
    if not task:
        raise InputError("task: expected a sentence, found none")

    def plan(dataset: LeRobotDataset) -> Plan:
        require_episodes([*(episodes or ())], dataset.episodes, "retask")
        if old is not None and old not in dataset.tasks:
            raise InputError(f"old: expected one of the dataset's sentences {dataset.tasks}, found {old!r}")
        sentences = dict.fromkeys(dataset.tasks if old is None else [old], task)
        chosen = dataset.episodes if episodes is None else episodes
        parts = [Part(dataset, index, sentences if index in chosen else {}) for index in dataset.episodes]
        which = {"episodes": None if episodes is None else sorted(episodes)} | ({"old": old} if old else {})
        return Plan(parts, {"edit": "retask", "task": task, **which})

    return edit(root, out, plan, progress)


def revise(
    root: Root,
    tasks: Mapping[int, str],
    deleted: Collection[int],
    require: Callable[[], None] = lambda: None,
    progress: Progress = iter,
) -> Edited:
    """Another sentence for the episodes of `tasks`, and without those `deleted`, in one edit in the dataset's place.

    `require` is called when nobody else may write any more: it raises if the numbers are those of another dataset.
    """

    def plan(dataset: LeRobotDataset) -> Plan:
        require()
        require_episodes(sorted({*tasks, *deleted}), dataset.episodes, "revise")
        kept = [index for index in dataset.episodes if index not in deleted]
        sentences = {index: dict.fromkeys(dataset.tasks, task) for index, task in tasks.items()}
        about = {"edit": "revise", "tasks": {str(index): task for index, task in tasks.items()}}
        parts = [Part(dataset, index, sentences.get(index, {})) for index in kept]
        return Plan(parts, {**about, "deleted": sorted(deleted)})

    return edit(root, None, plan, progress)


def rename(root: Root, names: Mapping[str, str], out: Root | None = None, progress: Progress = iter) -> Edited:
    """Other names for features, by their old ones; two may be exchanged."""
    return _with_names(root, dict(names), {"edit": "rename", "names": dict(names)}, out, progress)


def drop(root: Root, features: Sequence[str], out: Root | None = None, progress: Progress = iter) -> Edited:
    """Without these features, their columns and videos."""
    names = dict.fromkeys(features)
    return _with_names(root, names, {"edit": "drop", "features": list(names)}, out, progress)


def _with_names(
    root: Root, names: Mapping[str, str | None], about: Mapping[str, Any], out: Root | None, progress: Progress
) -> Edited:
    def plan(dataset: LeRobotDataset) -> Plan:
        files = {record.data for record in dataset.records.values()}
        columns = {name for path in files for name in column_names(path)}
        unknown = [key for key in names if key not in {*dataset.features, *columns}]
        if unknown or not names:
            known = sorted({*dataset.features, *columns} - BOOKKEEPING.keys())
            raise InputError(
                f"{dataset.root}: expected a feature out of {known}, found {unknown[0] if unknown else None!r}"
            )
        return Plan([Part(dataset, index) for index in dataset.episodes], about, names)

    return edit(root, out, plan, progress)


def reencode(root: Root, codec: str, out: Root | None = None, progress: Progress = iter) -> Edited:
    """With all videos of colour cameras encoded anew, "h264" or "av1", with a key frame every second frame."""

    def plan(dataset: LeRobotDataset) -> Plan:
        new = Plan(_all(dataset), {"edit": "reencode", "codec": codec}, codec=codec)
        if not any(new.is_encoded(key) for key in new.videos):
            raise InputError(f"{dataset.root}: expected a dataset with videos of colour cameras, found none")
        return new

    return edit(root, out, plan, progress)


def recompute_stats(root: Root, out: Root | None = None, progress: Progress = iter) -> Edited:
    """With the statistics of every episode, and of the dataset, computed from the values and the decoded frames."""
    return edit(root, out, lambda dataset: Plan(_all(dataset), {"edit": "stats"}, fresh_stats=True), progress)


def convert(root: Root, out: Root, progress: Progress = iter) -> Edited:
    """A v2.1 dataset as v3.0, without encoding anew; episodes are numbered without gaps."""
    dataset = LeRobotDataset(Path(root).resolve())
    version = dataset.info["codebase_version"]
    if version != "v2.1":
        raise InputError(f"{root}: expected a v2.1 dataset to convert, found {version}")
    return write_new(Plan(_all(dataset), {"edit": "convert", "of": dataset.root.name}), out, progress)


def _all(dataset: LeRobotDataset) -> list[Part]:
    return [Part(dataset, index) for index in dataset.episodes]
