"""What is known of a dataset's episodes beside their frames: where they come from, how they ended, who led."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vla_policy.interfaces import InputError
from vla_policy.utils.files import read_json

RECORDINGS = "recordings.json"  # in a dataset's folder: one entry per episode
BAG = "bag"  # of an entry: where the episode was imported from, if it was


def read_recordings(root: Path) -> list[dict[str, Any]]:
    """The entries of `RECORDINGS`, none without such a file. The last ones may have no episode after a crash.

    An entry whose `episode` is None is of one that was imported and later removed: its bag is not imported again.
    """
    path = root / RECORDINGS
    entries = read_json(path) if path.is_file() else []
    for entry in entries if isinstance(entries, list) else [entries]:
        if not (isinstance(entry, dict) and type(entry.get("episode", "")) in (int, type(None)) and _is_known(entry)):
            raise InputError(f"{path}: expected a list of entries with episode and bag, found {str(entry)[:80]!r}")
    return list(entries)


def read_interventions(root: Path) -> dict[int, list[tuple[int, int]]]:
    """By episode the spans of frames [first, last) in which a person, or an expert, led in the policy's place."""
    found = {}
    for entry in read_recordings(root):
        spans = entry.get("interventions", [])
        if not (isinstance(spans, list) and all(map(_is_span, spans))):
            what = f"expected interventions of episode {entry['episode']} as pairs of frames"
            raise InputError(f"{root / RECORDINGS}: {what}, found {str(spans)[:80]!r}")
        if entry["episode"] is not None and spans:
            found[entry["episode"]] = [(first, last) for first, last in spans]
    return found


def _is_known(entry: Mapping[str, Any]) -> bool:
    return all(isinstance(entry.get(key, ""), str) for key in (BAG, "digest"))


def _is_span(span: Any) -> bool:
    return isinstance(span, list) and [type(frame) for frame in span] == [int, int] and 0 <= span[0] < span[1]
