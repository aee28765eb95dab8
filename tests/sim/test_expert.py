"""The planar model against known cases, the ways around the block, and the expert in both environments."""

import numpy as np
import pytest
import shapely

from sim import make_env
from sim.expert.expert import Expert
from sim.expert.path import BlockMap
from sim.geometry import GOAL_POSE, PUSHER_RADIUS, T_SHAPE, coverage, transform, wrap_angle
from sim.planar import Contacts, PlanarModel, Pushes, outline_contacts, pose_distance
from vla_policy.collection.demonstrator import Behaviour, demonstrate

EVERYWHERE = shapely.box(-1, -1, 1, 1)
POSE = np.array([0.47, -0.03, 0.6])


def pushes(points: list[list[float]], normals: list[list[float]]) -> Pushes:
    return Pushes(PlanarModel(contacts=Contacts(np.array(points), np.array(normals))))


def test_push_through_the_centre_of_friction_moves_straight() -> None:
    model = pushes([[0.0, 0.0]], [[-1.0, 0.0]])
    moved = model.apply(POSE, np.array(0), np.array(0.05))
    expected = POSE[:2] + transform(np.array([[-0.05, 0.0]]), np.array([0, 0, POSE[2]]))[0]
    np.testing.assert_allclose(moved[:2], expected, atol=1e-5)
    np.testing.assert_allclose(moved[2], POSE[2], atol=1e-4)


def test_turn_of_an_eccentric_push_has_its_closed_form() -> None:
    # Contact at the bar's outer edge, 40 mm off the centre: omega = m / (r^2 + m^2) per metre of advance.
    model = pushes([[0.0, 0.04]], [[-1.0, 0.0]])
    moment, radius = 0.04, model.model.radius
    moved = model.apply(POSE, np.array(0), np.array(0.01))
    np.testing.assert_allclose(moved[2] - POSE[2], 0.01 * moment / (radius**2 + moment**2), rtol=1e-9)


def test_contact_advances_along_its_normal_as_commanded() -> None:
    model = Pushes(PlanarModel())
    step = 1e-6
    for contact in range(len(model.contacts)):
        point, normal = model.contacts.points[[contact]], model.contacts.normals[contact]
        moved = model.apply(POSE, np.array(contact), np.array(step))
        advance = transform(point, moved)[0] - transform(point, POSE)[0]
        inward = transform(normal[None], np.array([0, 0, POSE[2]]))[0]
        assert advance @ inward == pytest.approx(step, rel=1e-3)


def test_mirrored_pushes_move_mirrored() -> None:
    model = pushes([[0.0, 0.03], [0.0, -0.03]], [[-1.0, 0.0], [-1.0, 0.0]])
    start = np.zeros((2, 3))
    left, right = model.apply(start, np.array([0, 1]), np.array([0.03, 0.03]))
    np.testing.assert_allclose(left, right * [1, -1, -1], atol=1e-12)


def test_no_push_no_motion_and_pushes_add_up() -> None:
    model = Pushes(PlanarModel())
    contact = np.arange(len(model.contacts))
    np.testing.assert_allclose(model.apply(POSE, contact, np.zeros(len(contact))), np.tile(POSE, (len(contact), 1)))
    twice = model.apply(model.apply(POSE, contact, np.full(len(contact), 0.01)), contact, np.full(len(contact), 0.02))
    np.testing.assert_allclose(twice, model.apply(POSE, contact, np.full(len(contact), 0.03)), atol=1e-9)


def test_best_push_is_the_best_of_many() -> None:
    model = Pushes(PlanarModel(contacts=outline_contacts(0.012)))
    centre = np.array(model.model.centre)
    distance, left = model.best(POSE[None], GOAL_POSE, 0.042)
    tried = np.linspace(-0.05, 0.15, 4001)
    for contact in range(len(model.contacts)):
        poses = model.apply(np.tile(POSE, (len(tried), 1)), np.full(len(tried), contact), tried)
        errors = pose_distance(poses, GOAL_POSE, 0.042, centre)
        assert left[0, contact] <= errors.min() + 1e-5
        if tried[0] < distance[0, contact] < tried[-1]:
            reached = model.apply(POSE, np.array(contact), distance[0, contact])
            assert pose_distance(reached, GOAL_POSE, 0.042, centre) == pytest.approx(errors.min(), abs=1e-5)


