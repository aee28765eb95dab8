"""Every disturbance does what it says from its step on, nothing before, and is gone after a reset."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import shapely
from helpers.language import four_goals

from sim import Disturbance, DisturbedEnv, PushTConfig, PushTEnv, make_disturbed_env, make_env
from sim.bullet import pb
from sim.config import CameraConfig
from sim.disturbances import FIRST, KINDS, LAST
from sim.effects import SceneEffect
from sim.geometry import PUSHER_RADIUS, WORKSPACE_HIGH, WORKSPACE_LOW, block_polygon, transform
from sim.interface import WALL
from vla_policy.interfaces import STATE, InputError

TOP = "observation.images.top"
EVENT, STEPS = 4, 9
SMALL = CameraConfig(position=(0.95, 0.0, 1.05), target=(0.44, 0.0, 0.0), field_of_view=21.0, size=48)
CONFIG = PushTConfig(cameras={**PushTConfig().cameras, "top": SMALL})
START = {"pusher": [0.40, 0.005], "block_pose": [0.43, 0.0, np.pi]}  # the pusher behind the middle of the bar
AWAY = np.array([0.3, 0.12])

Step = tuple[dict[str, np.ndarray], float, dict]


@pytest.fixture(scope="module")
def plain() -> Iterator[PushTEnv]:
    env = PushTEnv(CONFIG)
    yield env
    env.close()


@pytest.fixture(scope="module")
def disturbed(plain: PushTEnv) -> Callable[..., DisturbedEnv]:
    """One environment serves all kinds, so that an effect that outlived its episode would be found."""
    return lambda kind, magnitude=None, step=EVENT: DisturbedEnv(plain, Disturbance(kind, magnitude, step))


def onwards(step: int) -> np.ndarray:
    """The action of a steady push against the bar."""
    return START["pusher"] + np.array([0.02 * (step + 1), 0.0])


def play(env: PushTEnv | DisturbedEnv, seed: int = 0) -> list[Step]:
    """The start and every step of a push: what is seen, rewarded and told."""
    observation, info = env.reset(seed=seed, options=START)
    steps = [(observation, 0.0, info)]
    for step in range(STEPS):
        observation, reward, _, _, info = env.step(onwards(step))
        steps.append((observation, reward, info))
    env.reset(seed=99)  # takes every effect back
    return steps


def equal(a: Step, b: Step) -> bool:
    told = all(np.array_equal(a[2][key], b[2][key]) for key in ("block_pose", "pos_agent", "vel_agent", "n_contacts"))
    return told and a[1] == b[1] and all(np.array_equal(a[0][key], b[0][key]) for key in a[0])


def moved(a: dict, b: dict) -> float:
    """Metres between the block's centres of mass, as two `info` tell them."""
    lever = np.array([[-CONFIG.physics.centre_of_mass, 0.0]])
    return float(np.linalg.norm(transform(lever, a["block_pose"]) - transform(lever, b["block_pose"])))


@pytest.fixture(scope="module")
def nominal(plain: PushTEnv) -> list[Step]:
    return play(plain)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_differs_before_and_something_does_after(
    kind: str, disturbed: Callable[..., DisturbedEnv], nominal: list[Step], plain: PushTEnv
) -> None:
    env = disturbed(kind)
    first = play(env)
    assert all(equal(a, b) for a, b in zip(first[: EVENT + 1], nominal, strict=False))
    assert not all(equal(a, b) for a, b in zip(first[EVENT + 1 :], nominal[EVENT + 1 :], strict=True))
    assert [step[2]["event"] for step in first] == [""] * (EVENT + 1) + [kind] * (STEPS - EVENT)
    assert {step[2]["event_step"] for step in first} == {EVENT}
    assert all(equal(a, b) for a, b in zip(first, play(env), strict=True))
    assert all(equal(a, b) for a, b in zip(play(plain), nominal, strict=True))


def test_kinds_that_move_nothing_leave_the_world_as_it_was(
    disturbed: Callable[..., DisturbedEnv], nominal: list[Step]
) -> None:
    for kind in ("recolour", "light", "camera_shift", "frozen_camera", "dropped_frames", "occluder"):
        steps = play(disturbed(kind))
        for a, b in zip(steps, nominal, strict=True):
            np.testing.assert_array_equal(a[2]["block_pose"], b[2]["block_pose"], kind)
            np.testing.assert_array_equal(a[0][STATE], b[0][STATE], kind)
        if kind != "dropped_frames":
            changed = [not np.array_equal(a[0][TOP], b[0][TOP]) for a, b in zip(steps, nominal, strict=True)]
            assert changed == [False] * (EVENT + 1) + [True] * (STEPS - EVENT), kind


