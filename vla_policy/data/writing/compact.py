"""Merge the many small files of a LeRobotDataset v3.0 into few large ones.

The merged dataset is built beside the old one, compared with it row by row and frame by frame, and swapped in by
renaming, so that a kill at any moment leaves either the old or the new dataset complete. Files that no episode
references are kept unchanged.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from vla_policy.data.dataset import LeRobotDataset
from vla_policy.data.format import layout
from vla_policy.data.format.index import read_info
from vla_policy.data.format.layout import VideoSpan
from vla_policy.data.format.parquet import read_parquet, write_parquet
from vla_policy.data.format.video import merge_signature, read_header, remux
from vla_policy.data.writing.compare import require_same
from vla_policy.data.writing.journal import lock, next_file, require_counted
from vla_policy.data.writing.replace import episode_files, file_place, free_numbers, replaced, require_accounted
from vla_policy.interfaces import InputError
from vla_policy.utils.exchange import Exchange, link
from vla_policy.utils.files import write_whole


@dataclass(frozen=True)
class _Place:
    """Destination of a source file: number of the merged file, and its offset there in seconds of video."""

    file: int
    seconds: float = 0.0


def compact(
    root: str | Path,
    data_mb: float = layout.DATA_FILE_MB,
    video_mb: float = layout.VIDEO_FILE_MB,
    progress: Callable[[Sequence[str]], Iterable[str]] = iter,
) -> LeRobotDataset:
    """Merge data files up to `data_mb`, and videos, without re-encoding, up to `video_mb`; returns the result.

    Needs disk space for a second copy meanwhile. `InputError` for other versions than v3.0, a dataset whose records and
    files disagree (left unchanged), or while a writer holds the lock.
    """
    root = Path(root).resolve()
    Exchange(root).recover()
    _require_layout(root)
    with lock(root):
        dataset = LeRobotDataset(root)
        dataset.require_whole()
        require_counted(dataset)
        require_accounted(dataset)
        sources = {path for record in dataset.records.values() for path in episode_files(record)}
        with replaced(root, sources) as building:
            first = next_file(root)  # a reader that has the old dataset open must not find others in its files
            _build(dataset, building, first, data_mb * 2**20, video_mb * 2**20, progress)
            require_same(dataset, LeRobotDataset(building, strict=False), progress)
    return LeRobotDataset(root)


def _require_layout(root: Path) -> None:
    info = read_info(root)
    if info["codebase_version"] != "v3.0":
        raise InputError(f"{root}: expected a v3.0 dataset to compact, found {info['codebase_version']}")
    for key, usual in (("data_path", layout.DATA_PATH), ("video_path", layout.VIDEO_PATH)):
        if (info.get(key) or usual) != usual:
            raise InputError(f"{root / 'meta' / 'info.json'}: expected {key} {usual!r} to compact, found {info[key]!r}")


def _build(
    dataset: LeRobotDataset,
    out: Path,
    first: int,
    data_bytes: float,
    video_bytes: float,
    progress: Callable[[Sequence[str]], Iterable[str]],
) -> None:
    cameras = list(next(iter(dataset.records.values())).videos) if dataset.records else []
    places: dict[str, dict[Path, _Place]] = {}
    for key in progress(["data", *cameras]):
        if key == "data":
            sources = list(dict.fromkeys(record.data for record in dataset.records.values()))
            places[key] = _merge_data(sources, out, first, data_bytes)
        else:
            places[key] = _merge_videos(dataset, out, key, first, video_bytes)
    if dataset.records:
        number = next(free_numbers(out, layout.EPISODES_PATH))
        write_parquet(out / layout.EPISODES_PATH.format(**file_place(number)), _episodes(dataset, places, number))


def _merge_data(sources: Sequence[Path], out: Path, first: int, limit: float) -> dict[Path, _Place]:
    """Concatenate data files, keeping their row groups."""
    schemas = {path: str(pq.read_schema(path).remove_metadata()) for path in sources}
    places: dict[Path, _Place] = {}
    groups = _groups(sources, limit, schemas.__getitem__)
    for number, group in zip(free_numbers(out, layout.DATA_PATH, first=first), groups, strict=False):

        def write(temporary: Path, group: Sequence[Path] = group) -> None:
            with pq.ParquetWriter(temporary, pq.read_schema(group[0]), compression="snappy") as writer:
                for source in group:
                    with pq.ParquetFile(source) as file:
                        for row_group in range(file.num_row_groups):
                            writer.write_table(file.read_row_group(row_group).cast(writer.schema))

        _make(out / layout.DATA_PATH.format(**file_place(number)), group, write)
        places |= {path: _Place(number) for path in group}
    return places


def _merge_videos(dataset: LeRobotDataset, out: Path, key: str, first: int, limit: float) -> dict[Path, _Place]:
    """Merge videos that consist of exactly their episodes' frames; the others are kept as single files."""
    episodes: dict[Path, list[tuple[VideoSpan, int]]] = defaultdict(list)
    for record in dataset.records.values():
        episodes[record.videos[key].path].append((record.videos[key], record.length))
    signatures = {
        path: merge_signature(path) if _is_full(path, spans, dataset.fps) else str(path)
        for path, spans in episodes.items()
    }
    places = {}
    groups = _groups(episodes, limit, signatures.__getitem__)
    for number, group in zip(free_numbers(out, layout.VIDEO_PATH, key, first), groups, strict=False):

        def write(temporary: Path, group: Sequence[Path] = group) -> None:
            remux(temporary, group, dataset.fps)

        _make(out / layout.VIDEO_PATH.format(video_key=key, **file_place(number)), group, write)
        before = 0
        for path in group:
            places[path] = _Place(number, before / dataset.fps)
            before += sum(length for _, length in episodes[path])
    return places


