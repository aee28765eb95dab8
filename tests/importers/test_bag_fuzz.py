"""Bags that something broke: whatever it was, an `InputError` names it, or the bag is read."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.damage import DAMAGES, damaged
from helpers.ros_bags import (
    EPOCH,
    JOINTS,
    TRAJECTORIES,
    contract_of,
    joint_messages,
    trajectory_message,
    type_store,
    write_mcap,
    write_rosbag,
)

from vla_policy.importers.bag_episode import read_episode
from vla_policy.interfaces import InputError
from vla_policy.robot.bags import find_bags
from vla_policy.robot.contract import Contract

CASES = 60  # of each kind


def broken(data: bytes, rng: random.Random) -> bytes:
    """Of a short message much is left: nearly all of a larger damage is the same to it."""
    at, how = rng.randrange(len(data)), rng.choice([*(DAMAGES if len(data) > 300 else ["truncated", "bits"]), "ones"])
    if how == "ones":
        return data[:at] + b"\xff" * len(data[at : at + 8]) + data[at + 8 :]
    return damaged(data, how, at, rng)


def read(path: Path, contract: Contract) -> bool:
    """Whether all of it could be read."""
    try:
        for bag in find_bags(path):
            for frames in read_episode(bag, contract).images.values():
                list(frames)
    except InputError:
        return False
    return True


def spoil_a_file(folder: Path, rng: random.Random) -> None:
    file = rng.choice(sorted(path for path in folder.rglob("*") if path.is_file()))
    file.write_bytes(broken(file.read_bytes(), rng))


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(lambda path: write_mcap(path / "a.mcap", joint_messages(0.5)), id="mcap"),
        pytest.param(lambda path: write_rosbag(path, joint_messages(0.5), "MCAP", "STORAGE"), id="mcap-chunks"),
        pytest.param(lambda path: write_rosbag(path, joint_messages(0.5), "MCAP", "FILE"), id="mcap-file"),
        pytest.param(lambda path: write_rosbag(path, joint_messages(0.5), "SQLITE3"), id="sqlite3"),
        pytest.param(lambda path: write_rosbag(path, joint_messages(0.5), "SQLITE3", "MESSAGE"), id="sqlite3-messages"),
    ],
)
def test_broken_files(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    rng, contract = random.Random(0), contract_of(tmp_path, JOINTS)
    write(tmp_path / "whole")
    assert read(tmp_path / "whole", contract)
    found = []
    for _ in range(CASES):
        shutil.copytree(tmp_path / "whole", tmp_path / "bag")
        spoil_a_file(tmp_path / "bag", rng)
        found.append(read(tmp_path / "bag", contract))
        shutil.rmtree(tmp_path / "bag")
    assert not all(found)


def test_broken_messages_in_whole_files(tmp_path: Path) -> None:
    """One message is spoilt, or one type is another one or not said."""
    rng, store = random.Random(0), type_store()
    told = [trajectory_message(EPOCH + k / 10, {0.1: (k, 0), 0.2: (k, 1)}) for k in range(5)]
    messages = [
        m._replace(content=bytes(store.serialize_cdr(m.content, m.type)))
        for m in sorted([*joint_messages(0.5), *told], key=lambda m: m.t)
    ]
    contracts = [contract_of(tmp_path, JOINTS), contract_of(tmp_path, TRAJECTORIES)]
    found = []
    for case in range(2 * CASES):
        spoilt, k = list(messages), rng.randrange(len(messages))
        spoilt[k] = messages[k]._replace(content=broken(messages[k].content, rng))
        if case % 4 == 0:
            other = rng.choice(messages).type
            spoilt = [m._replace(type=other) if m.type == messages[k].type else m for m in messages]
        found.append(read(write_mcap(tmp_path / f"{case}.mcap", spoilt), contracts[case % 2]))
    assert not all(found)
