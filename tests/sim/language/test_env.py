"""The language-conditioned task: what a seed decides, what the instruction changes and what it must not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from helpers.language import four_goals

from sim import LanguagePushTEnv, PushTConfig, PushTEnv, make_env
from sim.geometry import T_CORNERS, pose_from_features, transform
from sim.interface import GOAL_STATE
from sim.language.instructions import named_goal, sentences
from vla_policy.interfaces import InputError

TOP = "observation.images.top"
FAR = {"pusher": np.array([0.30, 0.15])}


@pytest.fixture(scope="module")
def config() -> PushTConfig:
    return four_goals()


@pytest.fixture(scope="module")
def env(config: PushTConfig) -> Iterator[LanguagePushTEnv]:
    env = LanguagePushTEnv(config, cameras=())
    yield env
    env.close()


def on(config: PushTConfig, goal: str) -> dict[str, np.ndarray]:
    """A start with the block all but on a goal."""
    return FAR | {"block_pose": np.add(config.goals[goal].pose, [0.0004, 0.0, 0.005])}


def test_starts_interface_and_observations_are_those_of_the_single_goal(env: LanguagePushTEnv) -> None:
    single = PushTEnv(cameras=())
    shared = [key for key in env.interface.observations if key != GOAL_STATE]
    assert env.interface.select(shared) == single.interface
    for seed in range(50000, 50012):
        ours, info = env.reset(seed=seed)
        theirs, single_info = single.reset(seed=seed)
        for key in theirs:
            np.testing.assert_array_equal(ours[key], theirs[key])
        np.testing.assert_array_equal(info["block_pose"], single_info["block_pose"])
    single.close()


def test_the_block_is_seen_from_the_commanded_goal(env: LanguagePushTEnv, config: PushTConfig) -> None:
    for goal in config.goals:
        observation, info = env.reset(seed=50000, options={"goal": goal})
        assert env.observation_space.contains(observation)
        x, y, angle = pose_from_features(observation[GOAL_STATE])
        corners = transform(transform(T_CORNERS, np.array([x, y, angle])), np.array(config.goals[goal].pose))
        np.testing.assert_allclose(corners, transform(T_CORNERS, info["block_pose"]), atol=1e-6)
        observation, _ = env.reset(seed=50000, options=on(config, goal) | {"goal": goal})
        np.testing.assert_allclose(observation[GOAL_STATE], [0, 0, 1, 0], atol=0.01)


def test_goals_are_drawn_evenly_and_sentences_name_them(env: LanguagePushTEnv, config: PushTConfig) -> None:
    goals, seen = Counter(), set()
    for seed in range(50000, 50200):
        _, info = env.reset(seed=seed)
        goals[info["goal"]] += 1
        seen.add(info["instruction"])
        assert env.task == info["instruction"]
        assert named_goal(env.task, config) == info["goal"]
        np.testing.assert_array_equal(info["goal_pose"], config.goals[info["goal"]].pose)
        assert info["coverage"] == info["coverages"][info["goal"]]
    assert set(goals) == set(config.goals)
    assert min(goals.values()) > 30  # 50 expected, 6 standard deviation
    assert len(seen) > 80


def test_equal_seeds_are_equal_and_restored_states_continue_bit_for_bit(config: PushTConfig) -> None:
    first, second = (make_env("pybullet", ["top"], config) for _ in range(2))
    second.reset(seed=50099)
    (start, info), (again, info_again) = (env.reset(seed=50003) for env in (first, second))
    np.testing.assert_array_equal(start[TOP], again[TOP])
    assert (info["goal"], info["instruction"]) == (info_again["goal"], info_again["instruction"])
    for _ in range(4):
        first.step(info["block_pose"][:2])
    state = first.save_state()
    second.reset(seed=50001)  # another goal, another colour
    assert second.save_state().assignment != state.assignment
    futures = []
    for env in (first, second):
        observation, told = env.restore_state(state)
        assert (told["goal"], told["instruction"], env.task) == (info["goal"], info["instruction"], info["instruction"])
        futures.append([observation[TOP], *(env.step(info["block_pose"][:2])[0][TOP] for _ in range(3))])
    np.testing.assert_array_equal(futures[0], futures[1])
    first.close(), second.close()


def test_another_instruction_leaves_the_picture_alone(config: PushTConfig) -> None:
    env = LanguagePushTEnv(config)
    pictures, told = [], set()
    for goal in config.goals:
        observation, info = env.reset(seed=50004, options={"goal": goal})
        pictures.append(observation[TOP])
        told.add(info["instruction"])
        assert info["goal"] == goal
    assert len(told) == 4
    assert all(np.array_equal(picture, pictures[0]) for picture in pictures)
    held_out = LanguagePushTEnv(replace(config, paraphrases="held_out"))
    (ours, info), (theirs, other) = env.reset(seed=50004), held_out.reset(seed=50004)
    np.testing.assert_array_equal(ours[TOP], theirs[TOP])
    assert info["goal"] == other["goal"]
    assert info["instruction"] != other["instruction"]
    env.close(), held_out.close()


def test_block_colours_vary_and_are_seen(config: PushTConfig) -> None:
    env = LanguagePushTEnv(config)
    shown = set()
    for seed in range(50000, 50010):
        observation, _ = env.reset(seed=seed, options=FAR | {"block_pose": np.array([0.46, 0.0, 0.0])})
        u, v = env.cameras["top"].project(np.array([0.45, 0.0, 0.015])).astype(int)
        pixel = observation[TOP][v, u] / 255
        near = [np.abs(pixel / pixel.sum() - np.array(c) / sum(c)).max() for c in config.block_colours.values()]
        assert min(near) < 0.05
        shown.add(int(np.argmin(near)))
    assert len(shown) > 2
    env.close()


def test_only_the_commanded_goal_ends_the_episode(env: LanguagePushTEnv, config: PushTConfig) -> None:
    for goal, over in (("red", True), ("blue", False)):
        _, info = env.reset(seed=50000, options=on(config, "red") | {"goal": goal})
        assert info["coverages"]["red"] > 0.95
        _, reward, terminated, truncated, info = env.step(FAR["pusher"])
        assert (terminated, truncated, info["is_success"]) == (over, False, over)
        assert (reward == 1.0) == over
        assert info["coverage"] == info["coverages"][goal]


def test_a_goal_that_the_start_covers_is_not_drawn(env: LanguagePushTEnv, config: PushTConfig) -> None:
    drawn = {env.reset(seed=seed, options=on(config, "green"))[1]["goal"] for seed in range(50000, 50030)}
    assert drawn == set(config.goals) - {"green"}


def test_custom_instructions(config: PushTConfig) -> None:
    red = sentences(config, "red", "held_out")[3]
    env = LanguagePushTEnv(replace(config, instruction=red), cameras=())
    assert {env.reset(seed=seed)[1]["goal"] for seed in range(50000, 50008)} == {"red"}
    _, info = env.reset(seed=50000, options={"instruction": "Schieb das T ins Ziel!"})
    drawn = LanguagePushTEnv(config, cameras=())
    assert (env.task, info["goal"]) == ("Schieb das T ins Ziel!", drawn.reset(seed=50000)[1]["goal"])
    _, info = env.reset(seed=50000, options={"instruction": "push it", "goal": "blue"})
    assert (info["instruction"], info["goal"]) == ("push it", "blue")
    env.close(), drawn.close()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"goal": "pink"}, r"goal: expected one of \['red', 'green', 'blue', 'yellow'\], found 'pink'"),
        ({"instruction": "  "}, "instruction: expected some words, found '  '"),
        ({"instruction": 3}, "instruction: expected some words, found 3"),
        ({"colour": "red"}, r"reset options: expected some of .*'goal', 'instruction'.* found \['colour'\]"),
    ],
)
def test_bad_options_are_named(env: LanguagePushTEnv, options: dict, says: str) -> None:
    with pytest.raises(InputError, match=says):
        env.reset(seed=50000, options=options)


def test_goals_need_pybullet_and_options_need_goals(config: PushTConfig) -> None:
    with pytest.raises(InputError, match=r"env: expected 'pybullet' for a task with goals .* found 'gym_pusht'"):
        make_env("gym_pusht", (), config)
    with pytest.raises(InputError, match="at least one goal"):
        LanguagePushTEnv(PushTConfig())
    single = make_env("pybullet", ())
    with pytest.raises(InputError, match=r"found \['goal'\]"):
        single.reset(seed=50000, options={"goal": "red"})
    single.close()
