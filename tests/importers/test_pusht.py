"""The human demonstrations: npz and zarr layouts, pixels to metres, and what is wrong with a file."""

import os
import sys
import zipfile

import numpy as np
import pytest

from sim import geometry
from vla_policy.data import LeRobotDataset
from vla_policy.importers.pusht import CAMERA, PixelMap, import_pusht
from vla_policy.interfaces import ACTION, ENVIRONMENT_STATE, STATE, InputError

PIXELS = PixelMap(geometry.position_from_pixels, lambda pose: geometry.pose_features(geometry.pose_from_pixels(pose)))
ENDS = np.array([12, 30])


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    blocks = np.full((30, 96, 96, 3), 255, np.uint8)
    for t, frame in enumerate(blocks):
        frame[2 * t : 2 * t + 20, 30:60] = (60, 90, 200)
    return {
        "image": blocks,
        "state": np.concatenate([rng.uniform(50, 450, (30, 4)), rng.uniform(0, 6, (30, 1))], 1).astype(np.float32),
        "action": rng.uniform(0, 512, (30, 2)).astype(np.float32),
        "keypoint": np.zeros((30, 9, 2), np.float32),
        "n_contacts": np.zeros((30, 1), np.float32),
        "episode_ends": ENDS,
    }


def save_npz(path, arrays):
    np.savez_compressed(path, **arrays)
    return path


def save_zarr(path, arrays, zarr_format=2):
    zarr = pytest.importorskip("zarr")
    group = zarr.open_group(str(path), mode="w", zarr_format=zarr_format)
    names = {"image": "data/img", "episode_ends": "meta/episode_ends"}
    for name, array in arrays.items():
        values = array.astype(np.float32) if name == "image" else array
        chunks = (7, *array.shape[1:])
        group.create_array(names.get(name, f"data/{name}"), shape=values.shape, dtype=values.dtype, chunks=chunks)[
            :
        ] = values
    return path


def save_zarr3(path, arrays):
    return save_zarr(path, arrays, 3)


def save_zip(path, arrays):
    return zipped(save_zarr(path.with_name("folder"), arrays), path)


def save_zip3_with_folders_around(path, arrays):
    return zipped(save_zarr3(path.with_name("around") / "pusht" / "human.zarr", arrays).parents[1], path)


def zipped(folder, path):
    with zipfile.ZipFile(path, "w") as file:
        for part in sorted(folder.rglob("*")):
            file.write(part, part.relative_to(folder))
    return path


LAYOUTS = [save_npz, save_zarr, save_zarr3, save_zip, save_zip3_with_folders_around]


@pytest.mark.parametrize("save", LAYOUTS)
def test_all_layouts_become_the_same_dataset(tmp_path, arrays, save):
    source = save(tmp_path / "human.npz", arrays)
    writer = import_pusht(source, tmp_path / "out", PIXELS, "Push.")
    assert (writer.num_episodes, writer.num_frames) == (2, 30)
    dataset = LeRobotDataset(tmp_path / "out")
    assert dataset.fps == 10
    assert dataset.interface.frame == "base"
    assert dataset.interface.action.units == ("m", "m")
    episode = dataset.episode(1)
    assert episode.task == "Push."
    state, action = arrays["state"][12:], arrays["action"][12:]
    # x = 0.45 + (256 - py) * 0.00075, y = (256 - px) * 0.00075
    assert np.allclose(episode.columns[ACTION][:, 0], 0.45 + (256 - action[:, 1]) * 0.00075, atol=1e-6)
    assert np.allclose(episode.columns[ACTION][:, 1], (256 - action[:, 0]) * 0.00075, atol=1e-6)
    assert np.allclose(episode.columns[STATE][:, 0], 0.45 + (256 - state[:, 1]) * 0.00075, atol=1e-6)
    pose = episode.columns[ENVIRONMENT_STATE]
    assert np.allclose(pose[:, 1], (256 - state[:, 2]) * 0.00075, atol=1e-6)
    assert np.allclose(pose[:, 2:], np.stack([np.cos(state[:, 4]), -np.sin(state[:, 4])], 1), atol=1e-5)
    error = dataset.frames(1, CAMERA).astype(float) - arrays["image"][12:]
    assert np.sqrt((error**2).mean()) < 6


@pytest.mark.parametrize("name", ["human.npz", "human.zip"])
def test_errors_are_short_however_many_members_there_are(tmp_path, name):
    with zipfile.ZipFile(tmp_path / name, "w") as file:
        for i in range(2000):
            file.writestr(f"part_{i:04d}.npy" if name.endswith("npz") else f"data/img/c/{i}/zarr.json", b"")
    with pytest.raises(InputError, match=f"{name}: expected .*found") as error:
        import_pusht(tmp_path / name, tmp_path / "out", PIXELS, "Push.")
    assert len(str(error.value)) < 500 + len(str(tmp_path))