def test_model_agrees_with_gym_pusht() -> None:
    """A straight push of the bar's outer edge, 20 mm off the middle."""
    pytest.importorskip("gym_pusht")
    model = Pushes(PlanarModel(contacts=Contacts(np.array([[0.0, 0.02]]), np.array([[-1.0, 0.0]]))))
    pose = np.array([0.45, 0.0, 0.0])
    env = make_env("gym_pusht", ())
    start = transform(model.contacts.pusher(0.0005), pose)[0]
    _, info = env.reset(seed=0, options={"pusher": start, "block_pose": pose})
    for _ in range(10):
        info = env.step(start - [0.004, 0.0])[-1]  # short, so that the contact does not slide far
    env.close()
    turned = float(wrap_angle(info["block_pose"][2] - pose[2]))
    predicted = model.apply(pose, np.array(0), np.array(turned / model.turns[0]))
    assert turned > 0.02
    np.testing.assert_allclose(info["block_pose"][:2], predicted[:2], atol=0.0002)


def test_contacts_leave_room_for_the_pusher() -> None:
    contacts = outline_contacts()
    for place, point in zip(contacts.pusher(), contacts.points, strict=True):
        assert T_SHAPE.distance(shapely.Point(point)) < 1e-9
        assert T_SHAPE.distance(shapely.Point(place)) == pytest.approx(PUSHER_RADIUS, abs=1e-6)


def test_paths_around_the_block_never_touch_it() -> None:
    clearance = 0.008
    block_map = BlockMap(outline_contacts(0.01), clearance)
    forbidden = T_SHAPE.buffer(PUSHER_RADIUS + clearance - 2e-4)
    open_contacts = ~shapely.contains_xy(forbidden, block_map.approaches)  # not those deep in the T's armpits
    assert open_contacts.mean() > 0.8
    generator = np.random.default_rng(0)
    starts = [s for s in generator.uniform(-0.2, 0.2, (40, 2)) if not forbidden.intersects(shapely.Point(s))]
    for start in starts:
        routes = block_map.routes(start, EVERYWHERE)
        np.testing.assert_array_equal(np.isfinite(routes.lengths), open_contacts)
        for contact in np.flatnonzero(open_contacts):
            path = routes.path(contact)
            np.testing.assert_allclose(path[[0, -1]], [start, block_map.places[contact]])
            assert shapely.LineString(path).length == pytest.approx(routes.lengths[contact], abs=1e-6)
            assert not routes.inside[contact]
            assert not forbidden.intersects(shapely.LineString(path[:-1]))