@pytest.mark.parametrize("magnitude", [0.05, 0.1])
def test_the_block_jumps_by_its_magnitude_and_overlaps_nothing(magnitude: float, plain: PushTEnv) -> None:
    env = DisturbedEnv(plain, Disturbance("block_teleport", magnitude, step=0))
    poses = []
    for seed in range(12):
        _, before = env.reset(seed=seed)
        pose, pusher = before["block_pose"], before["pos_agent"]
        *_, info = env.step(pusher)
        assert moved(info, before) == pytest.approx(magnitude, abs=2e-5)
        assert np.linalg.norm(info["pos_agent"] - pusher) < 1e-3
        block = block_polygon(info["block_pose"])
        assert block.distance(shapely.Point(pusher)) > PUSHER_RADIUS
        assert block.bounds[0] > WORKSPACE_LOW[0] + WALL
        assert block.bounds[3] < WORKSPACE_HIGH[1] - WALL
        poses.append(info["block_pose"] - pose)
    assert np.std(poses, axis=0).min() > 0.02  # another direction and turn each time


def test_the_pusher_jumps_by_its_magnitude_and_not_into_the_block(plain: PushTEnv) -> None:
    env = DisturbedEnv(plain, Disturbance("pusher_teleport", 0.1, step=0))
    for seed in range(12):
        _, before = env.reset(seed=seed)
        start, block = before["pos_agent"], block_polygon(before["block_pose"])
        env._effect.begin()
        place = plain.scene.pusher_state()[0][:2]
        assert np.linalg.norm(place - start) == pytest.approx(0.1, abs=1e-4)
        assert block.distance(shapely.Point(place)) > PUSHER_RADIUS
        *_, info = plain.step(place)
        np.testing.assert_allclose(info["pos_agent"], place, atol=1e-3)  # its set-point came along
        np.testing.assert_allclose(info["block_pose"], before["block_pose"], atol=1e-6)


def test_colours_of_the_block_and_of_nothing_else(disturbed: Callable[..., DisturbedEnv], nominal: list[Step]) -> None:
    def change(magnitude: float) -> tuple[np.ndarray, np.ndarray]:
        seen = play(disturbed("recolour", magnitude))[-1][0][TOP].astype(int)
        difference = np.abs(seen - nominal[-1][0][TOP]).max(axis=-1)
        return difference, difference > 0

    (strong, where), (weak, _) = change(1.0), change(0.2)
    assert 0.01 < where.mean() < 0.15  # the block's share of the picture
    assert strong.max() > 2 * weak.max() > 20


def test_light_falls_on_the_table_too(disturbed: Callable[..., DisturbedEnv]) -> None:
    def table(magnitude: float) -> list[float]:
        return [step[0][TOP][0].mean() for step in play(disturbed("light", magnitude))]

    strong, mild = table(1.0), table(0.3)
    assert strong[-1] < 0.8 * strong[EVENT]
    assert strong[-1] < mild[-1] < mild[EVENT]
    env = disturbed("light", step=0)
    env.reset(seed=0)
    bright = env.render().mean()
    env.step(AWAY)
    assert env.render().mean() < 0.8 * bright  # films show it too
    env.reset(seed=0)
    assert env.render().mean() == bright


def test_cameras_shift_by_metres(plain: PushTEnv) -> None:
    cameras = plain.cameras
    env = DisturbedEnv(plain, Disturbance("camera_shift", 0.03, step=0))
    env.reset(seed=2)
    point = np.array([0.45, 0.0, 0.0])
    before = plain.cameras["top"]
    env.step(point[:2])
    after = plain.cameras["top"]
    offset = np.array(after.config.position) - before.config.position
    assert np.linalg.norm(offset) == pytest.approx(0.03)
    assert offset @ before.extrinsics[2, :3] == pytest.approx(0.0, abs=1e-12)  # not towards the scene
    np.testing.assert_allclose(after.extrinsics[:3, :3], before.extrinsics[:3, :3], atol=1e-12)
    np.testing.assert_allclose(before.project(point - offset), after.project(point))
    env.reset(seed=2)
    assert plain.cameras is cameras