def _is_full(path: Path, episodes: Sequence[tuple[VideoSpan, int]], fps: float) -> bool:
    """Whether the episodes' frames cover the whole video."""
    header, frames = read_header(path), 0
    for span, length in sorted(episodes, key=lambda episode: episode[0].start):
        if abs(span.start * fps - frames) > 0.01:
            return False
        frames += length
    return header.frames == frames and abs(header.start * fps) < 0.01 and abs(header.duration * fps - frames) < 0.25


def _make(path: Path, sources: Sequence[Path], write: Callable[[Path], object]) -> None:
    """Merge several sources by `write`; a single one is linked."""
    if len(sources) == 1:
        link(sources[0].resolve(), path)
    else:
        write_whole(path, write)


def _groups(sources: Iterable[Path], limit: float, signature: Callable[[Path], str]) -> Iterator[list[Path]]:
    """Consecutive files with one signature and at most `limit` bytes in total."""
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


def _episodes(dataset: LeRobotDataset, places: dict[str, dict[Path, _Place]], number: int) -> pa.Table:
    """The rows of all episodes for meta file `number`, referencing the merged files."""
    tables = [read_parquet(path) for path in dict.fromkeys(record.meta for record in dataset.records.values())]
    rows = pa.concat_tables(tables, promote_options="permissive").sort_by("episode_index")
    if rows["episode_index"].to_pylist() != dataset.episodes:
        raise InputError(
            f"{dataset.root / 'meta' / 'episodes'}: expected {dataset.num_episodes} rows, found {len(rows)}"
        )
    columns: dict[str, list[int] | list[float]] = {}
    data = [file_place(places["data"][record.data].file) for record in dataset.records.values()]
    for name, value in file_place(number).items():
        columns[f"data/{name}"] = [place[name] for place in data]
        columns[f"meta/episodes/{name}"] = [value] * len(data)
    for camera in places.keys() - {"data"}:
        spans = [record.videos[camera] for record in dataset.records.values()]
        moved = [places[camera][span.path] for span in spans]
        columns[f"videos/{camera}/chunk_index"] = [file_place(place.file)["chunk_index"] for place in moved]
        columns[f"videos/{camera}/file_index"] = [file_place(place.file)["file_index"] for place in moved]
        for name, times in (("from", [span.start for span in spans]), ("to", [span.stop for span in spans])):
            columns[f"videos/{camera}/{name}_timestamp"] = [
                time + place.seconds for time, place in zip(times, moved, strict=True)
            ]
    for name, values in columns.items():
        if name in rows.column_names:
            rows = rows.set_column(rows.column_names.index(name), name, pa.array(values))
    return rows
