"""The mirror: goal, walls and coverage stay, the expert commutes with it, and pictures show the mirrored scene."""

import dataclasses

import numpy as np
import pytest
import torch

from sim import PushTConfig, make_env
from sim.config import GoalConfig
from sim.expert.expert import Expert
from sim.geometry import GOAL_POSE, WORKSPACE_HIGH, WORKSPACE_LOW, coverage, pose_features, pose_from_features
from sim.interface import draw_start, separate
from sim.symmetry import isometry, table_homography
from vla_policy.interfaces import IMAGES, InputError
from vla_policy.training import Symmetry

CONFIG = PushTConfig()
TOP = IMAGES + "top"


def mirror(env: str = "pybullet") -> Symmetry:
    return Symmetry(*isometry("mirror", CONFIG), {TOP: table_homography("top", CONFIG, env)})


def mirrored_place(place: np.ndarray) -> np.ndarray:
    matrix, offset = isometry("mirror", CONFIG)
    moved: np.ndarray = matrix @ place + offset
    return moved


def mirrored_pose(pose: np.ndarray) -> np.ndarray:
    matrix, _ = isometry("mirror", CONFIG)
    return pose_from_features(np.concatenate([mirrored_place(pose[:2]), matrix @ pose_features(pose)[2:]]))


def starts(count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    generator = np.random.default_rng(0)
    drawn = [draw_start(generator) for _ in range(count)]
    return [separate(pusher, pose) for pusher, pose in drawn]


def test_goal_walls_and_coverage_stay() -> None:
    np.testing.assert_allclose(mirrored_pose(GOAL_POSE), GOAL_POSE, atol=1e-12)
    np.testing.assert_allclose(mirrored_place(WORKSPACE_LOW), WORKSPACE_HIGH)
    for _, pose in starts(30):
        near = 0.1 * pose + 0.9 * GOAL_POSE
        assert coverage(mirrored_pose(near)) == pytest.approx(coverage(near), abs=1e-9)


def test_the_expert_commutes_with_it() -> None:
    for pusher, pose in starts(10):
        action = Expert().act(pusher, pose)
        mirrored = Expert().act(mirrored_place(pusher), mirrored_pose(pose))
        assert np.linalg.norm(mirrored - mirrored_place(action)) < 1e-3


@pytest.mark.parametrize("name", ["pybullet", "gym_pusht"])
def test_a_mirrored_picture_shows_the_mirrored_block(name: str) -> None:
    if name == "gym_pusht":
        pytest.importorskip("gym_pusht")
    env = make_env(name, ("top",), CONFIG)
    pusher, pose = np.array([0.36, 0.12]), np.array([0.50, 0.03, 0.4])
    pictures = []
    for start in ((pusher, pose), (mirrored_place(pusher), mirrored_pose(pose))):
        observation, _ = env.reset(seed=0, options={"pusher": start[0], "block_pose": start[1]})
        pictures.append(torch.from_numpy(observation[TOP].copy())[None, None])
    env.close()
    warped = mirror(name).pictures(pictures[0], TOP)

    def block(picture: torch.Tensor) -> np.ndarray:
        """The block is bluish and darker than table and goal."""
        red, _, blue = picture[0, 0].float().movedim(-1, 0).numpy()
        bluish: np.ndarray = (red < 165) & (blue > red + 20)
        return bluish

    near = np.zeros((96, 96), bool)
    u, v = np.rint(_pixel(name, mirrored_place(pose[:2]))).astype(int)
    near[max(v - 14, 0) : v + 14, max(u - 14, 0) : u + 14] = True
    warped_block, seen = block(warped) & near, block(pictures[1]) & near
    assert seen.sum() > 100
    assert (warped_block & seen).sum() / (warped_block | seen).sum() > 0.75
    unmoved = block(pictures[0]) & near
    assert (unmoved & seen).sum() / (unmoved | seen).sum() < 0.5


def _pixel(env: str, place: np.ndarray) -> np.ndarray:
    u, v, scale = table_homography("top", CONFIG, env) @ [*place, 1.0]
    return 96 * np.array([u, v]) / scale


def test_what_has_no_mirror_is_refused() -> None:
    with pytest.raises(InputError, match=r"symmetries: expected some of \['mirror'\], found 'turn'"):
        isometry("turn", CONFIG)
    with pytest.raises(InputError, match="mirror: expected a goal whose axis is one of the workspace's"):
        isometry("mirror", dataclasses.replace(CONFIG, goal_pose=(0.45, 0.0, 0.3)))
    with pytest.raises(InputError, match="mirror: expected a goal whose axis"):
        isometry("mirror", dataclasses.replace(CONFIG, goal_pose=(0.40, 0.0, -np.pi / 4)))
    with pytest.raises(InputError, match="expected a scene with a single goal, found 1"):
        isometry("mirror", dataclasses.replace(CONFIG, goals={"red": GoalConfig((0.5, 0.0, 0.0), (1.0, 0.0, 0.0))}))
