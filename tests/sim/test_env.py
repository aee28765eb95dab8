"""The environment: Gymnasium's rules, determinism, limits, starts, bad input; the human replay."""

import os
import warnings
from collections.abc import Iterator

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from sim import GymPushTEnv, PushTConfig, PushTEnv, make_env
from sim.benchmark import steps_per_second
from sim.geometry import WORKSPACE_HIGH, WORKSPACE_LOW, pose_from_pixels, position_from_pixels
from sim.replay import replay, summarize_replays
from sim.scene import Scene
from vla_policy.interfaces import STATE, InputError

TOP = "observation.images.top"
EXPLICIT = {"pusher": np.array([0.35, 0.05]), "block_pose": np.array([0.45, 0.02, 0.7])}


@pytest.fixture(scope="module")
def env() -> Iterator[PushTEnv]:
    env = PushTEnv(cameras=())
    yield env
    env.close()


def pushes(env: PushTEnv, n: int) -> list[np.ndarray]:
    """Actions that circle in the block where it was at first, so that the pusher runs into it."""
    _, info = env.reset(seed=3)
    angle = 0.4 * np.arange(n)
    return list(info["block_pose"][:2] + 0.04 * np.stack([np.cos(angle), np.sin(angle)], axis=1))


def play(env: PushTEnv, actions: list[np.ndarray]) -> list[np.ndarray]:
    """Everything seen and told while these actions are played, flat."""
    seen = []
    for action in actions:
        observation, reward, _, _, info = env.step(action)
        seen += [*observation.values(), np.array(reward), info["block_pose"], info["pos_agent"], info["vel_agent"]]
    return seen


def assert_equal(first: list[np.ndarray], second: list[np.ndarray]) -> None:
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["pybullet", "gym_pusht"])
def test_gymnasium_accepts_it(name: str) -> None:
    if name == "gym_pusht":
        pytest.importorskip("gym_pusht")
    env = make_env(name, ["top"], render_mode="rgb_array")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.filterwarnings("ignore", message=".*normalized space.*")  # actions are metres
        warnings.filterwarnings("ignore", message=".*alternative render modes.*")  # only `gymnasium.make` has those
        check_env(env)
    env.close()


def test_equal_seeds_and_actions_give_equal_states_and_images() -> None:
    first, second = PushTEnv(), PushTEnv()
    actions = pushes(first, 12)
    second.reset(seed=99)
    play(second, actions)  # whatever went before does not matter
    start_a, _ = first.reset(seed=3)
    start_b, _ = second.reset(seed=3)
    assert_equal(list(start_a.values()), list(start_b.values()))
    assert_equal(play(first, actions), play(second, actions))
    first.close(), second.close()


def test_restores_agree_and_continue_bit_for_bit() -> None:
    first, second = PushTEnv(), PushTEnv()
    actions = pushes(first, 24)
    play(first, actions[:12])
    state = first.save_state()
    before = first.step(actions[12])[-1]["block_pose"]
    futures = []
    for env in (first, second, first):
        observation, _ = env.restore_state(state)
        futures.append([*observation.values(), *play(env, actions[12:])])
    assert_equal(futures[0], futures[1])
    assert_equal(futures[0], futures[2])
    np.testing.assert_allclose(futures[0][2 * len(observation) + 1], before, atol=1e-3)  # and close to the original
    first.close(), second.close()


def test_the_block_stops_as_soon_as_pushing_ends(env: PushTEnv) -> None:
    _, start = env.reset(seed=0, options=EXPLICIT)
    moved, left = [], []
    for target in [EXPLICIT["block_pose"][:2]] * 5 + [EXPLICIT["pusher"] - [0.05, 0.0]] * 5:
        *_, info = env.step(target)
        (left if len(moved) >= 5 else moved).append(info["block_pose"])
    assert np.linalg.norm(moved[-1][:2] - start["block_pose"][:2]) > 0.01
    assert not env.scene.n_contacts()
    np.testing.assert_allclose(left[1:], np.broadcast_to(left[0], (4, 3)), atol=1e-6)


def test_a_badly_calibrated_arm_goes_beside_every_target() -> None:
    env = PushTEnv(PushTConfig.from_mapping({"arm": {"offset": [0.02, -0.01]}}), cameras=())
    env.reset(seed=0, options={"pusher": [0.4, 0.1], "block_pose": [0.55, -0.1, 0.0]})
    for _ in range(10):
        *_, info = env.step(np.array([0.38, 0.12]))
    env.close()
    np.testing.assert_allclose(info["pos_agent"], [0.4, 0.11], atol=1e-3)


