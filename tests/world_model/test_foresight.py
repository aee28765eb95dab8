"""Chunks for several states in which they may begin, and the choice when they do."""

import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from helpers.small_diffusion import histories_of, small_policy
from torch import Tensor

from vla_policy.conf.dynamics_config import DynamicsConfig
from vla_policy.interfaces import (
    ACTION,
    ENVIRONMENT_STATE,
    STATE,
    ActionChunk,
    Branches,
    Given,
    InputError,
    Observation,
)
from vla_policy.models import DiffusionPolicy, EncoderConfig, TransformerConfig
from vla_policy.world_model.dynamics import Dynamics, fit_dynamics
from vla_policy.world_model.foresight import Foresight

ROWS = np.linspace([0.3, 0.2], [0.5, 0.4], 11)


class Known(Dynamics):
    """The pusher is where it was told to be; in future k of an observation the block moves by k centimetres a step."""

    samples = 3

    def imagine(self, past: Tensor, commands: Tensor, generator: torch.Generator) -> Tensor:
        states = past[:, -1:].repeat(1, commands.shape[1], 1)
        states[..., :2] = commands
        speed = 0.01 * (torch.arange(len(past)) % self.samples)
        states[..., 2] += speed[:, None] * (1 + torch.arange(commands.shape[1]))
        return states


def known(policy: DiffusionPolicy, **changes: Any) -> Dynamics:
    small = TransformerConfig(width=32, depth=2, heads=2, time_width=16)
    keys = {"state_keys": [STATE, ENVIRONMENT_STATE], "past": 2, "future": 5, "transformer": small, **changes}
    batch = {STATE: torch.rand(8, 7, 2), ENVIRONMENT_STATE: torch.rand(8, 7, 4), ACTION: torch.rand(8, 7, 2)}
    config = DynamicsConfig(**keys)
    return Known(config, policy.full_interface, fit_dynamics(batch, config))


def branches(policy: DiffusionPolicy, frozen: int) -> Branches:
    (history,) = histories_of(policy, 1)
    (chunk,) = Foresight(policy, known(policy), 3).predict([history], np.random.default_rng(5), [Given(ROWS, frozen)])
    assert isinstance(chunk, Branches)
    return chunk


def test_the_policy_is_asked_about_each_state_in_which_its_chunk_may_begin() -> None:
    policy = small_policy()
    free, led = histories_of(policy, 2)
    found = Foresight(policy, known(policy), 3).predict([free, led], np.random.default_rng(5), [None, Given(ROWS, 4)])

    newest, windows = led[-1], [free]
    for future in range(3):
        later = []
        for step in (3, 4):  # control periods on
            block = newest.values[ENVIRONMENT_STATE] + np.array([0.01 * future * step, 0, 0, 0], np.float32)
            values = {STATE: ROWS[step - 1].astype(np.float32), ENVIRONMENT_STATE: block}
            later.append(Observation(values, newest.task, newest.t + 0.1 * step))
        windows.append(later)
    generator = np.random.default_rng(5)
    generator.integers(2**63 - 1)  # the noise of what is imagined
    expected = policy.predict(windows, generator)
    np.testing.assert_allclose(found[0].actions, expected[0].actions, atol=1e-6)
    assert found[1].t_obs == newest.t
    assert isinstance(found[1], Branches)
    for candidate, own in zip(found[1].candidates, expected[1:], strict=True):
        assert (candidate[:4] == ROWS[:4]).all()  # to the last bit
        np.testing.assert_allclose(candidate[4:], own.actions, atol=1e-6)
    moved = found[1].expected[ENVIRONMENT_STATE][:, 4, 0] - newest.values[ENVIRONMENT_STATE][0]
    np.testing.assert_allclose(moved, [0, 0.04, 0.08], atol=1e-6)


@pytest.mark.parametrize(("moved", "chosen"), [(-0.1, 0), (0.019, 0), (0.021, 1), (0.059, 1), (0.3, 2)])
def test_the_chunk_for_the_nearest_state_is_played(moved: float, chosen: int) -> None:
    chunk = branches(small_policy(), frozen=4)
    seen = {key: states[0, 4] for key, states in chunk.expected.items()}
    seen[ENVIRONMENT_STATE] = seen[ENVIRONMENT_STATE] + np.array([moved, 0, 0, 0])
    played = chunk.nearest(Observation(seen, "", chunk.t_obs + 0.4))
    assert type(played) is ActionChunk
    assert (played.actions == chunk.candidates[chosen]).all()


@pytest.mark.parametrize("periods", [0.1, 0.4, 1, 1.5, 2.7, 4, 5, 7])
def test_a_chunk_that_comes_early_or_late_is_chosen_by_what_was_expected_then(periods: float) -> None:
    chunk = branches(small_policy(), frozen=4)
    for future in range(3):
        seen = {key: states[future, 0].copy() for key, states in chunk.expected.items()}
        seen[ENVIRONMENT_STATE][0] += 0.01 * future * min(periods, 5)  # beyond what is imagined, the last
        played = chunk.nearest(Observation(seen, "", chunk.t_obs + 0.1 * periods))
        assert (played.actions == chunk.candidates[future]).all()


def test_what_is_seen_at_the_same_time_tells_no_future_apart() -> None:
    chunk = branches(small_policy(), frozen=4)
    seen = {key: states[2, 4] for key, states in chunk.expected.items()}
    assert (chunk.nearest(Observation(seen, "", chunk.t_obs)).actions == chunk.candidates[0]).all()


