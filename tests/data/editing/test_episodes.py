"""Edits of which episodes there are and of their sentences: the others are as they were."""

import json
import shutil
from pathlib import Path

import pytest
from helpers.bimanual import HEAD, TASK, add_bimanual_episode
from helpers.edited import OTHER, assert_same_episode, assert_whole, contents, encoded
from helpers.small_dataset import TOP, make_small_dataset

from vla_policy.data import LeRobotDataset
from vla_policy.data.editing import (
    delete,
    divided,
    merge,
    parse_episodes,
    retask,
    revise,
    split,
)
from vla_policy.interfaces import InputError


def test_delete_leaves_the_others_as_they_were(dataset: LeRobotDataset, tmp_path: Path) -> None:
    before = contents(dataset.root)
    edited = delete(dataset.root, [0, 3], out=tmp_path / "new")
    assert (edited.episodes, edited.frames, edited.notes) == (4, 9 + 10 + 12 + 5, [])
    assert contents(dataset.root) == before
    new = assert_whole(tmp_path / "new")
    for number, index in enumerate([1, 2, 4, 5]):
        assert_same_episode(dataset, index, new, number)
    assert new.tasks == [TASK, OTHER]
    frames = sum(len(encoded(path)) for path in (new.root / "videos" / HEAD).rglob("*.mp4"))
    assert frames == edited.frames  # those of deleted episodes are gone
    (edit,) = json.loads((new.root / "meta/edits.json").read_text())
    assert edit["edit"] == "delete"
    assert edit["episodes"] == [0, 3]
    assert {path.name for path in tmp_path.iterdir()} == {"d", "new"}


def test_delete_in_place_keeps_what_it_does_not_know(dataset: LeRobotDataset, tmp_path: Path) -> None:
    kept = shutil.copytree(dataset.root, tmp_path / "kept")
    (dataset.root / "README.md").write_text("mine")
    (dataset.root / "data/chunk-000/notes.parquet").write_text("mine")
    delete(dataset.root, [5])
    delete(dataset.root, [1])
    new, old = assert_whole(dataset.root), LeRobotDataset(kept)
    for number, index in enumerate([0, 2, 3, 4]):
        assert_same_episode(old, index, new, number)
    assert new.tasks == [TASK]
    assert (new.root / "README.md").read_text() == "mine"
    assert (new.root / "data/chunk-000/notes.parquet").read_text() == "mine"
    assert [edit["episodes"] for edit in json.loads((new.root / "meta/edits.json").read_text())] == [[5], [1]]
    assert {path.name for path in tmp_path.iterdir()} == {"d", "kept"}
    assert not list(new.root.rglob("*.old"))
    add_bimanual_episode(new.root)
    assert_whole(new.root)


def test_split_by_numbers_and_merge_give_the_same_again(dataset: LeRobotDataset, tmp_path: Path) -> None:
    parts = split(dataset.root, tmp_path / "parts", {"a": [4, 0, 1], "b": [5, 2, 3]})
    assert {name: part.episodes for name, part in parts.items()} == {"a": 3, "b": 3}
    merge([tmp_path / "parts/b", tmp_path / "parts/a"], tmp_path / "merged")
    merged = assert_whole(tmp_path / "merged")
    for number, index in enumerate([2, 3, 5, 0, 1, 4]):
        assert_same_episode(dataset, index, merged, number)
    assert merged.interface == dataset.interface
    edits = json.loads((tmp_path / "merged/meta/edits.json").read_text())
    assert [(edit["edit"], edit.get("dataset")) for edit in edits] == [("split", "b"), ("split", "a"), ("merge", None)]
    assert edits[-1]["of"] == [["b", 3], ["a", 3]]


def test_shares_of_a_dataset_are_drawn_by_a_seed() -> None:
    parts = divided(range(10), {"train": 0.75, "val": 0.25}, seed=0)
    assert {name: len(part) for name, part in parts.items()} == {"train": 8, "val": 2}
    assert sorted(parts["train"] + parts["val"]) == list(range(10))
    assert divided(range(10), {"train": 0.75, "val": 0.25}, seed=0) == parts
    assert divided(range(10), {"train": 0.75, "val": 0.25}, seed=1) != parts
    thirds = divided(range(100), {"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}, seed=0)
    assert sum(map(len, thirds.values())) == 100
    assert len(divided(range(10), {"some": 0.3}, seed=0)["some"]) == 3
    for shares in ({"a": 0.0}, {"a": 0.8, "b": 0.3}, {"a": -1.0}, {"a": 0.99, "b": 0.01}):
        with pytest.raises(InputError, match=r"expected (shares above 0|a share)"):
            divided(range(10), shares, seed=0)


def test_numbers_and_ranges() -> None:
    assert parse_episodes("3, 7,10-12,11") == [3, 7, 10, 11, 12]
    assert parse_episodes("[0]") == [0]
    for text in ("", "a", "1,,2", "5-3", "-1", "1.5"):
        with pytest.raises(InputError, match="expected numbers and ranges"):
            parse_episodes(text)


def test_retask_all_some_or_a_sentence(dataset: LeRobotDataset) -> None:
    retask(dataset.root, "fold it", episodes=[1, 2])
    assert [assert_whole(dataset.root).episode(i).task for i in range(6)] == [
        TASK,
        "fold it",
        "fold it",
        *[TASK] * 2,
        OTHER,
    ]
    retask(dataset.root, "put it away", old=OTHER)
    new = assert_whole(dataset.root)
    assert new.episode(5).task == "put it away"
    assert new.tasks == [TASK, "fold it", "put it away"]
    films = {path.stat().st_ino for path in new.root.rglob("*.mp4")}
    retask(dataset.root, "all alike")
    assert assert_whole(dataset.root).tasks == ["all alike"]
    assert {path.stat().st_ino for path in new.root.rglob("*.mp4")} == films  # the very files


def test_several_changes_are_one_edit_of_the_dataset_that_is_meant(dataset: LeRobotDataset) -> None:
    def other() -> None:
        raise InputError("it is another one by now")

    before = contents(dataset.root)
    with pytest.raises(InputError, match="another one by now"):
        revise(dataset.root, {0: "fold it"}, [1], other)
    with pytest.raises(InputError, match="revise: expected episodes from 0 to 5, found 6"):
        revise(dataset.root, {6: "fold it"}, [1])
    assert contents(dataset.root) == before
    revise(dataset.root, {0: "fold it", 4: "put it away"}, [1, 2])
    new = assert_whole(dataset.root)
    assert [new.episode(i).task for i in new.episodes] == ["fold it", TASK, "put it away", OTHER]
    (edit,) = json.loads((dataset.root / "meta/edits.json").read_text())
    assert (edit["tasks"], edit["deleted"]) == ({"0": "fold it", "4": "put it away"}, [1, 2])


def test_datasets_that_do_not_fit_are_not_merged(tmp_path: Path) -> None:
    one = make_small_dataset(tmp_path / "one", episodes=1, length=4).root
    for name, changes, says in [
        ("slow", {"fps": 5}, "expected fps as in .*, 10, found 5"),
        ("blind", {"cameras": ()}, f"expected {TOP} as in .*, found none"),
        ("large", {"size": 64}, rf"expected {TOP} as in .*32, 32, 3.*64, 64, 3"),
    ]:
        other = make_small_dataset(tmp_path / name, episodes=1, length=4, **changes).root
        with pytest.raises(InputError, match=f"{other}: {says}"):
            merge([one, other], tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
