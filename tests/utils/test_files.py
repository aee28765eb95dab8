"""Atomic files: JSON that every reader takes, tables, nothing left behind by a failure."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from vla_policy.utils.files import read_json, write_csv, write_json, write_whole


def test_json_is_standard_json(tmp_path: Path) -> None:
    """NaN and infinity are no JSON; other readers than Python's refuse them."""
    path = tmp_path / "made" / "found.json"
    write_json(path, {"a": float("nan"), 3: [np.float64("inf"), (1, np.int64(2))], "ok": np.bool_(True)})
    assert json.loads(path.read_text(), parse_constant=pytest.fail) == {"a": None, "3": [None, [1, 2]], "ok": True}
    assert read_json(path)["a"] is None


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    write_json(path, [1])
    with pytest.raises(TypeError):
        write_json(path, [object()])

    def half(temporary: Path) -> None:
        temporary.write_text("half of")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_whole(path, half)
    assert read_json(path) == [1]
    assert list(tmp_path.iterdir()) == [path]


def test_tables_read_back(tmp_path: Path) -> None:
    write_csv(tmp_path / "t.csv", ["x", "task"], [{"x": 0.1, "task": 'a "T", then'}, {"x": 1 / 3, "task": "é"}])
    with (tmp_path / "t.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(float(row["x"]), row["task"]) for row in rows] == [(0.1, 'a "T", then'), (1 / 3, "é")]
