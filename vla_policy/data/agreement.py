"""Whether datasets agree on what they contain, and on what."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from vla_policy.data.dataset import LeRobotDataset
from vla_policy.interfaces import ACTION, Feature, InputError, Interface


def common_interface(
    datasets: Sequence[LeRobotDataset], keys: Sequence[str], pad_cameras: bool = False, accept_unnamed: bool = False
) -> Interface:
    """The interface of all `datasets` with the observations `keys`; a declaration in some of them applies to all.

    `InputError` naming the dataset and the difference if they disagree, if one lacks a key (other than a camera with
    `pad_cameras`), or if channels are unnamed and thus cannot be compared (unless `accept_unnamed`).
    """
    interfaces = [dataset.interface for dataset in datasets]
    observations = {}
    for key in keys:
        features = [interface.observations[key] for interface in interfaces if key in interface.observations]
        camera = bool(features) and features[0].dtype == "image"
        for dataset, interface in zip(datasets, interfaces, strict=True):
            if key not in interface.observations and not (camera and pad_cameras):
                hint = "; data.missing_cameras=pad would show black pictures" if camera else ""
                raise InputError(f"{dataset.root}: expected {key!r}, found {dataset.found(key)}{hint}")
        observations[key] = _most_declared(features)
    for one, other in combinations(datasets, 2):
        shared = [key for key in keys if key in one.interface.observations and key in other.interface.observations]
        one.interface.select(shared).require(other.interface, str(one.root), str(other.root))
    if len(datasets) > 1 and not accept_unnamed:
        _require_names(datasets, keys)
    frame = next((interface.frame for interface in interfaces if interface.frame), "")
    action = _most_declared([interface.action for interface in interfaces])
    return Interface(observations, action, interfaces[0].fps, frame)


def _require_names(datasets: Sequence[LeRobotDataset], keys: Sequence[str]) -> None:
    for dataset in datasets:
        for key, feature in {**dataset.interface.observations, ACTION: dataset.interface.action}.items():
            if key in (*keys, ACTION) and feature.dtype != "image" and not feature.names:
                raise InputError(
                    f"{dataset.root}: expected names of the {feature.shape[0]} channels of {key!r}, to compare them "
                    "with the other datasets', found none; data.unnamed_channels=accept takes them to be the same"
                )


def _most_declared(features: Sequence[Feature]) -> Feature:
    return max(features, key=lambda feature: bool(feature.names) + bool(feature.units))
