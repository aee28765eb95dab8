"""What a planner is told to want, and what of it a robot has."""

import pickle
import sys
from typing import Any

import numpy as np
import pytest

from sim.geometry import GOAL_POSE
from sim.interface import pusht_interface
from vla_policy.evaluation.success.evaluate import EvalConfig
from vla_policy.evaluation.surprise.study import SurpriseConfig
from vla_policy.graph.application import GraphConfig
from vla_policy.interfaces import ACTION, ENVIRONMENT_STATE, STATE, Feature, InputError, Interface
from vla_policy.planning.objectives import FORBIDDEN, Gentle, KeepOut, Random, Reach, Sum
from vla_policy.planning.options import PlannerConfig, aimed, make_objective

PUSHT = pusht_interface({})
JOINTS = Feature("float32", (6,), tuple(f"joint{k}" for k in range(6)), ("rad",) * 6)


def config(objective: str, **changes: Any) -> PlannerConfig:
    return PlannerConfig("dmpc", **{"dynamics": "somewhere", "objective": objective, **changes})


def future(steps: int = 5) -> dict[str, np.ndarray]:
    """Two candidates whose pusher and block stand still."""
    return {
        ENVIRONMENT_STATE: np.tile(
            [GOAL_POSE[0], GOAL_POSE[1], np.cos(GOAL_POSE[2]), np.sin(GOAL_POSE[2])], (2, steps, 1)
        ),
        STATE: np.full((2, steps, 2), 0.4),
        ACTION: np.full((2, steps, 2), 0.4),
    }


def test_no_progress_is_worth_a_step_in_the_disc() -> None:
    candidates = future()
    candidates[ENVIRONMENT_STATE][1, :, :2] += 0.3
    candidates[STATE][0, 2] = [0.6, 0.1 + 0.029]
    candidates[STATE][1, 2] = [0.6, 0.1 + 0.031]
    chosen = config("progress+keep_out", disc=[0.6, 0.1, 0.03])
    scores = make_objective(chosen, PUSHT)(candidates)
    assert scores.argmax() == 1
    assert scores[0] == pytest.approx(-FORBIDDEN)
    assert KeepOut((0.6, 0.1), 0.03)(candidates).tolist() == [-FORBIDDEN, 0]


def test_gentle_prefers_the_smoother_of_two_that_arrive() -> None:
    candidates = future()
    candidates[ACTION][0, :, 0] = [0, 0.02, 0, 0.02, 0]
    candidates[ACTION][1, :, 0] = [0, 0.005, 0.01, 0.015, 0.02]
    assert Gentle()(candidates).argmax() == 1
    assert Gentle()(candidates)[1] == pytest.approx(0, abs=1e-12)


def test_reach_is_the_distance_of_the_robots_own_state() -> None:
    candidates = future()
    candidates[STATE][1, :, 0] += 0.1
    assert Reach((0.4, 0.4))(candidates) == pytest.approx([0, -0.1])
    joints = Interface({STATE: JOINTS}, JOINTS, 10)
    wanted = make_objective(config("reach", goal=[0.1] * 6), joints)
    assert wanted({STATE: np.zeros((1, 3, 6)), ACTION: np.zeros((1, 3, 6))}) == pytest.approx([-0.1 * np.sqrt(6)])


def test_wishes_are_added_and_the_control_knows_nothing() -> None:
    candidates = future()
    parts = [Reach((0.5, 0.4)), KeepOut((0.4, 0.4), 0.1)]
    np.testing.assert_allclose(Sum(parts)(candidates), parts[0](candidates) + parts[1](candidates))
    control, noise = Random(), np.random.default_rng(0)
    drawn = [{ACTION: noise.normal(size=(2, 5, 2))} for _ in range(400)]
    assert 0.4 < np.mean([control(each).argmax() for each in drawn]) < 0.6
    np.testing.assert_array_equal(control(drawn[0]), Random()(drawn[0]))  # in another process too


