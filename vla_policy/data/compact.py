"""Merge the many small files of a LeRobotDataset v3.0 into few large ones.

The merged dataset is built beside the old one and takes its place by renaming, so that a kill at any moment leaves the
old or the new dataset, whole.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from vla_policy.data import layout
from vla_policy.data.dataset import LeRobotDataset
from vla_policy.data.files import Neighbours, read_parquet, sync, write_parquet, write_whole
from vla_policy.data.index import video_keys
from vla_policy.data.leftovers import LOCK, lock, remove_leftovers
from vla_policy.data.video import merge_signature, remux
from vla_policy.interfaces import InputError

REWRITTEN = {"data", "videos", ".cache", LOCK}  # of the dataset's folder; everything else is copied


@dataclass(frozen=True)
class _Place:
    """Where a source file went: number of the merged file, and seconds of video before it there."""

    file: int
    seconds: float = 0.0


def compact(
    root: str | Path,
    data_mb: float = layout.DATA_FILE_MB,
    video_mb: float = layout.VIDEO_FILE_MB,
    progress: Callable[[Sequence[str]], Iterable[str]] = iter,
) -> LeRobotDataset:
    """Merge data files up to `data_mb` and videos, without encoding them again, up to `video_mb`; returns the result.

    Needs the space of a second copy while it works. `InputError` for other versions than v3.0, a broken dataset, or
    while a writer is at work.
    """
    root = Path(root).resolve()
    dataset = LeRobotDataset(root)
    if dataset.info["codebase_version"] != "v3.0":
        raise InputError(f"{root}: expected a v3.0 dataset to compact, found {dataset.info['codebase_version']}")
    with lock(root):
        dataset = LeRobotDataset(root)  # as it is now that nobody writes
        dataset.require_whole()
        remove_leftovers(dataset)
        beside = Neighbours(root)
        try:
            _build(dataset, beside.building, data_mb * 2**20, video_mb * 2**20, progress)
            beside.building.rename(beside.ready)
        finally:
            shutil.rmtree(beside.building, ignore_errors=True)
        beside.exchange()
    return LeRobotDataset(root)


def _build(
    dataset: LeRobotDataset,
    out: Path,
    data_bytes: float,
    video_bytes: float,
    progress: Callable[[Sequence[str]], Iterable[str]],
) -> None:
    cameras = video_keys(dataset.info)
    _copy_rest(dataset.root, out)
    places: dict[str, dict[Path, _Place]] = {}
    for key in progress(["data", *cameras]):
        if key == "data":
            sources = list(dict.fromkeys(record.data for record in dataset.records))
            places[key] = _merge_data(sources, out, data_bytes)
        else:
            sources = list(dict.fromkeys(record.videos[key].path for record in dataset.records))
            places[key] = _merge_videos(sources, out, key, video_bytes, dataset.fps)
    if dataset.records:
        write_parquet(out / layout.EPISODES_PATH.format(chunk_index=0, file_index=0), _episodes(dataset, places))
    sync(out)


def _copy_rest(root: Path, out: Path) -> None:
    """Everything but the files that are merged, so that what others keep in a dataset stays in it."""
    out.mkdir(parents=True)
    for path in root.iterdir():
        if path.name == "meta":
            shutil.copytree(path, out / "meta", ignore=shutil.ignore_patterns("episodes"))
        elif path.is_dir() and path.name not in REWRITTEN:
            shutil.copytree(path, out / path.name, symlinks=True)
        elif path.name not in REWRITTEN:
            shutil.copy2(path, out / path.name, follow_symlinks=False)
    for path in (out / "meta").iterdir():
        sync(path)


def _merge_data(sources: Sequence[Path], out: Path, limit: float) -> dict[Path, _Place]:
    """One row group an episode, or whatever row groups the sources have."""
    schemas = {path: str(pq.read_schema(path).remove_metadata()) for path in sources}
    places: dict[Path, _Place] = {}
    for number, group in enumerate(_groups(sources, limit, schemas.__getitem__)):

        def write(temporary: Path, group: Sequence[Path] = group) -> None:
            with pq.ParquetWriter(temporary, pq.read_schema(group[0]), compression="snappy") as writer:
                for source in group:
                    with pq.ParquetFile(source) as file:
                        for row_group in range(file.num_row_groups):
                            writer.write_table(file.read_row_group(row_group).cast(writer.schema))

        write_whole(out / layout.DATA_PATH.format(**_numbers(number)), write)
        places |= {path: _Place(number) for path in group}
    return places


def _merge_videos(sources: Sequence[Path], out: Path, key: str, limit: float, fps: float) -> dict[Path, _Place]:
    places = {}
    for number, group in enumerate(_groups(sources, limit, merge_signature)):
        lengths: list[int] = []

        def write(temporary: Path, group: Sequence[Path] = group, lengths: list[int] = lengths) -> None:
            lengths += remux(temporary, group, fps)

        write_whole(out / layout.VIDEO_PATH.format(video_key=key, **_numbers(number)), write)
        for i, path in enumerate(group):
            places[path] = _Place(number, sum(lengths[:i]) / fps)
    return places


def _groups(sources: Iterable[Path], limit: float, signature: Callable[[Path], str]) -> Iterator[list[Path]]:
    """Neighbouring files that fit together and into `limit` bytes."""
    group: list[Path] = []
    size = 0
    for path in sources:
        own = path.stat().st_size
        if group and (size + own > limit or signature(path) != signature(group[0])):
            yield group
            group, size = [], 0
        group.append(path)
        size += own
    if group:
        yield group


def _numbers(number: int) -> dict[str, int]:
    chunk, file = divmod(number, layout.CHUNKS_SIZE)
    return {"chunk_index": chunk, "file_index": file}


def _episodes(dataset: LeRobotDataset, places: dict[str, dict[Path, _Place]]) -> pa.Table:
    """The rows of all episodes, pointing into the merged files."""
    tables = [read_parquet(path) for path in dict.fromkeys(record.meta for record in dataset.records)]
    rows = pa.concat_tables(tables, promote_options="permissive").sort_by("episode_index")
    columns: dict[str, list[int] | list[float]] = {}
    data = [_numbers(places["data"][record.data].file) for record in dataset.records]
    for key in ("chunk_index", "file_index"):
        columns[f"data/{key}"] = [place[key] for place in data]
        columns[f"meta/episodes/{key}"] = [0] * len(data)
    for camera in video_keys(dataset.info):
        spans = [record.videos[camera] for record in dataset.records]
        moved = [places[camera][span.path] for span in spans]
        starts = [span.start + place.seconds for span, place in zip(spans, moved, strict=True)]
        columns[f"videos/{camera}/chunk_index"] = [_numbers(place.file)["chunk_index"] for place in moved]
        columns[f"videos/{camera}/file_index"] = [_numbers(place.file)["file_index"] for place in moved]
        columns[f"videos/{camera}/from_timestamp"] = starts
        columns[f"videos/{camera}/to_timestamp"] = [
            start + record.length / dataset.fps for start, record in zip(starts, dataset.records, strict=True)
        ]
    for name, values in columns.items():
        rows = rows.set_column(rows.column_names.index(name), name, pa.array(values))
    return rows
