"""Diffusion dynamics, and the planner that ranks what they imagine."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.small_diffusion import batch_of, histories_of, objective, small_policy
from helpers.small_world_model import make_walks
from torch import Tensor

from vla_policy.conf.dynamics_config import DynamicsConfig
from vla_policy.interfaces import ACTION, ENVIRONMENT_STATE, STATE, InputError
from vla_policy.models import DiffusionPolicy, ObjectiveConfig, TransformerConfig
from vla_policy.training import Trainer, TrainerConfig, make_windows, validate_dynamics
from vla_policy.world_model.diffusion_mpc import DiffusionMPC
from vla_policy.world_model.dynamics import Dynamics, fit_dynamics
from vla_policy.world_model.futures import split

TRANSFORMER = TransformerConfig(width=32, depth=2, heads=2, time_width=16)


def noise(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def config(**changes: Any) -> DynamicsConfig:
    return DynamicsConfig(**{"state_keys": [STATE], "past": 2, "future": 5, "transformer": TRANSFORMER, **changes})


def test_windows_become_past_states_differences_and_relative_commands() -> None:
    batch = {STATE: torch.arange(14.0).view(1, 7, 2), ACTION: 100 + torch.arange(14.0).view(1, 7, 2)}
    past, future, commands = split(batch, config())
    assert past[0].tolist() == [[0, 1], [2, 3]]
    assert future[0, :, 0].tolist() == [2, 4, 6, 8, 10]
    assert commands[0, 0].tolist() == [100, 100]  # given at the newest past state, seen from it
    assert commands.shape == future.shape == (1, 5, 2)


def test_training_learns_that_half_of_the_way_to_a_command_is_made_in_a_step(tmp_path: Path) -> None:
    dataset, chosen = make_walks(tmp_path / "walks", episodes=24), config()
    windows, held_out = make_windows(dataset, chosen, list(range(22))), make_windows(dataset, chosen, [22, 23])
    torch.manual_seed(0)
    normalizer = fit_dynamics(windows.vectors(np.arange(len(windows))), chosen)
    model = Dynamics(chosen, windows.interface, normalizer)
    settings = TrainerConfig(steps=500, batch_size=64, lr=3e-3, warmup_steps=20, precision="fp32", wandb=None)
    Trainer(model, windows, tmp_path / "run", settings, 0, held_out, validate=validate_dynamics).fit()
    trained = Dynamics.from_pretrained(tmp_path / "run" / "checkpoints" / "last")
    found = validate_dynamics(trained, held_out, 64)
    assert found[f"val/{STATE}_error"] < 0.35 * found[f"val/{STATE}_still"]

    still, moving = torch.full((1, 2, 2), 0.5), torch.full((1, 5, 2), 0.7)
    after = trained.imagine(still, moving, noise())[0]
    exact = 0.7 - 0.2 * 0.5 ** torch.arange(1, 6)
    torch.testing.assert_close(after[:, 0], exact, atol=0.05, rtol=0)


class Exact(Dynamics):
    """The pusher is where it is told to be, and the block stands still."""

    def imagine(self, past: Tensor, commands: Tensor, generator: torch.Generator) -> Tensor:
        states = past[:, -1:].repeat(1, commands.shape[1], 1)
        states[..., :2] = commands
        return states


def exact_dynamics(policy: DiffusionPolicy) -> Dynamics:
    chosen = config(state_keys=[STATE, ENVIRONMENT_STATE], future=15)
    batch = {STATE: torch.rand(8, 17, 2), ENVIRONMENT_STATE: torch.rand(8, 17, 4), ACTION: torch.rand(8, 17, 2)}
    return Exact(chosen, policy.full_interface, fit_dynamics(batch, chosen))


def test_with_exact_dynamics_the_best_proposal_is_played_whatever_is_wanted() -> None:
    policy = small_policy()
    histories = histories_of(policy, 3)
    for goal in ([0.2, 0.2], [0.6, 0.3]):

        def nearness(future: Any, goal: list[float] = goal) -> np.ndarray:
            score: np.ndarray = -np.linalg.norm(future[STATE][:, -1] - goal, axis=-1)
            return score

        planner = DiffusionMPC(policy, exact_dynamics(policy), nearness, 16)
        chunks = planner.predict(histories, np.random.default_rng(5))
        seed = int(np.random.default_rng(5).integers(2**63 - 1))
        proposals = policy.propose(policy.batch(histories), noise(seed), 16).numpy()
        for chunk, candidates in zip(chunks, proposals, strict=True):
            distances = np.linalg.norm(candidates[:, -1] - goal, axis=-1)
            np.testing.assert_allclose(chunk.actions, candidates[distances.argmin()], atol=1e-6)
            np.testing.assert_allclose(chunk.imagined[STATE][1:], chunk.actions, atol=1e-6)
        alone = policy.predict(histories, np.random.default_rng(5))
        ours, theirs = ([np.linalg.norm(c.actions[-1] - goal) for c in some] for some in (chunks, alone))
        assert np.mean(ours) < np.mean(theirs)


def test_estimates_stand_for_what_the_policy_only_sees() -> None:
    policy = small_policy(image=True, auxiliary_keys=[ENVIRONMENT_STATE], n_image_steps=1)
    dynamics = exact_dynamics(policy)
    planner = DiffusionMPC(policy, dynamics, lambda future: future[ENVIRONMENT_STATE][:, 0, 0], 4)
    chunks = planner.predict(histories_of(policy, 2), np.random.default_rng(0))
    estimate = policy.estimates(policy.batch(histories_of(policy, 2)))[ENVIRONMENT_STATE]
    assert estimate.shape == (2, 1, 4)
    for chunk, seen in zip(chunks, estimate[:, 0].numpy(), strict=True):
        np.testing.assert_allclose(chunk.imagined[ENVIRONMENT_STATE][3], seen, atol=1e-6)


def test_proposals_share_an_observation_and_are_what_the_policy_samples() -> None:
    policy = small_policy()
    batch = batch_of(2)
    torch.testing.assert_close(policy.propose(batch, noise(), 1)[:, 0], policy.sample(batch, noise()))
    several = policy.propose(batch, noise(), 5)
    assert several.shape == (2, 5, 15, 2)
    assert several.std(1).min() > 0
    with pytest.raises(InputError, match="proposals: expected flow or ddpm, found masked"):
        small_policy(**objective("masked")).propose(batch, noise(), 2)


def test_what_does_not_fit_is_named() -> None:
    policy = small_policy(image=True)
    with pytest.raises(
        InputError, match=r"planner\.dynamics: expected states that the policy sees or estimates, found"
    ):
        DiffusionMPC(policy, exact_dynamics(small_policy()), lambda future: np.zeros(1), 4)
    with pytest.raises(InputError, match=r"planner\.samples: expected at least 1, found 0"):
        DiffusionMPC(small_policy(), exact_dynamics(small_policy()), lambda future: np.zeros(1), 0)
    with pytest.raises(InputError, match=r"dynamics\.objective\.name: expected flow or ddpm, found 'masked'"):
        config(objective=ObjectiveConfig(name="masked"))
    with pytest.raises(InputError, match=r"dynamics\.future: expected at least 1, found 0"):
        config(future=0)