def test_progress_is_to_the_scenes_own_goal() -> None:
    plain = PlannerConfig(name="oracle")
    assert aimed(plain, [], [0.5, 0.1, 0.3]).goal == [0.5, 0.1, 0.3]
    named = PlannerConfig(name="oracle", goal=[0.4, 0.0, 0.0])
    assert aimed(named, ["red"], [0.5, 0.1, 0.3]) == named
    free = PlannerConfig(name="oracle", objective="gentle")
    assert aimed(free, ["red"], [0.5, 0.1, 0.3]) == free
    with pytest.raises(InputError, match=r"planner\.goal: expected x, y and angle in a scene with several goals"):
        aimed(plain, ["red"], [0.5, 0.1, 0.3])
    with pytest.raises(InputError, match=r"planner\.disc: expected a radius above 0, found -0\.1"):
        PlannerConfig(name="oracle", objective="keep_out", disc=[0.4, 0.0, -0.1])


def test_objectives_reach_the_processes_that_simulate() -> None:
    chosen = make_objective(config("progress+keep_out+gentle", disc=[0.4, 0.4, 0.1]), PUSHT)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(chosen))(future()), chosen(future()))


def test_a_robot_without_the_simulator_has_all_but_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name == "sim" or name.startswith("sim.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "shapely", None)
    assert make_objective(config("keep_out+gentle", disc=[0.4, 0.4, 0.1]), PUSHT)(future()).shape == (2,)
    with pytest.raises(InputError, match=r"expected the extra 'sim' for progress, found no shapely"):
        make_objective(config("progress"), PUSHT)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"objective": "speed"}, r"planner\.objective: expected some of .*found 'speed'"),
        ({"objective": "progress+"}, r"planner\.objective: expected some of .*found ''"),
        ({"objective": "keep_out"}, r"planner\.disc: expected one with planner\.objective=keep_out, found none"),
        ({"objective": "return"}, r"planner\.returns: expected one with planner\.objective=return, found none"),
        ({"objective": "progress", "disc": [0, 0]}, r"planner\.disc: expected 3 numbers, found \[0, 0\]"),
        ({"objective": "progress", "goal": [0.4, 0.1]}, r"planner\.goal: expected 3 numbers, found \[0\.4, 0\.1\]"),
        ({"objective": "reach", "goal": [0.4]}, r"planner\.goal: expected 2 numbers, found \[0\.4\]"),
        ({"objective": "progress", "samples": 0}, r"planner\.samples: expected at least 1, found 0"),
    ],
)
def test_mistakes_are_named(words: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_objective(config(**words), PUSHT)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"objective": "gentle", "goal": [1, 0, 0]}, r"planner\.goal: expected .*=progress or reach, .*, found gentle"),
        ({"objective": "progress", "disc": [1, 0, 1]}, r"planner\.disc: expected .*=keep_out, .*, found progress"),
        (
            {"objective": "keep_out+gentle", "disc": [1, 0, 1], "returns": "r"},
            r"planner\.returns: expected .*=return, ",
        ),
    ],
)
def test_an_option_that_no_objective_uses_is_named(words: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        GraphConfig(planner=config(**words))


def test_what_an_evaluation_counts_needs_no_objective() -> None:
    disc = [1.0, 0.0, 0.1]
    assert EvalConfig(planner=config("random", disc=disc)).planner.disc == disc
    with pytest.raises(InputError, match=r"planner\.goal: expected .*progress or reach"):
        EvalConfig(planner=config("random", goal=disc))
    with pytest.raises(InputError, match=r"planner\.disc: expected .*keep_out"):
        SurpriseConfig(planner=config("random", disc=disc))


def test_what_a_robot_lacks_is_named() -> None:
    with pytest.raises(InputError, match=r"planner\.disc: expected a state that begins with x and y, found \['joint0'"):
        make_objective(config("keep_out", disc=[0, 0, 1]), Interface({STATE: JOINTS}, JOINTS, 10))
    with pytest.raises(InputError, match=r"expected 'observation\.environment_state' for progress, found futures of"):
        make_objective(config("progress"), PUSHT.select([STATE]))
