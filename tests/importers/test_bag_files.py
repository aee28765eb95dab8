"""The files of bags: split, compressed, cut off, without metadata.yaml; and how much of them is in memory."""

from __future__ import annotations

import shutil
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
import zstandard
from helpers.ros_bags import (
    EPOCH,
    FRONT,
    JOINTS,
    Message,
    contract_of,
    cut,
    joint_messages,
    picture,
    write_mcap,
    write_rosbag,
)
from mcap.reader import NonSeekingReader
from mcap.writer import CompressionType, Writer

from vla_policy.cli.dataset import main as vla_dataset
from vla_policy.data import LeRobotDataset
from vla_policy.importers import bag_episode as bag_import
from vla_policy.importers.bag_episode import BagEpisode, bag_episode, read_episode
from vla_policy.interfaces import ACTION, IMAGES, STATE, InputError
from vla_policy.robot.bags import Bag, find_bags

CAMERA = IMAGES + "front"


def whole(episode: BagEpisode, frames: int = 20) -> None:
    assert [frame[0, 0, 0] for frame in episode.images[CAMERA]] == list(range(frames))
    np.testing.assert_allclose(episode.columns[STATE][:, 0], np.arange(frames) / 10, atol=1e-6)
    np.testing.assert_allclose(episode.columns[ACTION][:, 0], 100.09 + np.arange(frames) / 10, atol=0.011)


def split(folder: Path, suffix: str, names: tuple[str, str] = ("rec_0", "rec_1"), at: float = 1.0) -> Path:
    """Two seconds in two files without metadata.yaml."""
    storage = {".mcap": "MCAP", ".db3": "SQLITE3"}[suffix]
    messages = joint_messages()
    folder.mkdir(parents=True)
    parts = [m for m in messages if m.t < EPOCH + at], [m for m in messages if m.t >= EPOCH + at]
    for name, part in zip(names, parts, strict=True):
        (file,) = write_rosbag(folder.parent / "part", part, storage).glob(f"*{suffix}")
        file.rename(folder / f"{name}{suffix}")
        shutil.rmtree(folder.parent / "part")
    return folder


def metadata(folder: Path, files: list[str], **more: Any) -> None:
    text = yaml.safe_dump({"rosbag2_bagfile_information": {"relative_file_paths": files, **more}})
    (folder / "metadata.yaml").write_text(text)


@pytest.mark.parametrize(
    ("storage", "compression"),
    [*((storage, way) for storage in ("MCAP", "SQLITE3") for way in ("NONE", "MESSAGE", "FILE")), ("MCAP", "STORAGE")],
)
def test_compressed_bags(tmp_path: Path, storage: str, compression: str) -> None:
    bag, contract = write_rosbag(tmp_path / "a", joint_messages(), storage, compression), contract_of(tmp_path, JOINTS)
    whole(bag_episode(bag, contract))
    (bag / "metadata.yaml").unlink()  # single files say it as well
    (found,) = find_bags(bag)
    whole(read_episode(found, contract))


def test_a_compressed_file_without_its_end(tmp_path: Path) -> None:
    mcap, contract = write_mcap(tmp_path / "a.mcap", joint_messages()), contract_of(tmp_path, JOINTS)
    packed = tmp_path / "b.mcap.zstd"
    packed.write_bytes(zstandard.compress(mcap.read_bytes()))
    whole(bag_episode(packed, contract))
    assert bag_episode(packed, contract).ended
    cut(packed, 0.6, packed)  # by a kill while it was being compressed
    with pytest.raises(InputError, match="expected an MCAP file with messages, found EndOfFile"):
        bag_episode(packed, contract)
    packed.write_bytes(zstandard.compress(cut(mcap, 0.6, tmp_path / "c.mcap").read_bytes()))
    episode = bag_episode(packed, contract)
    assert 10 < episode.length < 15
    assert not episode.ended


