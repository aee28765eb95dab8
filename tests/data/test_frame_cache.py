"""What the frame cache removes from the folder that it shares with others."""

from helpers.bimanual import HEAD

from vla_policy.data import LeRobotDataset
from vla_policy.data.frame_cache import open_cache


def test_only_outdated_caches_of_the_camera_are_removed(bimanual_dataset):
    folder = bimanual_dataset / ".cache"
    folder.mkdir()
    kept = [
        f"{HEAD}-notes.txt",
        f"{HEAD}-left-0123456789abcdef.npy",
        "huggingface.lock",
        f".{HEAD}-0123456789abcdef.swp",
    ]
    outdated = [f"{HEAD}-0123456789abcdef.npy", f".{HEAD}-0123456789abcdef.npy.12.vla_policy.tmp"]
    for name in [*kept, *outdated]:
        (folder / name).write_text(name)
    open_cache(LeRobotDataset(bimanual_dataset), HEAD, range(6))
    assert not any((folder / name).exists() for name in outdated)
    assert all((folder / name).read_text() == name for name in kept)