def test_frozen_and_dropped_pictures(disturbed: Callable[..., DisturbedEnv], nominal: list[Step]) -> None:
    frozen = play(disturbed("frozen_camera"))
    for step, reference in zip(frozen[EVENT + 1 :], nominal[EVENT + 1 :], strict=True):
        np.testing.assert_array_equal(step[0][TOP], nominal[EVENT][0][TOP])
        np.testing.assert_array_equal(step[0][STATE], reference[0][STATE])
    repeats, fresh = [], []
    for seed in range(3):
        dropped = [step[0][TOP] for step in play(disturbed("dropped_frames", 0.5), seed)]
        repeats += [np.array_equal(dropped[i], dropped[i - 1]) for i in range(EVENT + 1, STEPS + 1)]
        fresh += [np.array_equal(dropped[i], nominal[i][0][TOP]) for i in range(EVENT + 1, STEPS + 1)]
    assert 0 < sum(repeats) < len(repeats)
    assert all(a != b for a, b in zip(repeats, fresh, strict=True))


def test_actions_dropped_and_biased(plain: PushTEnv) -> None:
    def last(kind: str, magnitude: float | None = None) -> np.ndarray:
        env = DisturbedEnv(plain, Disturbance(kind, magnitude, step=2))
        env.reset(seed=0, options=START)
        places = [env.step(AWAY)[-1]["pos_agent"] for _ in range(15)]
        assert np.linalg.norm(places[-1] - places[-2]) < 1e-3  # at rest
        return places[-1] - (places[2] if kind == "dropped_actions" else AWAY)

    assert np.linalg.norm(last("dropped_actions")) < 0.01  # it stopped at once
    assert np.linalg.norm(last("biased_actions")) == pytest.approx(0.03, abs=2e-3)
    assert np.linalg.norm(last("biased_actions", 0.05)) == pytest.approx(0.05, abs=2e-3)


def test_blocks_that_resist(disturbed: Callable[..., DisturbedEnv], nominal: list[Step]) -> None:
    def pushed(kind: str, magnitude: float | None = None) -> tuple[list[Step], float]:
        steps = play(disturbed(kind, magnitude))
        return steps, moved(steps[-1][2], steps[EVENT][2])

    free = moved(nominal[-1][2], nominal[EVENT][2])
    assert free > 0.03
    stuck, distance = pushed("stuck_block")
    assert distance < 1e-6
    assert stuck[-1][2]["n_contacts"] > 0
    assert np.linalg.norm(stuck[-1][2]["pos_agent"] - stuck[EVENT][2]["pos_agent"]) < 0.02  # the arm stalls
    heavy, heavier = pushed("heavy_block")[1], pushed("heavy_block", 50.0)[1]
    assert heavier < heavy < 0.9 * free


def test_a_slippery_block_slides_on(plain: PushTEnv) -> None:
    def slid(env: PushTEnv | DisturbedEnv) -> float:
        env.reset(seed=0, options=START)
        for step in range(5):
            *_, before = env.step(onwards(step))
        for _ in range(4):
            *_, info = env.step(np.array(START["pusher"]))
        return moved(info, before)

    weak, strong = (slid(DisturbedEnv(plain, Disturbance("slippery_block", tau, 0))) for tau in (0.1, 0.3))
    assert 2 * slid(plain) < 2 * weak < strong


def test_a_hand_covers_more_and_more_and_touches_nothing(
    disturbed: Callable[..., DisturbedEnv], nominal: list[Step]
) -> None:
    def covered(steps: list[Step]) -> list[float]:
        return [float((a[0][TOP] != b[0][TOP]).any(axis=-1).mean()) for a, b in zip(steps, nominal, strict=True)]

    share = covered(play(disturbed("occluder")))[EVENT + 1 :]
    assert share[0] < share[2] < share[4]
    assert 0.05 < share[-1] < 0.3
    assert covered(play(disturbed("occluder", 0.1)))[-1] < share[-1]