@pytest.mark.parametrize("suffix", [".mcap", ".db3"])
def test_a_split_recording_without_metadata_is_one_episode_and_reported(
    tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = split(tmp_path / "bag", suffix)
    contract_of(tmp_path, JOINTS)
    for path in (folder, tmp_path):  # the folder itself, or that in which it lies
        out = tmp_path / f"out_{path.name}"
        vla_dataset(["import-bag", str(path), str(out), f"contract={tmp_path}/robot.yaml"])
        assert LeRobotDataset(out).lengths.tolist() == [20]
        said = capsys.readouterr().out.replace("\n", " ")
        assert f"metadata.yaml is missing, rec_0{suffix}, rec_1{suffix} read as one, each continues the last" in said


def test_files_are_read_in_order_of_time_not_of_names(tmp_path: Path) -> None:
    contract = contract_of(tmp_path, JOINTS)
    folder = split(tmp_path / "bag", ".mcap", ("rec_10", "rec_9"))
    (found,) = find_bags(folder)
    whole(read_episode(found, contract))
    metadata(folder, ["rec_9.mcap", "rec_10.mcap"])
    whole(bag_episode(folder, contract))


def test_files_that_do_not_continue_each_other_are_separate_bags_and_reported(tmp_path: Path) -> None:
    folder = tmp_path / "bags"
    for k in range(2):
        write_mcap(folder / f"rec_{k}.mcap", joint_messages(received=EPOCH + 3 * k, stamped=EPOCH + 3 * k))
    write_mcap(folder / "other_0.mcap", joint_messages())
    write_mcap(folder / "episode_000000.mcap", joint_messages())
    write_mcap(folder / "episode_000001.mcap", joint_messages(received=EPOCH + 2, stamped=EPOCH + 2))
    found = {bag.path.name: bag.notes() for bag in find_bags(folder)}
    alone = "metadata.yaml is missing, {} read by itself, none continues it"
    assert found == {
        "episode_000000.mcap": [],
        "episode_000001.mcap": [],
        "other_0.mcap": ["metadata.yaml is missing"],
        "rec_0.mcap": [alone.format("rec_0.mcap")],
        "rec_1.mcap": [alone.format("rec_1.mcap")],
    }


def test_episodes_that_all_begin_at_zero_are_not_one(tmp_path: Path) -> None:
    for k in range(2):
        write_mcap(tmp_path / f"demo_{k}.mcap", joint_messages(received=0.0, stamped=0.0))
    assert [len(bag.files) for bag in find_bags(tmp_path)] == [1, 1]


def test_a_recorder_killed_in_its_second_file(tmp_path: Path) -> None:
    """The second one of three has no end, the third one no message."""
    folder, contract = split(tmp_path / "bag", ".mcap"), contract_of(tmp_path, JOINTS)
    messages = [m for m in joint_messages() if m.t >= EPOCH + 1]
    plain = write_mcap(tmp_path / "plain.mcap", messages)
    cut(plain, 0.5, folder / "rec_1.mcap")
    (folder / "rec_2.mcap").touch()
    metadata(folder, ["rec_0.mcap", "rec_1.mcap", "rec_2.mcap"])
    episode = bag_episode(folder, contract)
    assert 13 <= episode.length <= 16
    assert "the end of the bag is missing" in episode.summary()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "relative_file_paths, a list of files, found TypeError"),
        ("a: [", "relative_file_paths, a list of files, found ParserError"),
        ("rosbag2_bagfile_information: {relative_file_paths: [rec_7.mcap]}", r"found \['rec_7.mcap'\]"),
        ("rosbag2_bagfile_information: {relative_file_paths: [3]}", "a list of files, found TypeError"),
        ("rosbag2_bagfile_information: {relative_file_paths: []}", r"beside it, .mcap or .db3, found \[\]"),
    ],
)
def test_empty_metadata_is_named(tmp_path: Path, text: str, message: str) -> None:
    folder = split(tmp_path / "bag", ".mcap")
    (folder / "metadata.yaml").write_text(text)
    with pytest.raises(InputError, match=r"bag/metadata\.yaml: expected .*" + message):
        bag_episode(folder, contract_of(tmp_path, JOINTS))


def test_files_that_metadata_does_not_list_are_named(tmp_path: Path) -> None:
    folder = split(tmp_path / "bag", ".mcap")
    metadata(folder, ["rec_0.mcap"])
    episode = bag_episode(folder, contract_of(tmp_path, JOINTS))
    assert episode.length == 10
    assert "rec_1.mcap not read, metadata.yaml does not list it" in episode.summary()


def test_a_folder_of_folders_without_metadata_is_named(tmp_path: Path) -> None:
    write_mcap(tmp_path / "interrupted" / "episode_000000.mcap", joint_messages(0.2))
    with pytest.raises(InputError, match=r"found none \(bag files without metadata.yaml are in interrupted: name such"):
        find_bags(tmp_path)


