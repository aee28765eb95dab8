"""vla-bench sim as a user calls it."""

from pathlib import Path

import numpy as np
import pytest
from helpers.commands import error_of

from vla_policy.cli import bench, dataset
from vla_policy.utils.files import read_json


@pytest.fixture
def pusht(tmp_path: Path) -> str:
    """Two short episodes in which the pusher moves beside the block."""
    t = np.arange(24, dtype=np.float32) % 12
    state = np.stack([100 + 4 * t, 120 + 0 * t, 300 + 0 * t, 300 + 0 * t, 0.5 + 0 * t], axis=1)
    action = state[:, :2] + np.float32([4, 0])
    np.savez(
        tmp_path / "human.npz",
        state=state,
        action=action,
        image=np.zeros((24, 96, 96, 3), np.uint8),
        episode_ends=np.array([12, 24]),
    )
    dataset.main(["import-pusht", str(tmp_path / "human.npz"), str(tmp_path / "human"), "images=false"])
    return str(tmp_path / "human")


def test_speed_and_replays(pusht: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("gym_pusht")
    out = tmp_path / "sim.json"
    bench.main(["sim", "steps=20", f"human={pusht}", f"out={out}"])
    found = read_json(out)
    assert [speed["cameras"] for speed in found["speed"]] == [[], ["top"]]
    assert found["speed"][0]["steps_per_cpu_s"] > found["speed"][1]["steps_per_cpu_s"] > 0
    assert set(found["replays"]) == {"pybullet", "gym_pusht"}
    for summary in found["replays"].values():
        assert (summary["n_episodes"], summary["n_success"]) == (2, 0)
        assert summary["end"]["position_mm"] < 1.0
        assert summary["success_ci95"][0] == 0.0
        assert [row["n"] for row in summary["over_time"]] == [2, 2]
    shown = capsys.readouterr().out
    assert "steps / s" in shown
    assert "after 1 s, n = 2" in shown


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("stpes=3", "found 'stpes'"),
        ("steps=0", "steps: expected at least 1, found 0"),
        ("human=nowhere", "nowhere: expected a LeRobotDataset"),
        ("n_episodes=9", "n_episodes: expected 1 to 2, found 9"),
        ("envs=[mujoco]", "expected 'pybullet' or 'gym_pusht', found 'mujoco'"),
        ("cameras=[wrist]", "cameras: expected some of"),
        ("scene.physics.grip=1", "scene.physics: expected keys out of"),
    ],
)
def test_mistakes_are_one_line(pusht: str, tmp_path: Path, word: str, says: str) -> None:
    out = tmp_path / "sim.json"
    words = [word, f"out={out}", *([] if word.startswith("human") else [f"human={pusht}"])]
    assert says in error_of(bench.main, "sim", "steps=5", *words)
    assert not out.exists()
