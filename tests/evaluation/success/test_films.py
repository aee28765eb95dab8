"""Films: the right episodes, every step, readable files."""

from __future__ import annotations

import functools
import warnings
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from helpers.language import four_goals
from helpers.point_env import PointEnv, Scripted
from PIL import Image

from sim import make_env
from sim.geometry import T_CORNERS, pose_features, transform
from vla_policy.evaluation.success.films import Frame, annotate, choose, describe, film, rank, replay
from vla_policy.evaluation.success.plans import HEIGHT, PUSHER, draw_plan
from vla_policy.interfaces import ENVIRONMENT_STATE, STATE
from vla_policy.rollouts.baselines import HoldPolicy
from vla_policy.rollouts.results import EpisodeResult, Start
from vla_policy.rollouts.rollout import rollout


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
    with pytest.warns(UserWarning, match="the video shows another episode"):
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


def test_the_strip_has_the_instruction_wrapped() -> None:
    frame = Frame(np.zeros((200, 300, 3), np.uint8), 3, 0.2, False)
    plain, short, long = (
        annotate(frame, "best", 0.2, text)
        for text in ("", "push it", "push the T-shaped block onto the goal that lies at the arm's far left")
    )
    assert plain.shape[0] < short.shape[0] < long.shape[0]
    assert (short[:20] < 100).any()  # ink where the instruction begins
    np.testing.assert_array_equal(short[-plain.shape[0] + 10 :], plain[10:])  # the rest is only moved down
    margin = long[:-200, 295:]
    assert (margin > 200).all()  # nothing runs out of the picture


def test_titles_have_the_instruction(results: list[EpisodeResult]) -> None:
    assert f'"{PointEnv.task}"' in describe("best", results[0])


def test_replays_have_the_goal_and_the_instruction() -> None:
    """A goal that the seed would not have drawn is commanded again, with the same words."""
    factory = functools.partial(make_env, "pybullet", (), replace(four_goals(), max_episode_steps=3))
    env = factory()
    other = next(goal for goal in env.config.goals if goal != env.reset(seed=50000)[1]["goal"])
    told = env.reset(seed=50000, options={"goal": other})[1]["instruction"]
    env.close()
    drawn, commanded = rollout(HoldPolicy(), factory, [Start(50000), Start(50000, other)], num_envs=1, num_workers=0)
    assert (commanded.goal, commanded.task) == (other, told)
    assert drawn.task != commanded.task
    assert drawn.block_pose == commanded.block_pose
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a film of another episode warns
        for episode in (drawn, commanded):
            assert list(replay(factory, episode))[-1].coverage == episode.final_coverage


def test_annotation_draws_the_coverage() -> None:
    picture = np.zeros((200, 300, 3), np.uint8)
    low = annotate(Frame(picture, 3, 0.2, False), "best", 0.2)
    high = annotate(Frame(picture, 3, 0.8, False), "best", 0.8)
    assert low.shape == high.shape
    assert low.shape[0] % 2 == 0
    np.testing.assert_array_equal(low[-200:], picture)  # the picture itself stays untouched
    blue = [(image[:-200] == (70, 110, 190)).all(-1).sum() for image in (low, high)]
    assert blue[1] > 2 * blue[0] > 0


def test_what_was_imagined_is_drawn_where_it_would_be_seen() -> None:
    env = make_env("pybullet", [])
    _, info = env.reset(seed=50001)
    picture = env.render()
    way = np.linspace(info["pos_agent"], info["pos_agent"] + [0.05, 0.05], 6)
    block = np.tile(pose_features(np.array([0.45, 0.1, 0.5])), (6, 1))
    drawn = draw_plan(picture, env.video, {STATE: way, ENVIRONMENT_STATE: block})
    changed = (drawn != picture).any(-1)
    env.close()
    x, y = env.video.project(np.append(way[3], HEIGHT)).round().astype(int)
    assert (drawn[y - 1 : y + 2, x - 1 : x + 2] == PUSHER).all(-1).any()
    corner = transform(T_CORNERS, np.array([0.45, 0.1, 0.5]))[0]
    x, y = env.video.project(np.append(corner, HEIGHT)).round().astype(int)
    assert changed[y - 2 : y + 3, x - 2 : x + 3].any()
    assert 0.001 < changed.mean() < 0.1


def test_a_film_shows_the_plan_that_is_played(results: list[EpisodeResult]) -> None:
    states = np.arange(6.0)[:, None]
    planned = replace(results[0], plans=((2, {STATE: states}), (4, {STATE: 10 + states})))
    assert planned.plan(1) == {}
    np.testing.assert_array_equal(planned.plan(3)[STATE], states[1:])
    np.testing.assert_array_equal(planned.plan(4)[STATE], 10 + states)
    assert planned.plan(20) == {}  # all of it has come
