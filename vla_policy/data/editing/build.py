"""Builds an edited dataset in a folder: videos, rows, statistics and metadata of the episodes of a plan."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby
from pathlib import Path

from vla_policy.data.editing.about import write_about
from vla_policy.data.editing.meta import Records
from vla_policy.data.editing.plan import Plan
from vla_policy.data.editing.rows import DataFiles, counters, edited_rows
from vla_policy.data.editing.stats import episode_stats
from vla_policy.data.editing.videos import Clip, write_videos
from vla_policy.data.format.index import read_stats
from vla_policy.data.format.parquet import read_parquet
from vla_policy.data.writing.compare import rows_of

Progress = Callable[[Sequence[str]], Iterable[str]]  # shows that a list is gone through


@dataclass
class Built:
    """What is in the new folder: the `sentences` of each episode's frames, the clips of each video feature by its old
    name, and `notes` for the user.
    """

    sentences: list[list[str]] = field(default_factory=list)
    clips: dict[str, list[Clip]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def build(plan: Plan, out: Path, first: int, copy: Callable[[Path, Path], object], progress: Progress) -> Built:
    """Write the dataset of a plan to the folder `out`, its data and videos in files numbered from `first` on; `copy`
    takes over a whole file.
    """
    built = Built()
    for key in progress(list(plan.videos)):
        built.clips[key] = write_videos(plan, key, out, first, copy, built.notes.append)
    tasks: dict[str, int] = {}
    records, read = Records(plan), lru_cache(2)(read_parquet)  # episodes are read in order
    stored = {dataset: read_stats(dataset.root, dataset.info) for dataset in plan.datasets}
    with DataFiles(out, first) as files:
        for number, _ in enumerate(progress([f"episode {number}" for number in range(len(plan.parts))])):
            part = plan.parts[number]
            episode = part.dataset.episode(part.index, finite=False)  # what is not may be what is dropped
            sentences = [part.sentences.get(task, task) for task in episode.tasks]
            numbers = [tasks.setdefault(task, len(tasks)) for task in sentences]
            counted = counters(number, records.frames, numbers)
            rows = rows_of(read(part.dataset.records[part.index].data), part.index)
            file = files.write(edited_rows(plan, rows, episode, counted))
            stats = episode_stats(plan, part, episode, counted, stored[part.dataset].get(part.index, {}))
            records.add(sentences, file, {key: clips[number] for key, clips in built.clips.items()}, stats)
            built.sentences.append(sentences)
    records.write(out, list(tasks))
    write_about(plan, out, {n: _joined(built.sentences[n]) for n, part in enumerate(plan.parts) if part.sentences})
    return built


def _joined(sentences: Sequence[str]) -> str:
    """The sentence of an episode, or the distinct ones in order."""
    return ", then ".join(task for task, _ in groupby(sentences))