def test_an_unknown_object_is_solid_and_pushed_like_the_block(plain: PushTEnv) -> None:
    env = DisturbedEnv(plain, Disturbance("unknown_object", step=0))
    for seed in range(6):
        _, info = env.reset(seed=seed)
        *_, after = env.step(info["pos_agent"])
        np.testing.assert_allclose(after["block_pose"], info["block_pose"], atol=1e-6)
        body, client = pb.getNumBodies(plain.scene.client) - 1, plain.scene.client
        start = np.array(pb.getBasePositionAndOrientation(body, physicsClientId=client)[0])
        for _ in range(25):
            env.step(start[:2])
        end = np.array(pb.getBasePositionAndOrientation(body, physicsClientId=client)[0])
        if np.linalg.norm((end - start)[:2]) > 0.01:
            assert end[2] == pytest.approx(start[2], abs=2e-3)  # pushed aside, upright
            return
    pytest.fail("the pusher reached the object's place in none of the episodes")


def test_the_step_is_drawn_from_the_seed(plain: PushTEnv) -> None:
    def steps(kind: str) -> list[int]:
        env = DisturbedEnv(plain, Disturbance(kind))
        return [env.reset(seed=seed)[1]["event_step"] for seed in range(12)]

    drawn = steps("recolour")
    assert drawn == steps("occluder")
    assert FIRST <= min(drawn) < max(drawn) <= LAST
    assert len(set(drawn)) > 6


def test_the_language_task_and_gym_pusht() -> None:
    env = make_disturbed_env("pybullet", ("top",), four_goals(), Disturbance("recolour", step=1))
    plain = make_env("pybullet", ("top",), four_goals())
    (ours, told), (theirs, reference) = env.reset(seed=7), plain.reset(seed=7)
    np.testing.assert_array_equal(ours[TOP], theirs[TOP])
    assert told["instruction"] == reference["instruction"] == env.task
    assert env.interface == plain.interface
    assert env.get_wrapper_attr("save_state")().assignment.instruction == env.task
    env.close(), plain.close()
    pytest.importorskip("gym_pusht")
    env = make_disturbed_env("gym_pusht", ("top",), None, Disturbance("frozen_camera", step=0))
    before, info = env.reset(seed=1)
    after, *_ = env.step(info["block_pose"][:2])
    np.testing.assert_array_equal(before[TOP], after[TOP])
    assert not np.array_equal(before[STATE], after[STATE])
    env.close()
    for kind in (kind for kind, effect in KINDS.items() if issubclass(effect, SceneEffect)):
        with pytest.raises(InputError, match=rf"kind: expected one of \['frozen_camera', .*found '{kind}'"):
            make_disturbed_env("gym_pusht", (), None, Disturbance(kind))


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"kind": "earthquake"}, r"disturbance\.kind: expected one of \['block_teleport', .*found 'earthquake'"),
        ({"kind": "recolour", "magnitude": -1.0}, r"expected a number above 0 and up to 1\.0 .*found -1\.0"),
        ({"kind": "heavy_block", "magnitude": float("nan")}, r"magnitude: expected a number .*\(kg\).*found nan"),
        ({"kind": "block_teleport", "magnitude": 5.0}, r"up to 0\.1 \(m\) for block_teleport, found 5\.0"),
        ({"kind": "stuck_block", "magnitude": 1.0}, r"magnitude: expected none for stuck_block, found 1\.0"),
        ({"kind": "light", "step": -1}, r"disturbance\.step: expected a whole number from 0 or none, found -1"),
    ],
)
def test_mistakes_are_named(values: dict, says: str) -> None:
    with pytest.raises(InputError, match=says):
        Disturbance(**values)


def test_a_kind_may_be_named_with_its_magnitude() -> None:
    assert Disturbance.parse("heavy_block") == Disturbance("heavy_block", 5.0)
    assert Disturbance.parse("heavy_block@20") == Disturbance("heavy_block", 20.0)
    for text, says in (
        ("heavy_block@much", "'heavy_block@much': expected a number after @, found 'much'"),
        ("heavy_block@", "expected a number after @, found ''"),
        ("recolour@7", "expected a number above 0 and up to 1"),
        ("earthquake@1", "found 'earthquake'"),
    ):
        with pytest.raises(InputError, match=says):
            Disturbance.parse(text)


def test_every_kind_has_a_description_and_a_unit() -> None:
    for effect in KINDS.values():
        assert effect.__doc__
        assert bool(effect.unit) == (effect.default is not None)


def test_a_step_without_a_reset_is_refused() -> None:
    env = make_disturbed_env("pybullet", (), None, Disturbance("stuck_block", step=0))
    with pytest.raises(InputError, match="expected a reset"):
        env.step(AWAY)
    env.close()
