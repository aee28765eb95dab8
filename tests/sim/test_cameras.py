"""Calibration: what `project` says lies where the renderer draws it."""

from collections.abc import Iterator

import numpy as np
import pytest
import shapely

from sim import PushTConfig, PushTEnv
from sim.bullet import pb
from sim.cameras import Camera
from sim.geometry import BAR, GOAL_POSE, PUSHER_RADIUS, STEM, transform

CAMERAS = ("top", "oblique")
BLOCK = np.array([0.56, -0.10, 2.0])
PUSHER = np.array([0.32, 0.15])


@pytest.fixture(scope="module")
def env() -> Iterator[PushTEnv]:
    env = PushTEnv(cameras=CAMERAS)
    env.reset(seed=0, options={"pusher": PUSHER, "block_pose": BLOCK})
    yield env
    env.close()


def prisms(camera: Camera, pose: np.ndarray, height: float) -> shapely.Geometry:
    """The outline in pixels of bar and stem from the table up to `height`."""
    hulls = []
    for shape in (BAR, STEM):
        corners = transform(np.array(shape.exterior.coords), pose)
        points = [np.column_stack([corners, np.full(len(corners), z)]) for z in (0.0, height)]
        hulls.append(shapely.MultiPoint(camera.project(np.concatenate(points))).convex_hull)
    return shapely.union_all(hulls)


def mask_of(outline: shapely.Geometry, size: int) -> np.ndarray:
    """The pixels whose ray hits it: the renderer sends them through a pixel's lower left corner."""
    u, v = np.meshgrid(np.arange(size), np.arange(size) + 1)
    return shapely.contains_xy(outline, u, v)


def centroid(mask: np.ndarray) -> np.ndarray:
    """u, v of the mask's middle."""
    return np.argwhere(mask).mean(axis=0)[::-1] + 0.5


@pytest.mark.parametrize("name", CAMERAS)
def test_block_and_goal_are_where_they_project(env: PushTEnv, name: str) -> None:
    camera = env.cameras[name]
    bodies = camera.segment(env.scene.client) & ((1 << 24) - 1)
    height = env.config.physics.block_height
    for body, pose, top in ((env.scene.block, BLOCK, height), (env.scene.goals[""], GOAL_POSE, 0.0)):
        seen = bodies == body
        outline = prisms(camera, pose, top)
        expected = mask_of(outline, camera.config.size)
        assert seen.sum() > 40
        assert np.linalg.norm(centroid(seen) - [outline.centroid.x, outline.centroid.y]) < 1.0
        assert (seen & expected).sum() / (seen | expected).sum() > 0.9


@pytest.mark.parametrize("name", CAMERAS)
def test_the_pusher_is_where_it_projects(env: PushTEnv, name: str) -> None:
    camera = env.cameras[name]
    angle = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    ring = PUSHER + PUSHER_RADIUS * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    points = [np.column_stack([ring, np.full(16, z)]) for z in (env.config.arm.tip_height, 0.04)]
    outline = shapely.MultiPoint(camera.project(np.concatenate(points))).convex_hull
    links = camera.segment(env.scene.client)
    expected = mask_of(outline, camera.config.size)
    assert expected.sum() > 10
    assert (links[expected] == env.scene.arm + ((env.scene.tip + 1) << 24)).mean() > 0.85


@pytest.mark.parametrize("name", [*CAMERAS, "video"])
def test_locate_inverts_project(name: str) -> None:
    camera = Camera(PushTConfig().cameras[name])
    generator = np.random.default_rng(0)
    for height in (0.0, 0.015, 0.2):
        points = np.column_stack([generator.uniform([0.26, -0.19], [0.64, 0.19], (50, 2)), np.full(50, height)])
        np.testing.assert_allclose(camera.locate(camera.project(points), height), points, atol=1e-9)


@pytest.mark.parametrize("name", CAMERAS)
def test_the_workspace_is_in_the_picture_and_rises_right_way_up(name: str) -> None:
    camera = Camera(PushTConfig().cameras[name])
    corners = np.array([[x, y, 0] for x in (0.258, 0.642) for y in (-0.192, 0.192)])
    assert ((camera.project(corners) >= 0) & (camera.project(corners) <= camera.config.size)).all()
    low, high = camera.project(np.array([[0.45, 0.0, 0.0], [0.45, 0.0, 0.1]]))
    assert high[1] < low[1]  # v runs down


def test_pictures_show_the_colours_of_the_scene(env: PushTEnv) -> None:
    picture = env.cameras["top"].render(env.scene.client)
    assert picture.shape == (96, 96, 3)
    assert picture.dtype == np.uint8
    for pose, colour in ((BLOCK, env.config.colours.block), (GOAL_POSE, env.config.colours.goal)):
        point = np.append(transform(np.array([[-0.01, 0.0]]), pose)[0], 0.0)
        u, v = env.cameras["top"].project(point).astype(int)
        shown = picture[v, u] / 255
        assert np.abs(shown / shown.sum() - np.array(colour) / sum(colour)).max() < 0.05  # lit, but of its hue


@pytest.mark.parametrize("name", CAMERAS)
def test_pictures_of_a_pybullet_without_numpy_are_the_same(
    env: PushTEnv, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    camera, client = env.cameras[name], env.scene.client
    expected = camera.render(client), camera.segment(client)
    with_numpy = pb.getCameraImage

    def flat(*args: object, **options: object) -> tuple:
        width, height, *pictures = with_numpy(*args, **options)
        return (width, height, *(tuple(np.ravel(picture).tolist()) for picture in pictures))

    monkeypatch.setattr(pb, "getCameraImage", flat)
    np.testing.assert_array_equal(camera.render(client), expected[0])
    np.testing.assert_array_equal(camera.segment(client), expected[1])
