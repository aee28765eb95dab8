"""Broken contracts: whatever stands in the file is a contract or one `InputError`."""

from __future__ import annotations

import copy
import importlib.util
import math
import random
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from vla_policy.interfaces import InputError
from vla_policy.robot.contract import load_contract

CONFIG = Path(__file__).parents[2] / "config"
NAMES = ["so101", "so101_lerobot", "bi_so101", "xarm6", "xarm6_gripper", "pusht_sim"]
NAMES += ["xarm6_joints"] if importlib.util.find_spec("pink") else []
VALUES: list[Any] = [
    *(
        None,
        True,
        0,
        5,
        -1,
        1.5,
        10**30,
        10**400,
        math.nan,
        math.inf,
        -0.0,
        "",
        " ",
        "x",
        "\x00",
        "~",
        "a b",
        "1",
        "ä" * 5000,
    ),
    *([], {}, [None], [1, 2], [[1, 2]], [{}], ["a"] * 3, ["rad"] * 6, ["x", "y"], {"a": 1}, {None: 1}, {1: {2: [3]}}),
    *("../../etc/passwd", "/", "/dev/null", "geometry_msgs/msg/PoseStamped", "sensor_msgs/msg/CompressedImage"),
    *([0, 0, 0, 0], [10**9] * 3, [math.nan] * 6, [[]] * 6, {"gripper": {"message": [0, 0], "interface": [1, 2]}}),
]
TEXTS = [
    *(
        "",
        "---",
        "- 1",
        "5",
        "a: b: c",
        "a: [",
        "? ",
        "!!python/object:os.system x",
        "!!timestamp x",
        "!!int x",
        "!!bool x",
    ),
    *(
        "a: &a [*a]",
        "&a {a: *a}",
        "[" * 3000,
        "{a: " * 3000,
        "a: 2024-99-99",
        "!!binary x",
        "a: !!float x",
        "<<: 5",
        "\t",
        "a: 1\na: 2",
    ),
    *("a: &x [1]\nb: *y", "? [1, 2]\n: 3", "%YAML 9.9\n---\n", "a: " + "9" * 5000, "x" * 70000),
]


def places(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something stands in nested mappings and lists."""
    entries = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in entries:
        yield (*path, key)
        yield from places(value, (*path, key))


def mutate(data: Any, rng: random.Random) -> None:
    """Replace, remove, rename or repeat one thing."""
    path = rng.choice(list(places(data)))
    place = data
    for key in path[:-1]:
        place = place[key]
    key, how = path[-1], rng.random()
    if how < 0.7:
        place[key] = copy.deepcopy(rng.choice(VALUES))
    elif how < 0.8:
        del place[key]
    elif isinstance(place, dict):
        place[rng.choice(["other", 5, None, "topic"])] = place.pop(key) if how < 0.9 else place[key]
    else:
        place.append(copy.deepcopy(place[key]))


def load(file: Path) -> None:
    try:
        contract = load_contract(file)
    except InputError as error:
        message = str(error)
        assert message.startswith(str(file)), message
        assert "\n" not in message, message
        assert len(message) < 3000, message
    else:
        assert np.isfinite([contract.command.low, contract.command.high, contract.command.speed]).all()


@pytest.mark.parametrize("name", NAMES)
def test_broken_contracts_are_refused_in_one_line(name: str, tmp_path: Path) -> None:
    whole = yaml.safe_load((CONFIG / f"{name}.yaml").read_text())
    file, rng = tmp_path / "robot.yaml", random.Random(name)
    for _ in range(80):
        data = copy.deepcopy(whole)
        for _ in range(rng.choice([1, 1, 1, 3])):
            mutate(data, rng)
        with suppress(ValueError):  # an int too long to be written
            file.write_text(yaml.dump(data))
            load(file)


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_an_invalid_contract_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "robot.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=r"robot\.yaml: "):
        load_contract(file)
    load(file)


def test_broken_bytes_are_refused(tmp_path: Path) -> None:
    whole, rng = (CONFIG / "xarm6_gripper.yaml").read_bytes(), np.random.default_rng(0)
    file = tmp_path / "robot.yaml"
    for _ in range(60):
        data = bytearray(whole[: rng.integers(len(whole))] if rng.random() < 0.3 else whole)
        for place in rng.integers(0, len(data) + 1, 3):
            data[place : place + 1] = rng.bytes(rng.integers(3))
        file.write_bytes(bytes(data))
        load(file)


def test_names_that_are_no_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.yaml").mkdir()
    for name in ("nowhere", "a" * 5000, "\x00", "", str(tmp_path / "folder.yaml")):
        with pytest.raises(InputError, match="config: expected a"):
            load_contract(name)


@pytest.mark.parametrize(
    ("constants", "message"),
    [
        ({"z": "abc"}, "constants: z: expected a finite number, found 'abc'"),
        ({"z": math.nan}, "constants: z: expected a finite number, found nan"),
        ({"qx": 0.0}, "constants: expected qx, qy, qz, qw of a quaternion of length 1, found"),
        ({"qx": 2.0}, "constants: expected qx, qy, qz, qw of a quaternion of length 1, found"),
        ({"x": 0.3}, r"constants: expected none of the fields, found \['x'\]"),
        ({"roll": 0.3}, r"constants: expected some of \['x', 'y'"),
    ],
)
def test_constants_are_a_pose(constants: dict, message: str, tmp_path: Path) -> None:
    data = yaml.safe_load((CONFIG / "xarm6.yaml").read_text())
    data["action"]["constants"] |= constants
    file = tmp_path / "robot.yaml"
    file.write_text(yaml.safe_dump(data))
    with pytest.raises(InputError, match=rf"robot\.yaml: action: {message}"):
        load_contract(file)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("names", 3, "action: names: expected a list of texts, found 3"),
        ("topic", 5, "action: topic: expected a topic such as /joint_states, found 5"),
        ("units", [1.5, "m"], r"action: units: expected 2 units, one a name, found \[1.5, 'm'\]"),
        ("rate", "fast", "action: rate: expected a number above 0, found 'fast'"),
        ("low", [0, math.nan], r"action: low: expected 2 finite numbers, found \[0, nan\]"),
    ],
)
def test_values_of_other_types_are_named(key: str, value: Any, message: str, tmp_path: Path) -> None:
    data = yaml.safe_load((CONFIG / "xarm6.yaml").read_text())
    data["action"][key] = value
    file = tmp_path / "robot.yaml"
    file.write_text(yaml.dump(data))
    with pytest.raises(InputError, match=message):
        load_contract(file)
