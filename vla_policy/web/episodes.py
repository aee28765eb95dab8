"""A dataset's episodes as the page shows them."""

from __future__ import annotations

import hashlib
import struct
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from vla_policy.data import LeRobotDataset
from vla_policy.data.inspection import inspect
from vla_policy.interfaces import ACTION, IMAGES, STATE, InputError
from vla_policy.utils.recordings import read_recordings
from vla_policy.web.robot import jpeg


class Episodes:
    """The dataset at `root`; may be read from several threads. `reload` after it was edited."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self._lock, self._inspecting = threading.Lock(), threading.Lock()
        self._inspection = 0  # counts the reloads
        self.warnings: list[dict[str, Any]] | None = None  # None: still looking
        self.reload()

    def reload(self) -> None:
        """Read the dataset anew, and look for what is wrong in it in the background."""
        with self._lock:
            self.revision = self.found_revision()  # before the rest: what changes meanwhile is another one
            self._dataset = LeRobotDataset(self.root, strict=False)
            self._results = {
                entry["episode"]: entry.get("result", "")
                for entry in read_recordings(self.root)
                if entry.get("episode") is not None
            }
            self._inspection += 1
            self.warnings = None
            number = self._inspection
        threading.Thread(target=self._inspect, args=(number,), name="inspection", daemon=True).start()

    def found_revision(self) -> str:
        """What stands for the dataset as it lies on the disk now: its metadata change with every edit and recording."""
        digest = hashlib.sha256()
        for path in sorted((self.root / "meta").rglob("[!.]*")):
            if path.is_file():
                digest.update(f"{path.relative_to(self.root)} {path.stat().st_size} ".encode() + path.read_bytes())
        return digest.hexdigest()

    def _inspect(self, number: int) -> None:
        with self._inspecting:  # one at a time, and none of what is already outdated
            if number != self._inspection:
                return
            try:
                found = inspect(LeRobotDataset(self.root, strict=False))["warnings"]
            except Exception as error:  # edited meanwhile, gone, or a defect: the page has to be told
                text = str(error) or type(error).__name__
                found = [{"episode": None, "key": "", "message": text, "text": text}]
            with self._lock:
                if number == self._inspection:
                    self.warnings = found

    def summary(self) -> Mapping[str, Any]:
        """What the table shows, without the tasks, for which the episodes have to be read."""
        with self._lock:
            dataset = self._dataset
            return {
                "name": self.root.name,
                "revision": self.revision,
                "root": str(self.root),
                "fps": dataset.fps,
                "cameras": [key.removeprefix(IMAGES) for key in dataset.interface.cameras],
                "tasks": dataset.tasks,
                "episodes": [
                    {"index": index, "length": record.length, "result": self._results.get(index, "")}
                    for index, record in dataset.records.items()
                ],
            }

    def tasks(self) -> dict[int, str]:
        """The sentence of every episode that can be read."""
        found = {}
        for index in self.indices():
            try:
                with self._lock:
                    found[index] = self._dataset.episode(index).task
            except InputError:
                continue  # a warning says so
        return found

    def indices(self) -> Sequence[int]:
        with self._lock:
            return self._dataset.episodes

    def series(self, index: int) -> Mapping[str, Any]:
        """State and action of an episode, one list a channel, and its sentence."""
        with self._lock:
            episode, interface = self._dataset.episode(index), self._dataset.interface
        declared = {STATE: interface.observations.get(STATE), ACTION: interface.action}
        return {
            "task": episode.task,
            "features": [
                {
                    "name": key,
                    "channels": list(feature.names) or [str(k) for k in range(feature.shape[0])],
                    "units": list(feature.units),
                    "values": np.round(episode.columns[key].astype(float), 5).T.tolist(),
                }
                for key, feature in declared.items()
                if feature is not None and key in episode.columns
            ],
        }

    def thumbnail(self, index: int) -> bytes:
        """The first picture of the first camera as JPEG."""
        with self._lock:
            cameras, dataset = self._dataset.interface.cameras, self._dataset
        if not cameras:
            raise InputError(f"{self.root}: expected cameras, found none")
        pixels = next(dataset.iter_frames(index, cameras[0]), None)
        if pixels is None:
            raise InputError(f"{self.root}: expected frames of episode {index}, found none")
        return jpeg(pixels)

    def frames(self, index: int, camera: int) -> Iterator[bytes]:
        """All pictures of a camera, each its length as 4 bytes, low ones first, and a JPEG."""
        with self._lock:
            cameras, dataset = self._dataset.interface.cameras, self._dataset
        if not 0 <= camera < len(cameras):
            raise InputError(f"{self.root}: expected a camera from 0 to {len(cameras) - 1}, found {camera}")
        decoded = dataset.iter_frames(index, cameras[camera])
        return _stream([*islice(decoded, 1)], decoded)


def _stream(first: Sequence[np.ndarray], others: Iterator[np.ndarray]) -> Iterator[bytes]:
    """The answer has begun with the first picture: an error in a later one ends it, and is among the warnings."""
    with suppress(InputError):
        for pixels in chain(first, others):
            data = jpeg(pixels)
            yield struct.pack("<I", len(data)) + data
