"""Several datasets as one: what their batches hold, and what they must agree on."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.small_dataset import TOP, WRIST, XY, make_small_dataset

from vla_policy.data import LeRobotDataset, MixedWindows, WindowDataset, common_interface
from vla_policy.interfaces import ACTION, STATE, Feature, InputError


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory: pytest.TempPathFactory) -> LeRobotDataset:
    root = tmp_path_factory.mktemp("mix") / "kitchen"
    return make_small_dataset(root, (TOP, WRIST), ("wash the cup", "push the T"), episodes=2)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> LeRobotDataset:
    root = tmp_path_factory.mktemp("mix") / "lab"
    return make_small_dataset(root, (TOP,), ("push the T", "open the drawer"), offset=10.0, episodes=4)


def mixed(datasets: list[LeRobotDataset], keys: list[str], weights: list[float] | None = None) -> MixedWindows:
    parts = [WindowDataset(d, [k for k in keys if k in d.interface.observations], 2, 4, 2) for d in datasets]
    return MixedWindows(parts, common_interface(datasets, keys, pad_cameras=True), weights)


def test_a_batch_has_every_sample_in_its_place(kitchen: LeRobotDataset, lab: LeRobotDataset) -> None:
    windows = mixed([kitchen, lab], [STATE, TOP])
    first, second = windows.parts
    assert len(windows) == len(first) + len(second)
    chosen = np.random.default_rng(0).permutation(len(windows))[:40]
    batch = windows.__getitems__(chosen)
    assert {0, 1} == {int(index >= len(first)) for index in chosen}
    for row, index in enumerate(chosen.tolist()):
        sample = first[index] if index < len(first) else second[index - len(first)]
        assert sample.keys() == batch.keys()
        assert sample["task"] == batch["task"][row]
        for key in (STATE, TOP, ACTION):
            assert sample[key].dtype == batch[key].dtype
            assert torch.equal(sample[key], batch[key][row])
    assert windows.vectors(chosen).keys() == batch.keys() - {TOP}
    assert torch.equal(windows.vectors(chosen)[ACTION], batch[ACTION])
    with pytest.raises(IndexError):
        windows[len(windows)]


def test_tasks_are_the_union_of_sentences_and_never_go_by_index(kitchen: LeRobotDataset, lab: LeRobotDataset) -> None:
    windows = mixed([kitchen, lab], [STATE])
    assert windows.tasks == ["wash the cup", "push the T", "open the drawer"]
    assert kitchen.tasks.index("push the T") != lab.tasks.index("push the T")
    batch = windows.__getitems__(range(len(windows)))
    from_lab = (batch[STATE][:, 0, 0] >= 10).tolist()
    said = {(where, task) for where, task in zip(from_lab, batch["task"], strict=True)}
    assert said == {
        (False, "wash the cup"), (False, "push the T"), (True, "push the T"), (True, "open the drawer"),
    }  # fmt: skip


def test_a_camera_that_a_dataset_lacks_is_black_there(kitchen: LeRobotDataset, lab: LeRobotDataset) -> None:
    windows = mixed([lab, kitchen], [STATE, WRIST, TOP])
    assert windows.interface.cameras == [WRIST, TOP]
    batch = windows.__getitems__(range(len(windows)))
    from_lab = batch[STATE][:, 0, 0] >= 10
    assert batch[WRIST].shape == batch[TOP].shape == (len(windows), 2, 32, 32, 3)
    assert batch[WRIST].dtype == torch.uint8
    assert not batch[WRIST][from_lab].any()
    assert batch[WRIST][~from_lab].flatten(1).any(1).all()
    assert batch[TOP].flatten(1).any(1).all()
    assert not windows.__getitems__([0, 1])[WRIST].any()  # samples of the lab alone


def test_a_missing_camera_is_refused_by_name(kitchen: LeRobotDataset, lab: LeRobotDataset) -> None:
    with pytest.raises(InputError, match=rf"{lab.root}: expected '{WRIST}', found .*missing_cameras=pad"):
        common_interface([kitchen, lab], [STATE, WRIST])
    for pad in (False, True):  # nobody knows its shape
        with pytest.raises(InputError, match=rf"{lab.root}: expected '{WRIST}', found \[.*'{STATE}'\]$"):
            common_interface([lab], [STATE, WRIST], pad)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"fps": 20}, "fps: expected 10, found 20"),
        ({"frame": "world"}, "frame: expected 'base', found 'world'"),
        ({"size": 64}, r"images\.top: shape expected \[32, 32, 3\], found \[64, 64, 3\]"),
        ({"action": Feature("float32", (1,))}, r"action: shape expected \[2\], found \[1\]"),
        ({"action": Feature("float32", (2,), ("x", "y"), ("mm", "mm"))}, r"action: units expected \['m', 'm'\]"),
        ({"action": Feature("float32", (2,), ("y", "x"), ("m", "m"))}, r"action: names expected \['x', 'y'\]"),
        ({"observations": {STATE: Feature("float32", (3,)), TOP: Feature("image", (32, 32, 3))}}, r"state: shape"),
    ],
)
def test_other_differences_are_refused(lab: LeRobotDataset, tmp_path: Path, changes: dict, says: str) -> None:
    other = make_small_dataset(tmp_path / "other", episodes=1, **changes)
    with pytest.raises(InputError, match=f"{lab.root} and {other.root} do not fit: .*{says}"):
        common_interface([lab, other], [STATE, TOP], pad_cameras=True)


def test_what_one_declares_holds_for_all_and_two_must_not_contradict(lab: LeRobotDataset, tmp_path: Path) -> None:
    silent = make_small_dataset(tmp_path / "silent", action=Feature("float32", (2,)), frame="", episodes=1)
    for datasets in ([silent, lab], [lab, silent]):
        assert common_interface(datasets, [STATE, TOP], accept_unnamed=True) == lab.interface
        with pytest.raises(InputError, match=f"{silent.root}: .*2 channels of 'action'.*unnamed_channels=accept"):
            common_interface(datasets, [STATE, TOP])
    millimetres = Feature("float32", (2,), ("x", "y"), ("mm", "mm"))
    other = make_small_dataset(tmp_path / "other", action=millimetres, episodes=1)
    with pytest.raises(InputError, match=f"{lab.root} and {other.root} do not fit: action: units"):
        common_interface([silent, lab, other], [STATE, TOP])


def test_a_vector_is_never_padded(lab: LeRobotDataset, tmp_path: Path) -> None:
    force = "observation.force"
    other = make_small_dataset(tmp_path / "blind", cameras=(), episodes=1)
    assert force not in other.features
    for pad in (False, True):
        with pytest.raises(InputError, match=rf"expected '{force}', found \['{STATE}'\]$"):
            common_interface([other, lab], [STATE, force], pad)
    assert common_interface([other, lab], [STATE]).observations == {STATE: XY}
