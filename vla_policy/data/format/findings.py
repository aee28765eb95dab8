"""Warnings about a dataset, by episode and key, and their summary in few lines."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

_NUMBER = re.compile(r"(?P<channel>channel \d+)|-?\d+(\.\d+)?(e[+-]?\d+)?")


@dataclass(frozen=True)
class Finding:
    """One warning; `episode` is None if it applies to the whole dataset."""

    episode: int | None
    key: str
    message: str

    def __str__(self) -> str:
        return f"{'all episodes' if self.episode is None else f'episode {self.episode}'}, {self.key}: {self.message}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-compatible, with the warning as `text`."""
        return asdict(self) | {"text": str(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Finding:
        return cls(data["episode"], data["key"], data["message"])


def listed(episodes: Collection[int]) -> str:
    """Numbers as ranges: "0 to 3, 5, 7 to 9"."""
    runs: list[list[int]] = []
    for index in sorted(episodes):
        if runs and index == runs[-1][-1] + 1:
            runs[-1][1:] = [index]
        else:
            runs.append([index])
    return ", ".join(" to ".join(map(str, run)) for run in runs) or "none"


def folded(findings: Iterable[Finding]) -> list[str]:
    """One line per kind of finding, for those that differ only in the episode and in numbers other than the channel:
    the first of them, and the episodes of the others.
    """
    kinds: dict[tuple[str, str], list[Finding]] = defaultdict(list)
    for finding in findings:
        kinds[finding.key, _NUMBER.sub(lambda match: match["channel"] or "#", finding.message)].append(finding)
    return [_fold(same) for same in kinds.values()]


def _fold(same: Sequence[Finding]) -> str:
    if len(same) == 1:
        return str(same[0])
    episodes = {finding.episode for finding in same if finding.episode is not None}
    where = f", in episodes {listed(episodes)}" if len(episodes) > 1 else ""
    return f"{same[0]} (and {len(same) - 1} more like it{where})"
