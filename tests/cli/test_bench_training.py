"""vla-bench training as a user calls it."""

from pathlib import Path

import pytest
from helpers.commands import error_of
from helpers.small_dataset import TOP, make_small_dataset
from helpers.small_runs import SHORT_RUN, SMALL_POLICY

from vla_policy.cli import bench
from vla_policy.utils.files import read_json

SMALL = [*SMALL_POLICY, *SHORT_RUN, "policy.noise_samples=1"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bench") / "small"
    make_small_dataset(root, episodes=3)
    return root


def test_both_sources_of_pictures_are_timed(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "training.json"
    bench.main(["training", str(data), *SMALL, "steps=6", "warmup=2", f"out={out}", "seed=3"])
    found = read_json(out)
    assert found["cameras"] == [TOP]
    assert (found["batch_size"], found["threads"], found["precision"]) == (8, 1, "no")
    assert [speed["cache"] for speed in found["speed"]] == [False, True]
    for speed in found["speed"]:
        assert (speed["steps"], speed["warmup"]) == (6, 2)
        assert 0 < speed["wait_share"] < 1
        assert speed["wait_ms"]["p50"] < speed["step_ms"]["p50"] <= speed["step_ms"]["p95"]
        mean_ms = 1e3 * found["batch_size"] / speed["samples_per_s"]
        assert 0.3 * speed["step_ms"]["p50"] < mean_ms < 6 * speed["step_ms"]["p95"]
    decoded, cached = found["speed"]
    assert decoded["wait_ms"]["p50"] > cached["wait_ms"]["p50"]
    shown = capsys.readouterr().out
    assert "samples / s" in shown
    assert "frame cache" in shown
    assert [path.name for path in tmp_path.iterdir()] == ["training.json"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["{data}", "steps=0"], "steps: expected at least 0 and 1, found 5 and 0"),
        (["{data}", "trainer.stepz=3"], "stepz"),
        (["{data}", "policy.observation_keys=[observation.images.nose]"], "expected 'observation.images.nose', found"),
        (["nowhere"], "nowhere: expected a LeRobotDataset"),
        (["{data}", "fast"], "expected key=value, found 'fast'"),
    ],
)
def test_mistakes_are_one_line(data: Path, tmp_path: Path, words: list[str], says: str) -> None:
    out = tmp_path / "training.json"
    words = [word.format(data=data) for word in words]
    assert says in error_of(bench.main, "training", *words, *SMALL, f"out={out}")
    assert not out.exists()


def test_help_names_the_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as status:
        bench.main(["training", "--help"])
    assert status.value.code == 0
    shown = capsys.readouterr().out
    assert "DATASET" in shown
    assert "vla-train" in shown
    assert "steps: 50" in shown