def test_speed_and_workspace_limits(env: PushTEnv) -> None:
    _, info = env.reset(seed=0, options={"pusher": WORKSPACE_LOW, "block_pose": [0.55, -0.1, 0.0]})
    places = [info["pos_agent"]]
    for target in [[9.0, 9.0]] * 15 + [[-9.0, 9.0]] * 15:
        *_, info = env.step(np.array(target))
        places.append(info["pos_agent"])
        assert np.hypot(*info["vel_agent"]) < 1.05 * env.config.arm.max_speed
    track = np.array(places)
    assert np.linalg.norm(np.diff(track, axis=0), axis=1).max() < 1.02 * env.config.arm.max_speed / 10
    assert ((track > WORKSPACE_LOW - 1e-3) & (track < WORKSPACE_HIGH + 1e-3)).all()
    np.testing.assert_allclose(track[15], WORKSPACE_HIGH, atol=1e-3)  # clipped, and reached
    np.testing.assert_allclose(track[30], [WORKSPACE_LOW[0], WORKSPACE_HIGH[1]], atol=1e-3)


def test_the_tip_is_where_it_was_sent_all_over_the_workspace() -> None:
    config = PushTConfig()
    scene = Scene(config)
    axes = [np.linspace(low, high, 7) for low, high in zip(WORKSPACE_LOW, WORKSPACE_HIGH, strict=True)]
    for point in np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2):
        scene.rebuild(point, np.array([2.0, 0.0, 0.0]))  # the block out of the way
        scene.step(np.broadcast_to(point, (24, 2)))
        tip, _ = scene.pusher_state()
        assert np.linalg.norm(tip - [*point, config.arm.tip_height]) < 1e-3
    scene.close()


def test_info_has_gym_pushts_keys_in_metres(env: PushTEnv) -> None:
    pytest.importorskip("gym_pusht")
    theirs = GymPushTEnv()
    _, ours = env.reset(seed=5)
    _, info = theirs.reset(seed=5)
    *_, raw = theirs.inner.step(np.array([256.0, 256.0]))
    assert set(raw) - {"TimeLimit.truncated"} <= set(ours)
    assert set(ours) == set(info)
    np.testing.assert_allclose(ours["goal_pose"], info["goal_pose"], atol=1e-9)
    theirs.close()


def test_equal_seeds_start_both_environments_alike(env: PushTEnv) -> None:
    pytest.importorskip("gym_pusht")
    theirs, n_equal = GymPushTEnv(), 0
    for seed in range(30):
        _, ours = env.reset(seed=seed)
        _, info = theirs.reset(seed=seed)
        raw = theirs.inner._get_info()
        np.testing.assert_allclose(info["block_pose"], pose_from_pixels(raw["block_pose"]), atol=1e-12)
        np.testing.assert_allclose(info["pos_agent"], position_from_pixels(raw["pos_agent"]), atol=1e-12)
        n_equal += np.allclose(
            [*ours["pos_agent"], *ours["block_pose"]], [*info["pos_agent"], *info["block_pose"]], atol=1e-4
        )
    assert n_equal >= 20  # the others overlap in gym-pusht, where physics throws them apart
    theirs.close()


def test_explicit_starts(env: PushTEnv) -> None:
    observation, info = env.reset(seed=0, options=EXPLICIT)
    np.testing.assert_allclose(info["block_pose"], EXPLICIT["block_pose"], atol=1e-6)
    np.testing.assert_allclose(observation[STATE], EXPLICIT["pusher"], atol=1e-4)
    inside = EXPLICIT | {"pusher": EXPLICIT["block_pose"][:2]}
    _, info = env.reset(seed=0, options=inside)
    assert np.linalg.norm(info["pos_agent"] - inside["pusher"]) > 0.01  # moved out of the block
    assert info["n_contacts"] == 0
    for options, says in [({"block": 1}, r"found \['block'\]"), ({"pusher": [np.nan, 0]}, "pusher.*finite")]:
        with pytest.raises(InputError, match=says):
            env.reset(options=options)