def test_a_bag_in_parts_is_known_by_what_it_holds(tmp_path: Path) -> None:
    folder = split(tmp_path / "bag", ".mcap")
    (found,) = find_bags(folder)
    digest = found.digest()
    (moved,) = find_bags(folder.rename(tmp_path / "elsewhere"))
    assert moved.digest() == digest
    assert Bag(moved.path).digest() != digest


def test_a_flipped_bit_in_a_picture_is_found(tmp_path: Path) -> None:
    """Where the file has a checksum, as chunks have."""
    plain, chunked = write_mcap(tmp_path / "a.mcap", joint_messages()), tmp_path / "b.mcap"
    with plain.open("rb") as file, chunked.open("wb") as out:
        writer = Writer(out, compression=CompressionType.NONE)
        writer.start("ros2")
        for schema, channel, message in NonSeekingReader(file).iter_messages():
            kind = writer.register_schema(schema.name, schema.encoding, schema.data)
            writer.add_message(
                writer.register_channel(channel.topic, "cdr", kind), message.log_time, message.data, message.log_time
            )
        writer.finish()
    contract = contract_of(tmp_path, JOINTS)
    whole(bag_episode(chunked, contract))
    data = bytearray(chunked.read_bytes())
    data[data.index(bytes([7] * 100)) + 50] ^= 1
    chunked.write_bytes(data)
    with pytest.raises(InputError, match=r"b.mcap: expected a whole bag, found a broken one \(CRCValidationError"):
        bag_episode(chunked, contract)


def test_pictures_in_memory_do_not_grow_with_the_bag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alive, most, decode = 0, 0, bag_import.decode

    def counted(*words: Any) -> np.ndarray:
        nonlocal alive, most
        frame = decode(*words)
        alive += 1
        most = max(most, alive)
        weakref.finalize(frame, gone)
        return frame

    def gone() -> None:
        nonlocal alive
        alive -= 1

    monkeypatch.setattr(bag_import, "decode", counted)
    held = []
    for seconds in (1.0, 4.0):
        most = 0
        bag = write_mcap(tmp_path / f"{seconds}.mcap", joint_messages(seconds))
        episode = bag_episode(bag, contract_of(tmp_path, JOINTS))
        assert sum(1 for _ in episode.images[CAMERA]) == episode.length == seconds * 10
        held.append(most)
    assert held[1] <= held[0] <= 3


def test_pictures_that_come_long_after_their_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bag that would have to be held in memory is refused, one with a few pictures in another order is not."""
    messages, contract = joint_messages(), contract_of(tmp_path, JOINTS)
    pictures = [m for m in messages if m.topic == FRONT]
    others = [m for m in messages if m.topic != FRONT]
    bag = write_mcap(tmp_path / "a.mcap", [*others, *reversed(pictures)])
    whole(bag_episode(bag, contract))
    monkeypatch.setattr(bag_import, "HELD", 10)
    with pytest.raises(InputError, match="front: expected images in order of time, found one behind 10 later ones"):
        list(bag_episode(bag, contract).images[CAMERA])


def test_a_picture_of_another_size_leaves_the_bag_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = picture(EPOCH + 1.0, 10)
    bad.height = 17
    messages = [
        m._replace(content=bad) if m.topic == FRONT and m.content.data[0] == 10 else m for m in joint_messages()
    ]
    write_mcap(tmp_path / "bags" / "a.mcap", messages)
    write_mcap(tmp_path / "bags" / "b.mcap", joint_messages(1.0))
    contract_of(tmp_path, JOINTS)
    with pytest.raises(SystemExit):
        vla_dataset(["import-bag", str(tmp_path / "bags"), str(tmp_path / "out"), f"contract={tmp_path}/robot.yaml"])
    assert "/front: expected 16 x 24 pixels, found 17 x 24" in capsys.readouterr().out
    assert LeRobotDataset(tmp_path / "out").lengths.tolist() == [10]


def test_messages_of_unknown_types_on_other_topics(tmp_path: Path) -> None:
    other = [Message(EPOCH + k / 10, "status", "std_msgs/msg/String", b"\xff\xff\xff") for k in range(5)]
    bag = write_mcap(tmp_path / "a.mcap", sorted([*other, *joint_messages()], key=lambda m: m.t))
    whole(bag_episode(bag, contract_of(tmp_path, JOINTS)))
