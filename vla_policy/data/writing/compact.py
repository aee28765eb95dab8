"""Merge the many small files of a LeRobotDataset v3.0 into few large ones.

The merged dataset is built beside the old one, compared with it row by row and frame by frame, and swapped in by
renaming, so that a kill at any moment leaves either the old or the new dataset complete. Files that no episode
references are kept unchanged.
"""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vla_policy.data.dataset import LeRobotDataset
from vla_policy.data.format import layout
from vla_policy.data.format.index import read_info
from vla_policy.data.format.layout import EpisodeRecord, VideoSpan
from vla_policy.data.format.parquet import read_parquet, write_parquet
from vla_policy.data.format.video import merge_signature, read_header, remux
from vla_policy.data.writing.compare import require_same
from vla_policy.data.writing.journal import lock, require_counted
from vla_policy.interfaces import InputError
from vla_policy.utils.exchange import Exchange, link
from vla_policy.utils.files import sync, write_whole


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
    exchange = Exchange(root)
    exchange.recover()
    _require_layout(root)
    with lock(root):
        dataset = LeRobotDataset(root)
        dataset.require_whole()
        _require_accounted(dataset)
        sources = {path for record in dataset.records.values() for path in _files(record)}
        exchange.begin(sources)
        try:
            _copy_rest(root, exchange.building, sources)
            _build(dataset, exchange.building, data_mb * 2**20, video_mb * 2**20, progress)
            require_same(dataset, LeRobotDataset(exchange.building, strict=False), progress)
            _sync_folders(root, exchange.building)
        except BaseException:
            exchange.clean()
            raise
        exchange.swap()
    return LeRobotDataset(root)


def _files(record: EpisodeRecord) -> list[Path]:
    return [record.meta, record.data, *(span.path for span in record.videos.values())]


def _require_layout(root: Path) -> None:
    info = read_info(root)
    if info["codebase_version"] != "v3.0":
        raise InputError(f"{root}: expected a v3.0 dataset to compact, found {info['codebase_version']}")
    for key, usual in (("data_path", layout.DATA_PATH), ("video_path", layout.VIDEO_PATH)):
        if (info.get(key) or usual) != usual:
            raise InputError(f"{root / 'meta' / 'info.json'}: expected {key} {usual!r} to compact, found {info[key]!r}")


def _require_accounted(dataset: LeRobotDataset) -> None:
    """`InputError` unless every row of the data files belongs to an episode that references it and videos are known."""
    require_counted(dataset)
    lengths: dict[Path, dict[int, int]] = defaultdict(dict)
    cameras = next(iter(dataset.records.values())).videos.keys() if dataset.records else ()
    for record in dataset.records.values():
        if record.videos.keys() != cameras:
            raise InputError(f"{record.meta}: expected videos of {sorted(cameras)}, found {sorted(record.videos)}")
        lengths[record.data][record.index] = record.length
        for key in record.videos:
            record.span(key)
        for path in _files(record):
            if path.parent.resolve() != path.parent:
                raise InputError(f"{path.parent}: expected a folder of the dataset, found a link out of it")
    for path, expected in lengths.items():
        table = read_parquet(path, keep="episode_index".__eq__)
        if not table.num_columns:
            raise InputError(f"{path}: expected a column 'episode_index', found none")
        indices, counts = np.unique(table["episode_index"].to_numpy(), return_counts=True)
        found = dict(zip(indices.tolist(), counts.tolist(), strict=True))
        for index in sorted({*expected, *found}):
            if found.get(index, 0) != expected.get(index, 0):
                raise InputError(
                    f"{path}: expected {expected.get(index, 0)} rows of episode {index}, as in meta/episodes, found "
                    f"{found.get(index, 0)}"
                )


def _copy_rest(root: Path, out: Path, sources: set[Path]) -> None:
    """Copy all files but the merged ones, foreign files included."""
    for folder, folders, files in os.walk(root):
        inside = Path(folder).relative_to(root)
        if not folders and not files:
            (out / inside).mkdir(parents=True, exist_ok=True)
        for name in [*folders, *files]:
            path = Path(folder, name)
            if path not in sources and (path.is_symlink() or not path.is_dir()):
                link(path, out / inside / name)


