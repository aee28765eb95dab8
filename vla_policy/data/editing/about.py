"""What this package stores of a dataset beside LeRobot's format, after an edit."""

from __future__ import annotations

from collections.abc import Container, Mapping
from itertools import takewhile
from pathlib import Path
from statistics import median
from typing import Any

from vla_policy.data.agreement import common_interface
from vla_policy.data.dataset import LeRobotDataset
from vla_policy.data.editing.plan import Plan
from vla_policy.data.format.features import is_observed, read_features
from vla_policy.data.format.layout import COLLECTION
from vla_policy.interfaces import ACTION, EXECUTED, InputError, Interface
from vla_policy.utils.files import read_json, write_json
from vla_policy.utils.provenance import git_commit
from vla_policy.utils.recordings import RECORDINGS, read_recordings

INTERFACE = Path("meta/interface.json")
EDITS = Path("meta/edits.json")  # what was done to a dataset, oldest first
COUNTED = ("attempted", "last_seed", "successful", "success_rate", "success_ci95")  # of all attempts, by vla-collect
OWN = (INTERFACE, EDITS, COLLECTION, Path(RECORDINGS))


def write_about(plan: Plan, out: Path, sentences: Mapping[int, str]) -> None:
    """Write the files of `OWN` that the datasets of the plan have, and the record of edits.

    `sentences` are those of the new episodes that were given another one.
    """
    if any((dataset.root / INTERFACE).exists() for dataset in plan.datasets):
        write_json(out / INTERFACE, _interface(plan).to_dict())
    collections = [
        _renumbered(dataset, plan.numbers(dataset), sentences)
        for dataset in plan.datasets
        if (dataset.root / COLLECTION).exists()
    ]
    if collections:
        write_json(out / COLLECTION, collections[0] if len(plan.datasets) == 1 else _joined(collections))
    recordings = [entry for dataset in plan.datasets for entry in _recordings(dataset, plan.numbers(dataset))]
    if recordings:
        write_json(out / RECORDINGS, recordings)
    write_json(out / EDITS, [*_earlier_edits(plan), {**plan.about, "git_commit": git_commit()}])


def _interface(plan: Plan) -> Interface:
    """What is declared of the features, under their new names; undeclared ones are as info.json implies."""
    first = plan.datasets[0]
    declared = common_interface(plan.datasets, list(first.interface.observations), accept_unnamed=True)
    known = {**declared.observations, ACTION: declared.action, EXECUTED: declared.action}
    renamed = {plan.name(key): feature for key, feature in known.items() if key in first.features}
    implied = read_features(plan.features).interface(first.root / "meta" / "info.json", first.fps)
    observations = {key: renamed.get(key, feature) for key, feature in implied.observations.items()}
    ordered = [name for key in declared.observations if (name := plan.name(key)) is not None and is_observed(name)]
    ordered += [key for key in observations if key not in ordered]
    action = renamed.get(ACTION, implied.action)
    return Interface({key: observations[key] for key in ordered}, action, declared.fps, declared.frame)


def _renumbered(dataset: LeRobotDataset, numbers: Mapping[int, int], sentences: Mapping[int, str]) -> dict[str, Any]:
    """The collection of `dataset` after an edit; `InputError` for another file."""
    path = dataset.root / COLLECTION
    summary = read_json(path)
    try:
        return _collection(summary, dataset.records, numbers, sentences)
    except (AttributeError, KeyError, TypeError):
        raise InputError(f"{path}: expected the attempts of vla-collect, found {str(summary)[:80]!r}") from None


def _collection(
    summary: Mapping[str, Any], there: Container[int], numbers: Mapping[int, int], sentences: Mapping[int, str]
) -> dict[str, Any]:
    """The summary of a collection with the new numbers of its episodes.

    The attempts at episodes that are no longer there stay, as `removed`: their seeds are done, their outcomes count.
    Those from one on whose episode was never `there`, because vla-collect was killed, are yet to be made.
    """
    if "parts" in summary:
        return _joined([_collection(part, there, numbers, sentences) for part in summary["parts"]])
    attempts = []
    for attempt in takewhile(lambda one: one["episode"] is None or one["episode"] in there, summary["attempts"]):
        if attempt["episode"] is not None:
            number = numbers.get(attempt["episode"])
            attempt = {**attempt, "episode": number} | ({"removed": True} if number is None else {})
            if number is not None and number in sentences:
                attempt["task"] = sentences[number]
        attempts.append(attempt)
    if len(attempts) < len(summary["attempts"]):
        summary = {key: value for key, value in summary.items() if key not in COUNTED}
    steps = [attempt["steps"] for attempt in attempts if attempt["episode"] is not None]
    counts = {"episodes": len(steps), "frames": sum(steps), "median_steps": float(median(steps)) if steps else None}
    return {**summary, **counts, "attempts": attempts}


def _joined(collections: list[dict[str, Any]]) -> dict[str, Any]:
    """Several collections in one dataset, which is none that vla-collect could go on with."""
    parts = [part for collection in collections for part in collection.get("parts", [collection])]
    return {
        "episodes": sum(part["episodes"] for part in parts),
        "frames": sum(part["frames"] for part in parts),
        "parts": parts,
    }


def _recordings(dataset: LeRobotDataset, numbers: Mapping[int, int]) -> list[dict[str, Any]]:
    """The entries with new numbers; those of removed episodes stay if a bag could be imported once more."""
    there = {None, *dataset.episodes}
    known = [entry for entry in read_recordings(dataset.root) if entry["episode"] in there]
    entries = [{**entry, "episode": numbers.get(entry["episode"])} for entry in known]
    return [entry for entry in entries if entry["episode"] is not None or "bag" in entry]


def _earlier_edits(plan: Plan) -> list[dict[str, Any]]:
    """The history of the datasets; of several it is told of which."""
    histories = {dataset.root: read_json(dataset.root / EDITS) for dataset in plan.datasets if _has_edits(dataset)}
    if len(plan.datasets) == 1:
        return [edit for history in histories.values() for edit in history]
    return [{"dataset": root.name, **edit} for root, history in histories.items() for edit in history]


def _has_edits(dataset: LeRobotDataset) -> bool:
    return (dataset.root / EDITS).exists()