def test_how_far_a_state_usually_moves_is_the_unit_of_its_errors() -> None:
    rows = np.arange(4.0).reshape(2, 2, 1)
    expected = {STATE: np.array([[[0.0]] * 2, [[1.0]] * 2]), ENVIRONMENT_STATE: np.array([[[1.0]] * 2, [[0.0]] * 2])}
    seen = Observation(
        {STATE: np.zeros(1), ENVIRONMENT_STATE: np.zeros(1)}, "", 0.1
    )  # each is wrong by 1 in one of them
    for scale, best in (([1.0, 2.0], 0), ([2.0, 1.0], 1), ([0.0, 1.0], 1)):  # of the last the pusher never moved
        unit = {key: np.array([[0.0], [value]]) for key, value in zip(expected, scale, strict=True)}
        chunk = Branches(rows[0], 0.0, 0.1, candidates=rows, expected=expected, scale=unit)
        assert (chunk.nearest(seen).actions == rows[best]).all()


def test_what_will_be_executed_is_kept_beyond_what_is_imagined() -> None:
    candidates = branches(small_policy(), frozen=7).candidates
    assert (candidates[:, :7] == ROWS[:7]).all()
    assert candidates.shape[1] == 5 + 15  # the policy's begin at the fifth row


def test_without_given_rows_it_is_the_policy() -> None:
    policy = small_policy()
    histories = histories_of(policy, 2)
    ours = Foresight(policy, known(policy), 3).predict(histories, np.random.default_rng(3))
    theirs = policy.predict(histories, np.random.default_rng(3))
    for one, other in zip(ours, theirs, strict=True):
        assert (one.actions == other.actions).all()


def test_the_dynamics_must_be_of_what_the_policy_sees() -> None:
    policy = small_policy()
    with pytest.raises(InputError, match=r"planner\.dynamics: expected states that are all the policy acts on, \["):
        Foresight(policy, known(policy, state_keys=[STATE]), 3)
    with pytest.raises(InputError, match=r"expected dynamics\.past of at most the 2 observations .* found 3"):
        Foresight(policy, known(policy, past=3, future=4), 3)
    with pytest.raises(InputError, match=r"expected a policy that sees states, or estimates of them alone .*, found"):
        Foresight(small_policy(image=True), known(policy), 3)
    with pytest.raises(InputError, match=r"found one that sees more of its pictures"):
        Foresight(small_policy(image=True, auxiliary_keys=[ENVIRONMENT_STATE]), known(policy), 3)


def seeing(**changes: Any) -> DiffusionPolicy:
    """A policy that acts on what its encoder estimates of pictures alone."""
    encoder = EncoderConfig(channels=[8, 16], keypoints=4, grid=2, tokens=False)
    return small_policy(image=True, auxiliary_keys=[ENVIRONMENT_STATE], encoder=encoder, n_image_steps=1, **changes)


def test_what_pictures_show_is_estimated_and_then_imagined() -> None:
    policy = seeing()
    free, led = histories_of(policy, 2)
    planner = Foresight(policy, known(policy), 3)
    (alone,) = planner.predict([free], np.random.default_rng(5))
    (own,) = policy.predict([free], np.random.default_rng(5))
    np.testing.assert_allclose(alone.actions, own.actions, atol=1e-5)

    (chunk,) = planner.predict([led], np.random.default_rng(5), [Given(ROWS, 4)])
    estimates = policy.estimates(policy.batch([led]), steps=2)[ENVIRONMENT_STATE][0].numpy()
    assert isinstance(chunk, Branches)
    for future, states in enumerate(chunk.expected[ENVIRONMENT_STATE]):
        np.testing.assert_allclose(states[0], estimates[-1], atol=1e-6)
        np.testing.assert_allclose(states[4, 0] - estimates[-1][0], 0.04 * future, atol=1e-6)


def test_the_chunk_for_what_a_later_picture_shows_is_played() -> None:
    policy = seeing()
    history, later = histories_of(policy, 2)
    chunk = Foresight(policy, known(policy), 3).predict([history], np.random.default_rng(5), [Given(ROWS, 4)])[0]
    assert isinstance(chunk, Branches)
    shown = policy.estimates(policy.batch([later]))[ENVIRONMENT_STATE][0, -1].numpy()
    seen = Observation({**later[-1].values, STATE: ROWS[3].astype(np.float32)}, "", chunk.t_obs + 0.4)
    for future in range(3):  # the only one in which the block comes to where the later picture shows it
        expected = chunk.expected[ENVIRONMENT_STATE] + 0.1
        expected[future, 4] = shown
        told = replace(chunk, expected={**chunk.expected, ENVIRONMENT_STATE: expected})
        assert (told.nearest(seen).actions == chunk.candidates[future]).all()


def test_a_chunk_of_states_alone_is_small_enough_for_other_processes() -> None:
    chunk = branches(small_policy(), frozen=4)
    assert b"vla_policy.world_model" not in pickle.dumps(chunk)


def test_estimates_must_be_finite_and_of_one_encoder() -> None:
    policy = seeing()
    planner = Foresight(policy, known(policy), 3)
    with torch.no_grad():
        next(policy.auxiliary.parameters()).fill_(torch.nan)
    with pytest.raises(InputError, match="policy: expected finite estimates of its pictures"):
        planner.predict(histories_of(policy, 1), np.random.default_rng(5), [Given(ROWS, 4)])
    with pytest.raises(InputError, match=r"planner: expected one policy, .*, found an ensemble of 2"):
        Foresight(seeing(ensemble=2), known(policy), 3)
