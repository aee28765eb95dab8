"""A planner's imagined states against what comes."""

import numpy as np
import pytest

from vla_policy.interfaces import STATE, ActionChunk, Observation
from vla_policy.monitoring import ImaginedStates

SPREAD = {STATE: np.array([[0.1, 0.2], [0.2, 0.4], [0.3, 0.6]])}


def chunk(t: float, *states: tuple[float, float]) -> ActionChunk:
    """Played from t on, in the first state, with the others imagined to follow."""
    return ActionChunk(np.zeros((3, 2)), t, 0.1, {STATE: np.array(states)})


def seen(t: float) -> Observation:
    return Observation({}, "", t)


def test_the_error_is_that_of_the_step_that_has_come_in_units_of_usual_motion() -> None:
    score = ImaginedStates(SPREAD)
    first = chunk(0.0, (0, 0), (1, 1), (2, 2), (3, 3))
    assert score.update(seen(0.0), None, None) is None
    assert score.update(seen(0.1), np.zeros(2), first) is None
    second = chunk(0.2, (2.2, 2.0), (3, 3), (4, 4), (5, 5))  # two steps on, 0.2 beside what was imagined
    assert score.update(seen(0.3), np.zeros(2), second) == pytest.approx(((0.2 / 0.2) ** 2 + 0) / 2)
    assert score.update(seen(0.4), np.zeros(2), None) == pytest.approx(0.5)  # repeated between chunks
    third = chunk(0.3, (3, 3.6), (0, 0), (0, 0), (0, 0))
    assert score.update(seen(0.4), np.zeros(2), third) == pytest.approx((0.6 / 0.2) ** 2 / 2)


def test_what_was_not_imagined_is_no_surprise() -> None:
    score = ImaginedStates(SPREAD)
    score.update(seen(0.1), None, chunk(0.0, (0, 0), (1, 1), (2, 2), (3, 3)))
    late = chunk(0.9, (7, 7), (8, 8), (9, 9), (10, 10))  # after the last imagined step
    assert score.update(seen(1.0), np.zeros(2), late) is None
    assert score.update(seen(1.1), np.zeros(2), ActionChunk(np.zeros((3, 2)), 1.0, 0.1)) is None  # without a planner
    score.reset()
    assert score.update(seen(1.2), None, chunk(1.1, (0, 0), (1, 1), (2, 2), (3, 3))) is None
