"""What an edited dataset is to be: episodes of one dataset or of several, and what changes in them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from vla_policy.data.dataset import LeRobotDataset
from vla_policy.data.format import video
from vla_policy.data.format.features import height_first, read_features
from vla_policy.data.format.index import video_keys
from vla_policy.data.format.layout import BOOKKEEPING, bookkeeping_features
from vla_policy.data.writing.replace import require_accounted
from vla_policy.interfaces import InputError


@dataclass(frozen=True)
class Part:
    """One episode of the new dataset: episode `index` of `dataset`, with other `sentences` for some of its own."""

    dataset: LeRobotDataset
    index: int
    sentences: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """The episodes of a new dataset in order.

    `names` gives features other names, or None where they are dropped. With `codec` the videos of colour cameras are
    encoded anew, with `fresh_stats` the statistics of cameras computed from their frames rather than carried over.
    `about` is what the record of edits says of this one, its `edit` first.
    """

    parts: Sequence[Part]
    about: Mapping[str, Any]
    names: Mapping[str, str | None] = field(default_factory=dict)
    codec: str = ""
    fresh_stats: bool = False

    @cached_property
    def datasets(self) -> list[LeRobotDataset]:
        """The datasets that episodes are taken from."""
        return list(dict.fromkeys(part.dataset for part in self.parts))

    def numbers(self, dataset: LeRobotDataset) -> dict[int, int]:
        """The new indices of a dataset's episodes by the old ones."""
        return {part.index: number for number, part in enumerate(self.parts) if part.dataset is dataset}

    def name(self, key: str) -> str | None:
        """The new name of a feature, None if it is dropped."""
        return self.names.get(key, key)

    @cached_property
    def videos(self) -> dict[str, str]:
        """The new names of the video features by the old ones."""
        new = {key: self.name(key) for key in video_keys(self.datasets[0].info)}
        return {key: name for key, name in new.items() if name is not None}

    @cached_property
    def features(self) -> dict[str, Any]:
        """The `features` of the new info.json."""
        features = {}
        for key, entry in self.datasets[0].features.items():
            name = self.name(key)
            if name is not None:
                features[name] = self._declared(key, entry)
        return features | {key: entry for key, entry in bookkeeping_features().items() if key not in features}

    def _declared(self, key: str, entry: Mapping[str, Any]) -> dict[str, Any]:
        if entry["dtype"] not in ("video", "image") or len(entry["shape"]) != 3:
            return dict(entry)
        declared = dict(entry)
        if (shape := list(height_first(entry))) != entry["shape"]:  # as v2.1 may have it
            declared |= {"shape": shape, "names": ["height", "width", "channels"]}
        if entry["dtype"] == "video" and self.is_encoded(key):
            declared["info"] = {**(entry.get("info") or {}), "video.codec": self.codec, "video.pix_fmt": "yuv420p"}
        return declared

    def is_encoded(self, key: str) -> bool:
        """Whether all videos of a feature are encoded anew: those of depth cameras are not."""
        return bool(self.codec) and key in read_features(self.datasets[0].features).cameras

    def check(self) -> None:
        """`InputError` unless the new dataset would be a whole one that can be read."""
        if not self.parts:
            raise InputError(f"{self.about['edit']}: expected at least one episode in the new dataset, found none")
        root = self.datasets[0].root
        new = [self.name(key) for key in dict.fromkeys([*self.datasets[0].features, *self.names])]
        twice = [name for name in new if name is not None and new.count(name) > 1]
        if twice:
            raise InputError(f"{root}: expected every feature once, found {twice[0]!r} again")
        for old, name in self.names.items():
            if old in BOOKKEEPING or name in BOOKKEEPING:
                raise InputError(f"{root}: expected a feature that is none of {sorted(BOOKKEEPING)}, found {old!r}")
            if name is not None and (not name or "/" in name):
                raise InputError(f"{root}: expected a feature's name without '/', found {name!r}")
        read_features(self.features).interface(root / "meta" / "info.json", self.datasets[0].fps)
        if self.codec and self.codec not in video.ENCODERS:
            raise InputError(f"codec: expected one of {sorted(video.ENCODERS)}, found {self.codec!r}")
        self._check_files()

    def _check_files(self) -> None:
        chosen: dict[LeRobotDataset, list[int]] = defaultdict(list)
        for part in self.parts:
            chosen[part.dataset].append(part.index)
        for dataset, indices in chosen.items():
            for missing in dataset.missing_files(self.videos, indices):
                raise InputError(str(missing))
            require_accounted(dataset, indices, self.videos)
