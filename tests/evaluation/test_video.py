"""Films: the right episodes, every step, readable files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from helpers.point_env import PointEnv, Scripted
from PIL import Image

from vla_policy.evaluation.episode import EpisodeResult
from vla_policy.evaluation.rollout import rollout
from vla_policy.evaluation.video import Frame, annotate, choose, film, rank, replay


@pytest.fixture(scope="module")
def results() -> list[EpisodeResult]:
    return rollout(Scripted(), PointEnv, range(50000, 50005), num_workers=0)


def test_best_is_the_fastest_success_and_worst_the_emptiest_failure(results: list[EpisodeResult]) -> None:
    fast = replace(results[0], seed=1, success=True, steps=90, max_coverage=0.96)
    slow = replace(results[0], seed=2, success=True, steps=200, max_coverage=0.99)
    near = replace(results[0], seed=3, success=False, steps=300, max_coverage=0.9)
    far = replace(results[0], seed=4, success=False, steps=300, max_coverage=0.1)
    assert [r.seed for r in rank([far, slow, near, fast])] == [1, 2, 3, 4]
    assert {k: r.seed for k, r in choose([far, slow, near, fast], 4).items()} == {
        "best": 1,
        "worst": 4,
        "best_2": 2,
        "worst_2": 3,
    }
    assert list(choose([fast], 2)) == ["best"]


def test_replay_is_the_episode(results: list[EpisodeResult]) -> None:
    frames = list(replay(PointEnv, results[0]))
    assert [f.step for f in frames] == list(range(results[0].steps + 1))
    assert frames[-1].coverage == results[0].final_coverage
    assert frames[-1].success
    with pytest.warns(UserWarning, match="the film shows another episode"):
        list(replay(PointEnv, replace(results[0], final_coverage=0.5)))


@pytest.mark.parametrize("processes", [0, 2])
def test_films_have_a_frame_a_step(tmp_path: Path, results: list[EpisodeResult], processes: int) -> None:
    chosen = choose(results, 2)
    paths = film(PointEnv, chosen, tmp_path / "out", fps=10, processes=processes)
    assert [p.name for p in paths] == ["best.mp4", "worst.mp4", "contact_sheet.png"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(p.name for p in paths)  # nothing else stays
    for path, episode in zip(paths, chosen.values(), strict=False):
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
            assert stream.codec_context.name == "h264"
            assert stream.average_rate == 10
        assert len(frames) == episode.steps + 1
        assert frames[0].shape[1] == 96
    with Image.open(paths[-1]) as sheet:
        assert sheet.width > 6 * 256
        assert np.asarray(sheet).std() > 10


def test_annotation_draws_the_coverage() -> None:
    picture = np.zeros((200, 300, 3), np.uint8)
    low = annotate(Frame(picture, 3, 0.2, False), "best", 0.2)
    high = annotate(Frame(picture, 3, 0.8, False), "best", 0.8)
    assert low.shape == high.shape
    assert low.shape[0] % 2 == 0
    np.testing.assert_array_equal(low[-200:], picture)  # the picture itself stays untouched
    blue = [(image[:-200] == (70, 110, 190)).all(-1).sum() for image in (low, high)]
    assert blue[1] > 2 * blue[0] > 0