def test_pickled_arrays_are_refused_by_name(tmp_path, arrays):
    arrays["state"] = np.array([arrays["state"][:12], arrays["state"][12:]], object)
    with pytest.raises(InputError, match=r"human\.npz, 'state': expected a readable array, found .*allow_pickle=False"):
        import_pusht(save_npz(tmp_path / "human.npz", arrays), tmp_path / "out", PIXELS, "Push.")


def test_without_images(tmp_path, arrays):
    import_pusht(save_npz(tmp_path / "human.npz", arrays), tmp_path / "out", PIXELS, "Push.", images=False)
    dataset = LeRobotDataset(tmp_path / "out")
    assert dataset.interface.cameras == []
    assert not (tmp_path / "out/videos").exists()


def test_the_import_continues_where_it_stopped(tmp_path, arrays):
    source = save_npz(tmp_path / "human.npz", arrays)

    def stop_after_one(episodes):
        yield episodes[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_pusht(source, tmp_path / "out", PIXELS, "Push.", progress=stop_after_one)
    assert LeRobotDataset(tmp_path / "out").num_episodes == 1
    import_pusht(source, tmp_path / "out", PIXELS, "Push.")
    assert list(LeRobotDataset(tmp_path / "out").lengths) == [12, 18]


def rename(arrays):
    arrays["img"] = arrays.pop("image")


def cut(arrays):
    arrays["action"] = arrays["action"][:-1]


def not_finite(arrays):
    arrays["action"][17, 1] = np.nan


def bad_ends(arrays):
    arrays["episode_ends"] = np.array([12, 29])


def dark(arrays):
    arrays["image"] = arrays["image"] / np.float32(255)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (rename, r"human\.npz: expected the arrays.*'image'.*found.*'img'"),
        (cut, r"human\.npz, 'image': expected shape \(29, 96, 96, 3\), found \(30, 96, 96, 3\)"),
        (not_finite, r"human\.npz, 'action': expected finite numbers, found nan in frame 17, channel 1"),
        (bad_ends, r"human\.npz, 'episode_ends': expected increasing numbers up to 30"),
    ],
)
def test_mistakes_are_named_before_anything_is_written(tmp_path, arrays, spoil, says):
    spoil(arrays)
    with pytest.raises(InputError, match=says):
        import_pusht(save_npz(tmp_path / "human.npz", arrays), tmp_path / "out", PIXELS, "Push.")
    assert not (tmp_path / "out").exists()


def test_images_of_another_range(tmp_path, arrays):
    dark(arrays)
    with pytest.raises(InputError, match=r"'image': expected values up to 255, found float32 up to 1\.0"):
        import_pusht(save_npz(tmp_path / "human.npz", arrays), tmp_path / "out", PIXELS, "Push.")


def test_broken_files(tmp_path, arrays):
    path = save_npz(tmp_path / "human.npz", arrays)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match=r"human\.npz: expected an npz file or a zarr, found a broken one"):
        import_pusht(path, tmp_path / "out", PIXELS, "Push.")
    with pytest.raises(InputError, match="nothing"):
        import_pusht(tmp_path / "none.npz", tmp_path / "out", PIXELS, "Push.")
    folder = save_zarr(tmp_path / "human.zarr", arrays)
    (folder / "data/action/.zarray").unlink()
    with pytest.raises(InputError, match=r"human\.zarr: expected the zarr array 'data/action'"):
        import_pusht(folder, tmp_path / "out", PIXELS, "Push.")


def test_zarr_is_an_extra(tmp_path, arrays, monkeypatch):
    folder = save_zarr(tmp_path / "human.zarr", arrays)
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(InputError, match="zarr: expected it to be installed"):
        import_pusht(folder, tmp_path / "out", PIXELS, "Push.")


@pytest.mark.skipif("PUSHT_HUMAN" not in os.environ, reason="PUSHT_HUMAN names no demonstrations")
def test_the_human_data(tmp_path):
    import_pusht(os.environ["PUSHT_HUMAN"], tmp_path / "out", PIXELS, "Push.", images=False)
    dataset = LeRobotDataset(tmp_path / "out")
    assert (dataset.num_episodes, dataset.num_frames) == (206, 25650)
    assert (dataset.lengths.min(), dataset.lengths.max()) == (49, 246)
    ends = [geometry.pose_from_features(dataset.episode(i).columns[ENVIRONMENT_STATE][-1]) for i in range(206)]
    # 0.899 after the last action; the last recorded state is the one before it
    assert np.mean([geometry.coverage(pose) for pose in ends]) == pytest.approx(0.847, abs=0.005)