def _build(
    dataset: LeRobotDataset,
    out: Path,
    data_bytes: float,
    video_bytes: float,
    progress: Callable[[Sequence[str]], Iterable[str]],
) -> None:
    cameras = list(next(iter(dataset.records.values())).videos) if dataset.records else []
    places: dict[str, dict[Path, _Place]] = {}
    for key in progress(["data", *cameras]):
        if key == "data":
            sources = list(dict.fromkeys(record.data for record in dataset.records.values()))
            places[key] = _merge_data(sources, out, data_bytes)
        else:
            places[key] = _merge_videos(dataset, out, key, video_bytes)
    if dataset.records:
        number = next(_free(out, layout.EPISODES_PATH))
        write_parquet(out / layout.EPISODES_PATH.format(**_numbers(number)), _episodes(dataset, places, number))


def _merge_data(sources: Sequence[Path], out: Path, limit: float) -> dict[Path, _Place]:
    """Concatenate data files, keeping their row groups."""
    schemas = {path: str(pq.read_schema(path).remove_metadata()) for path in sources}
    places: dict[Path, _Place] = {}
    groups = _groups(sources, limit, schemas.__getitem__)
    for number, group in zip(_free(out, layout.DATA_PATH), groups, strict=False):

        def write(temporary: Path, group: Sequence[Path] = group) -> None:
            with pq.ParquetWriter(temporary, pq.read_schema(group[0]), compression="snappy") as writer:
                for source in group:
                    with pq.ParquetFile(source) as file:
                        for row_group in range(file.num_row_groups):
                            writer.write_table(file.read_row_group(row_group).cast(writer.schema))

        _make(out / layout.DATA_PATH.format(**_numbers(number)), group, write)
        places |= {path: _Place(number) for path in group}
    return places


def _merge_videos(dataset: LeRobotDataset, out: Path, key: str, limit: float) -> dict[Path, _Place]:
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
    for number, group in zip(_free(out, layout.VIDEO_PATH, key), groups, strict=False):

        def write(temporary: Path, group: Sequence[Path] = group) -> None:
            remux(temporary, group, dataset.fps)

        _make(out / layout.VIDEO_PATH.format(video_key=key, **_numbers(number)), group, write)
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


def _free(out: Path, template: str, key: str = "") -> Iterator[int]:
    """Unused file numbers."""
    for number in range(layout.CHUNKS_SIZE**2):
        if not os.path.lexists(out / template.format(video_key=key, **_numbers(number))):
            yield number


def _numbers(number: int) -> dict[str, int]:
    chunk, file = divmod(number, layout.CHUNKS_SIZE)
    return {"chunk_index": chunk, "file_index": file}


def _episodes(dataset: LeRobotDataset, places: dict[str, dict[Path, _Place]], number: int) -> pa.Table:
    """The rows of all episodes for meta file `number`, referencing the merged files."""
    tables = [read_parquet(path) for path in dict.fromkeys(record.meta for record in dataset.records.values())]
    rows = pa.concat_tables(tables, promote_options="permissive").sort_by("episode_index")
    if rows["episode_index"].to_pylist() != dataset.episodes:
        raise InputError(
            f"{dataset.root / 'meta' / 'episodes'}: expected {dataset.num_episodes} rows, found {len(rows)}"
        )
    columns: dict[str, list[int] | list[float]] = {}
    data = [_numbers(places["data"][record.data].file) for record in dataset.records.values()]
    for name, value in _numbers(number).items():
        columns[f"data/{name}"] = [place[name] for place in data]
        columns[f"meta/episodes/{name}"] = [value] * len(data)
    for camera in places.keys() - {"data"}:
        spans = [record.videos[camera] for record in dataset.records.values()]
        moved = [places[camera][span.path] for span in spans]
        columns[f"videos/{camera}/chunk_index"] = [_numbers(place.file)["chunk_index"] for place in moved]
        columns[f"videos/{camera}/file_index"] = [_numbers(place.file)["file_index"] for place in moved]
        for name, times in (("from", [span.start for span in spans]), ("to", [span.stop for span in spans])):
            columns[f"videos/{camera}/{name}_timestamp"] = [
                time + place.seconds for time, place in zip(times, moved, strict=True)
            ]
    for name, values in columns.items():
        if name in rows.column_names:
            rows = rows.set_column(rows.column_names.index(name), name, pa.array(values))
    return rows


def _sync_folders(root: Path, out: Path) -> None:
    """Sync all folders, with the permissions of the original ones."""
    for folder, _, _ in os.walk(out):
        before = root / Path(folder).relative_to(out)
        if before.is_dir():
            shutil.copystat(before, folder)
        sync(Path(folder))