def test_episodes_end_as_in_gym_pusht() -> None:
    env = PushTEnv(PushTConfig(max_episode_steps=2), cameras=())
    near = np.array(env.config.goal_pose) + np.array([0.0005, 0.0, 0.01])
    _, info = env.reset(seed=0, options={"pusher": [0.3, 0.15], "block_pose": near})
    assert info["is_success"]
    _, reward, terminated, truncated, _ = env.step(np.array([0.3, 0.15]))
    assert (reward, terminated, truncated) == (1.0, True, False)
    assert env.step(np.array([0.3, 0.15]))[3]
    env.close()


@pytest.mark.parametrize("name", ["pybullet", "gym_pusht"])
def test_bad_input_is_named(name: str) -> None:
    if name == "gym_pusht":
        pytest.importorskip("gym_pusht")
    env = make_env(name, ())
    with pytest.raises(InputError, match="expected a reset"):
        env.step(np.zeros(2))
    env.reset(seed=0)
    for action, says in [
        ([np.nan, 0.0], "action: expected finite numbers"),
        ([0.4, 0.0, 0.1], r"action: expected shape \(2,\), found \(3,\)"),
        (["far", "away"], "action: expected 2 numbers"),
    ]:
        with pytest.raises(InputError, match=says):
            env.step(action)  # type: ignore[arg-type]
    env.step(np.array([99.0, 99.0]))  # held to the workspace
    env.close()
    with pytest.raises(InputError, match=r"cameras: .*found \['wrist'\]"):
        make_env(name, ["wrist"])
    with pytest.raises(InputError, match="expected 'pybullet' or 'gym_pusht', found 'mujoco'"):
        make_env("mujoco")


def test_the_benchmark_pushes() -> None:
    speed = steps_per_second(steps=60)
    assert speed["contact"] > 0.4
    assert speed["pusher_speed"] > 0.05
    assert speed["steps_per_cpu_s"] > 0


def test_a_replay_of_itself_is_exact(env: PushTEnv) -> None:
    angle = 0.4 * np.arange(21)[:, None]
    actions = EXPLICIT["block_pose"][:2] + 0.04 * np.hstack([np.cos(angle), np.sin(angle)])
    env.reset(seed=0, options=EXPLICIT)
    poses = [EXPLICIT["block_pose"]]
    for action in actions[:-1]:
        poses.append(env.step(action)[-1]["block_pose"])
    pusher, recorded = EXPLICIT["pusher"], np.array(poses)
    assert np.linalg.norm(recorded[-1, :2] - recorded[0, :2]) > 0.01
    same = replay(env, pusher, recorded, actions)
    assert same.position_error.max() < 1e-9
    assert len(same.coverage) == len(same.recorded_coverage) + 1 == 22
    off = recorded + np.outer(np.arange(21) > 0, [0.003, 0.004, 2 * np.pi + 0.1])
    shifted = replay(env, pusher, off, actions)
    np.testing.assert_allclose(shifted.position_error[1:], 0.005)
    np.testing.assert_allclose(shifted.angle_error[1:], 0.1)
    summary = summarize_replays([same, shifted])
    assert [(row["seconds"], row["n"]) for row in summary["over_time"]] == [(0.0, 2), (1.0, 2), (2.0, 2)]
    assert summary["n_success"] == 0
    assert summary["end"]["position_mm"] == pytest.approx(2.5)
    assert summary["end"]["angle_deg"] == pytest.approx(np.degrees(0.05))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "position_mm", "angle_deg"), [("pybullet", 1.0, 1.0), ("gym_pusht", 0.01, 0.01)])
def test_the_block_stays_where_it_was_for_the_human(name: str, position_mm: float, angle_deg: float) -> None:
    if "PUSHT_HUMAN" not in os.environ:
        pytest.skip("PUSHT_HUMAN does not name the human demonstrations")
    pytest.importorskip("gym_pusht")
    with np.load(os.environ["PUSHT_HUMAN"]) as human:
        state, action, ends = human["state"], human["action"], human["episode_ends"][:20]
    env, replays = make_env(name, ()), []
    for begin, end in zip([0, *ends[:-1]], ends, strict=True):
        poses = pose_from_pixels(state[begin:end, 2:])
        pusher, actions = position_from_pixels(state[begin, :2]), position_from_pixels(action[begin:end])
        replays.append(replay(env, pusher, poses, actions))
    env.close()
    summary = summarize_replays(replays)
    assert summary["all_frames"]["position_mm"] < position_mm
    assert summary["all_frames"]["angle_deg"] < angle_deg
