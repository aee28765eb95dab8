"""Open many mutated datasets: fuzz_datasets.py FOLDER COUNT SEED, with a dataset at FOLDER/v30; prints JSON at the end.

In a process of its own, with bounded memory, and with a bounded time for each dataset.
"""

import json
import random
import resource
import shutil
import signal
import sys
import traceback
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from helpers.damage import DAMAGES, damaged
from helpers.plain_dataset import write_plain_dataset

from vla_policy.data import LeRobotDataset, WindowDataset
from vla_policy.data.inspection import inspect
from vla_policy.data.rendering import save_frame
from vla_policy.interfaces import InputError

MEMORY = 6 * 2**30  # bytes of address space beyond what is taken at the start
SECONDS = 10  # for one dataset; it takes some 50 ms
VALUES: list[Any] = [
    None, 0, -1, 1, 10**9, 2**63, 10**400, 1e308, float("nan"), float("inf"), "", "x", "../../x", "/etc/passwd",
    [], {}, [None], {"a": 1}, True, ["a", "b"], "\u0000", "\ud800", "{chunk_index}", "{0.__class__}",
    "{chunk_index:099999999d}", [-1, -1], [10**6, 10**6, 3], [2**40], "video", "image", "float32", "int64",
    "v2.1", [[[[[[["deep"]]]]]]],
]  # fmt: skip


class TooSlow(Exception):
    pass


def places(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [place for key, value in items for place in ((*path, key), *places(value, (*path, key)))]


def mutate_value(rng: random.Random, data: Any) -> str:
    place = rng.choice(places(data))
    holder = data
    for key in place[:-1]:
        holder = holder[key]
    if rng.random() < 0.2 and isinstance(holder, dict):
        del holder[place[-1]]
        return f"without {place}"
    holder[place[-1]] = rng.choice(VALUES)
    return f"{place} = {holder[place[-1]]!r:.40}"


def mutate_json(rng: random.Random, path: Path) -> str:
    lines = path.suffix == ".jsonl"
    data = [json.loads(line) for line in path.read_text().splitlines()] if lines else json.loads(path.read_text())
    what = "nested" if rng.random() < 0.05 else mutate_value(rng, data)
    text = "\n".join(map(json.dumps, data)) if lines else json.dumps(data)
    path.write_text("[" * 100_000 if what == "nested" else text)
    return what


def mutate_bytes(rng: random.Random, path: Path) -> str:
    data = path.read_bytes()
    how, place = rng.choice([*DAMAGES, "gone"]), rng.randrange(max(1, len(data)))
    if how == "gone":
        path.unlink()
        return how
    path.write_bytes(damaged(data, how, place, rng))
    return f"{how} at {place}"


def mutate_column(rng: random.Random, path: Path) -> str:
    table = pq.read_table(path)
    name = rng.choice(table.column_names)
    number, count = table.column_names.index(name), len(table)
    how = rng.choice(
        ["gone", "null", "text", "huge", "negative", "nan", "list", "twice", "short", "struct", "reversed"]
    )
    new: dict[str, Any] = {
        "null": pa.nulls(count),
        "text": pa.array(["x"] * count),
        "huge": pa.array([2**62] * count),
        "negative": pa.array([-7] * count),
        "nan": pa.array([float("nan")] * count),
        "list": pa.array([[1.0] * (i % 3) for i in range(count)]),
        "struct": pa.array([{"bytes": b"x", "path": None}] * count),
        "reversed": table.column(number).take(pa.array(range(count - 1, -1, -1))),
    }
    how = rng.choice(["gone", "twice", "short", *new])
    if how == "gone":
        table = table.remove_column(number)
    elif how == "twice":
        table = table.append_column(name, table.column(number))
    elif how == "short":
        table = table.slice(1)
    else:
        table = table.set_column(number, name, new[how])
    pq.write_table(table, path)
    return f"{name} {how}"


def mutate(rng: random.Random, root: Path) -> str:
    files = sorted(path for path in root.rglob("*") if path.is_file() and path.name != ".lock")
    kind = rng.choice(["json", "json", "bytes", "column"])
    suffixes = {"json": (".json", ".jsonl"), "column": (".parquet",), "bytes": ("",)}[kind]
    path = rng.choice([path for path in files if kind == "bytes" or path.suffix in suffixes])
    change = {"json": mutate_json, "bytes": mutate_bytes, "column": mutate_column}[kind]
    return f"{path.relative_to(root)}: {change(rng, path)}"


def use(root: Path, out: Path) -> str:
    """What a user does with a dataset: "read" or "refused"."""
    said = "read"
    for act in (
        lambda: inspect(LeRobotDataset(root, strict=False)),
        lambda: save_frame(LeRobotDataset(root), 1, 3, out),
        lambda: windows(LeRobotDataset(root), cache=True),
        lambda: windows(LeRobotDataset(root), cache=False),
    ):
        try:
            act()
        except InputError as error:
            said = "refused"
            if "\n" in str(error):
                raise AssertionError(f"several lines: {error}") from None
    return said


def windows(dataset: LeRobotDataset, cache: bool) -> None:
    data = WindowDataset(dataset, list(dataset.interface.observations), 2, 4, 2, cache=cache)
    data.__getitems__([0, len(data) - 1])


def too_slow(*_: object) -> None:
    raise TooSlow


def main(folder: Path, count: int, seed: int) -> None:
    warnings.simplefilter("ignore")
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, taken + MEMORY))
    signal.signal(signal.SIGALRM, too_slow)
    write_plain_dataset(folder / "v21")
    rng, tally, bad = random.Random(seed), Counter[str](), []
    for number in range(count):
        root = folder / "mutated"
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(folder / rng.choice(["v21", "v30"]), root)
        what = mutate(rng, root)
        signal.alarm(SECONDS)
        try:
            tally[use(root, folder / "out")] += 1
        except Exception as error:  # anything else is what is looked for
            place = traceback.extract_tb(error.__traceback__)[-1]
            bad.append(
                f"{number}, {what}: {type(error).__name__}: {str(error)[:120]} at {place.filename}:{place.lineno}"
            )
        finally:
            signal.alarm(0)
    print(json.dumps({"bad": bad, **{name: tally[name] for name in ("read", "refused")}}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
