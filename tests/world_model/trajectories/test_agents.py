"""Diffuser and Decision Diffuser: what guides them, what they store, what they refuse."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.small_agents import small_agent, small_config, windows
from helpers.small_diffusion import pusht_interface
from torch import Tensor

from vla_policy.conf.trajectory_config import KINDS, TrajectoryConfig
from vla_policy.data import IMITATED, Normalizer
from vla_policy.interfaces import ACTION, ENVIRONMENT_STATE, STATE, InputError, Observation
from vla_policy.models import DiffusionPolicy
from vla_policy.world_model.futures import split
from vla_policy.world_model.trajectories.agents import AGENTS, fit_trajectories, load_agent
from vla_policy.world_model.trajectories.decision_diffuser import DecisionDiffuser
from vla_policy.world_model.trajectories.diffuser import Diffuser
from vla_policy.world_model.trajectories.model import TrajectoryModel


def noise(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def past_of(agent: TrajectoryModel, count: int = 4) -> Tensor:
    return split(windows(count, agent.config, seed=1), agent.config)[0]


def histories(agent: TrajectoryModel, count: int) -> list[list[Observation]]:
    seen = {key: values.numpy() for key, values in agent.named(past_of(agent, count)).items()}
    return [
        [Observation({key: values[k, t] for key, values in seen.items()}, "", t / 10) for t in range(agent.n_obs_steps)]
        for k in range(count)
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_plans_as_what_was_stored(kind: str, tmp_path: Path) -> None:
    agent = small_agent(kind)
    agent.save_pretrained(tmp_path / "agent")
    loaded = load_agent(tmp_path / "agent")
    assert type(loaded) is type(agent)
    assert {path.name for path in (tmp_path / "agent").iterdir()} == {
        *("config.yaml", "model.safetensors", "normalizer.json", "interface.json", "README.md")
    }
    seen = histories(agent, 3)
    chunks, again = (some.predict(seen, np.random.default_rng(0)) for some in (agent, loaded))
    for chunk, other, history in zip(chunks, again, seen, strict=True):
        np.testing.assert_array_equal(chunk.actions, other.actions)
        assert chunk.actions.shape == (6, 2)
        assert chunk.imagined[ENVIRONMENT_STATE].shape == (7, 4)
        np.testing.assert_allclose(chunk.imagined[STATE][0], history[-1].values[STATE])
    with pytest.raises(InputError, match=r"expected a policy, found \['trajectory'\]"):
        DiffusionPolicy.from_pretrained(tmp_path / "agent")


def test_diffuser_plans_more_of_what_it_is_steered_to() -> None:
    agent = small_agent("diffuser")
    assert isinstance(agent, Diffuser)
    past = past_of(agent)

    def right(states: Mapping[str, Tensor]) -> Tensor:
        return states[STATE][..., 0].mean(-1)

    found = {}
    for weight in (0.0, 3.0, -3.0):
        agent.steer(right, weight)
        found[weight] = right(agent.named(agent.plan(past, noise())[0]))
    assert (found[3.0] > found[0.0]).all()
    assert (found[-3.0] < found[0.0]).all()
    agent.steer(None)
    torch.testing.assert_close(right(agent.named(agent.plan(past, noise())[0])), found[0.0])


def test_inverse_dynamics_recover_the_commands_of_a_double_integrator() -> None:
    """Positions alone are seen: what was commanded is the second difference of three of them."""
    config = small_config("decision_diffuser", state_keys=[STATE])
    torch.manual_seed(0)
    agent = DecisionDiffuser(config, pusht_interface(), fit_trajectories(windows(512, config), config))
    optimizer = torch.optim.Adam(agent.inverse_layers.parameters(), 1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 400)
    for step in range(400):
        optimizer.zero_grad()
        agent.inverse_loss(windows(128, config, seed=step)).backward()
        optimizer.step()
        schedule.step()
    fresh = windows(256, config, seed=400)
    states = fresh[STATE][:, :3]
    exact = states[:, 2] - 2 * states[:, 1] + states[:, 0]
    torch.testing.assert_close(exact, fresh[ACTION][:, 1] - states[:, 1], atol=1e-6, rtol=0)
    with torch.no_grad():
        found = agent.inverse(states)[:, 0] - states[:, 1]
    assert (found - exact).abs().mean() < 0.03 * exact.abs().mean()


def test_decision_diffuser_plans_for_the_return_that_it_is_steered_to() -> None:
    agent = small_agent("decision_diffuser")
    assert isinstance(agent, DecisionDiffuser)
    past, plans = past_of(agent), {}
    for target, weight in ((1.0, 0.0), (0.2, 0.0), (1.0, 1.0), (0.2, 1.0), (1.0, 2.0)):
        agent.steer(target, weight)
        plans[target, weight] = agent.plan(past, noise())[0]
    torch.testing.assert_close(plans[1.0, 0.0], plans[0.2, 0.0])
    assert not torch.allclose(plans[1.0, 1.0], plans[0.2, 1.0])
    assert not torch.allclose(plans[1.0, 1.0], plans[1.0, 2.0])


def test_windows_without_actions_teach_states_alone() -> None:
    config = small_config("decision_diffuser")
    data = windows(32, config) | {IMITATED: torch.arange(32) < 8}
    unknown = {**data, ACTION: data[ACTION].where(data[IMITATED][:, None, None], torch.nan)}
    statistics = [fit_trajectories(batch, config).to_dict() for batch in (data, unknown)]
    assert statistics[0] == statistics[1]
    agent = small_agent("decision_diffuser")
    losses = [agent.loss(batch, noise())[0] for batch in (data, unknown)]
    torch.testing.assert_close(losses[0], losses[1])
    nobody = {**data, IMITATED: torch.zeros(32, dtype=torch.bool)}
    assert float(agent.loss(nobody, noise())[1]["inverse"]) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"kind": "planner"},
            r"trajectory\.kind: expected one of \['diffuser', 'decision_diffuser'\], found 'planner'",
        ),
        ({"n_action_steps": 16}, r"trajectory\.n_action_steps: expected at most 15, found 16"),
        ({"condition_dropout": 1.5}, r"trajectory\.condition_dropout: expected at most 1, found 1.5"),
        ({"discount": 1.0}, r"trajectory\.discount: expected a number between 0 and 1, found 1.0"),
    ],
)
def test_options_out_of_range_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrajectoryConfig(**changes)


@pytest.mark.parametrize("kind", KINDS)
def test_what_does_not_fit_is_named(kind: str) -> None:
    config = small_config(kind)
    statistics = fit_trajectories(windows(8, config), config).to_dict()
    del statistics["commands"]
    with pytest.raises(InputError, match=r"expected one of .* found 'commands'"):
        AGENTS[kind](config, pusht_interface(), Normalizer.from_dict(statistics))
    agent = small_agent(kind)
    short = [history[1:] for history in histories(agent, 1)]
    with pytest.raises(InputError, match="history: expected 2 observations, found 1"):
        agent.predict(short, np.random.default_rng(0))