def test_the_retreat_from_a_contact_is_straight() -> None:
    block_map = BlockMap(outline_contacts(0.01), 0.008)
    for contact, place in enumerate(block_map.places):
        path = block_map.routes(place, EVERYWHERE).path((contact + len(block_map.places) // 2) % len(block_map.places))
        line = shapely.LineString(path[:2])
        assert T_SHAPE.distance(line) > PUSHER_RADIUS - 1e-6
        assert T_SHAPE.distance(shapely.Point(path[1])) > PUSHER_RADIUS + 0.0079


def test_walls_block_paths() -> None:
    block_map = BlockMap(outline_contacts(0.01), 0.008)
    start = np.array([0.05, 0.0])  # off the bar's outer edge; the stem's end is behind the block
    behind = int(np.argmin(block_map.places[:, 0]))
    assert np.isfinite(block_map.routes(start, EVERYWHERE).lengths[behind])
    # Walls at the bar's ends: no way past them, but the outer edge is still there to be pushed.
    lengths = block_map.routes(start, shapely.box(-1, -0.05, 1, 0.05)).lengths
    assert np.isinf(lengths[behind])
    assert np.isfinite(lengths[block_map.places[:, 0] > 0]).all()


def test_paths_stay_in_the_window() -> None:
    block_map = BlockMap(outline_contacts(0.01), 0.008)
    generator = np.random.default_rng(0)
    open_ways = 0
    for start in generator.uniform([0.03, -0.04], [0.05, 0.04], (10, 2)):
        low, high = generator.uniform([-0.12, -0.09], [-0.05, -0.05]), generator.uniform([0.06, 0.05], [0.09, 0.09])
        window = shapely.box(*low, *high)
        routes = block_map.routes(start, window)
        for contact in np.flatnonzero(np.isfinite(routes.lengths)):
            assert window.buffer(1e-9).contains(shapely.LineString(routes.path(contact)))
            open_ways += 1
    assert open_ways > 50


def test_the_retreat_avoids_the_walls() -> None:
    block_map = BlockMap(outline_contacts(0.01), 0.008)
    start = np.array([PUSHER_RADIUS, 0.0])  # in touch with the bar's outer edge
    np.testing.assert_allclose(block_map.way_out(start, EVERYWHERE), [PUSHER_RADIUS + 0.008, 0.0])
    wall = shapely.box(-1, -1, PUSHER_RADIUS + 0.002, 1)  # less than the clearance from it
    way_out = block_map.way_out(start, wall)
    assert wall.buffer(1e-9).contains(shapely.Point(way_out))
    assert T_SHAPE.distance(shapely.Point(way_out)) > PUSHER_RADIUS


def test_expert_holds_where_walls_shut_it_in() -> None:
    """Behind a block that lies across a corner every way is closed: it stays, and does not fail."""
    pusher = np.array([10.0, 10.0])
    np.testing.assert_array_equal(Expert().act(pusher, np.array([10.1, 10.1, 0.0])), pusher)


def test_the_expert_moves_slowly_and_repeatably() -> None:
    expert = Expert()
    generator = np.random.default_rng(1)
    for _ in range(20):
        pusher = generator.uniform([0.3, -0.15], [0.6, 0.15])
        pose = generator.uniform([0.42, -0.03, -np.pi], [0.48, 0.03, np.pi])
        expert.reset()
        first = expert.act(pusher, pose)
        expert.reset()
        np.testing.assert_array_equal(expert.act(pusher, pose), first)
        np.testing.assert_array_equal(Expert().act(pusher, pose), first)
        assert np.linalg.norm(first - pusher) <= 2 * 0.016 + 1e-9


def test_expert_goes_to_another_goal() -> None:
    """In the planar model alone: the pusher is where the expert wants it, the block moves as predicted."""
    goal = np.array([0.42, 0.03, 1.0])
    expert = Expert(goal)
    planner, pose = expert.planner, np.array([0.45, -0.03, 0.2])
    pusher, chosen = np.array([0.35, 0.1]), None
    for _ in range(8):
        plan = planner.plan(pose, planner.routes(pusher, pose), chosen)
        assert plan is not None
        pose = planner.pushes.apply(pose, np.array(plan.contact), np.array(plan.distance))
        pusher, chosen = transform(planner.map.places[[plan.contact]], pose)[0], plan.contact
        if coverage(pose, goal) > 0.95:
            return
    pytest.fail(f"coverage is {coverage(pose, goal)} after 8 planned pushes")


@pytest.mark.parametrize("name", ["pybullet", "gym_pusht"])
def test_expert_solves_a_few_starts(name: str) -> None:
    if name == "gym_pusht":
        pytest.importorskip("gym_pusht")
    env = make_env(name, ())
    played = [demonstrate(env, seed, Behaviour()) for seed in (201, 202, 203)]
    env.close()
    assert all(p.success for p in played)
    assert np.median([p.steps for p in played]) < 150


def test_a_demonstration_continues_after_success() -> None:
    env, gains = make_env("pybullet", ()), []
    for seed in (201, 202, 203):
        short, long = (demonstrate(env, seed, Behaviour(noise=0.003, after_success=steps)) for steps in (0, 10))
        assert short.success
        assert long.success
        assert long.steps == short.steps + 10
        for key, values in short.columns.items():  # and is the same until then
            np.testing.assert_array_equal(long.columns[key][: short.steps], values)
        assert short.max_coverage > 0.95
        gains.append(long.max_coverage - short.max_coverage)
    env.close()
    assert min(gains) >= 0
    assert max(gains) > 0  # which of them gain depends on the processor's last digits


@pytest.mark.slow
def test_expert_solves_nearly_all_starts_even_with_noise() -> None:
    env = make_env("pybullet", ())
    played = [demonstrate(env, seed, Behaviour(noise=0.003)) for seed in range(220, 240)]
    env.close()
    assert sum(p.success for p in played) >= 18
    assert np.median([p.steps for p in played if p.success]) <= 150
