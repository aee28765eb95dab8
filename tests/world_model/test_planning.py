"""Planning: the searches find known optima, plans become commands, and a planner reaches a goal picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers.small_world_model import SIZE, TOP, interface, picture, small_world_model
from torch import Tensor

from vla_policy.interfaces import STATE, Feature, InputError, Interface, Observation
from vla_policy.world_model import WorldModel
from vla_policy.world_model.planning import SOLVERS, PlanConfig, Planner, cem, coloured, mppi, mppi_weights, sample

OPTIMUM = torch.tensor([[0.6, -0.3], [-0.8, 0.1], [0.2, 0.9]])


def quadratic(plans: Tensor) -> Tensor:
    return (plans - OPTIMUM).square().sum((1, 2))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("search", [cem, mppi])
def test_a_search_finds_the_optimum_of_a_quadratic(search: Any) -> None:
    config = PlanConfig(samples=256, iterations=12, elites=24, horizon=3, execute=3, temperature=0.05)
    start = torch.zeros(3, 2)
    found = search(quadratic, start, config, generator())
    assert (found - OPTIMUM).abs().max() < 0.05
    assert torch.equal(found, search(quadratic, start, config, generator()))
    assert not torch.equal(found, search(quadratic, start, config, generator(1)))


def test_cem_never_returns_less_than_the_best_it_met_nor_than_where_it_began() -> None:
    met: list[float] = []

    def cost(plans: Tensor) -> Tensor:
        costs = quadratic(plans)
        met.append(float(costs.min()))
        return costs

    found = cem(cost, torch.zeros(3, 2), PlanConfig(samples=8, elites=2, horizon=3, execute=3), generator())
    assert quadratic(found[None]).item() == pytest.approx(min(met))
    assert met == sorted(met, reverse=True)
    already = cem(quadratic, OPTIMUM, PlanConfig(samples=8, elites=2, horizon=3, execute=3), generator())
    assert torch.equal(already, OPTIMUM)


def test_mppi_weights_are_exponentials_of_standardised_costs() -> None:
    costs = torch.tensor([1.0, 2.0, 4.0])
    by_hand = np.exp(-costs.numpy() / (0.5 * costs.numpy().std()))
    np.testing.assert_allclose(mppi_weights(costs, 0.5), by_hand / by_hand.sum(), rtol=1e-5)
    torch.testing.assert_close(mppi_weights(10 * costs + 3, 0.5), mppi_weights(costs, 0.5))  # any scale, any offset
    torch.testing.assert_close(mppi_weights(torch.full((4,), 7.0), 0.5), torch.full((4,), 0.25))


def test_samples_stay_in_the_box_and_have_the_kept_plan_first() -> None:
    mean, kept = torch.full((3, 2), 0.9), torch.rand(3, 2, generator=generator())
    plans = sample(mean, torch.full((3, 2), 0.5), kept[None], 2000, generator())
    assert plans.abs().max() == 1
    assert torch.equal(plans[0], kept)
    assert plans[:, 0, 0].median() == pytest.approx(0.9, abs=0.05)


def observation(position: np.ndarray, t: float = 0.0) -> Observation:
    return Observation({TOP: picture(position), STATE: np.asarray(position, np.float32)}, "", t)


class TrueDynamics(WorldModel):
    """The square of `helpers.small_world_model`: its latent is where the square is, found by looking at the picture."""

    def encode(self, pictures: Any) -> Tensor:
        bright = (pictures[TOP][..., 0] > 200).float()
        count, places = bright.sum((-1, -2)), torch.arange(SIZE).float()
        x = (bright.sum(-2) * places).sum(-1) / count
        y = (bright.sum(-1) * places).sum(-1) / count
        return (torch.stack([x, y], dim=-1) - 2.5) / (SIZE - 7)

    def imagine(self, latents: Tensor, past: Tensor, actions: Tensor) -> Tensor:
        position, positions = latents[:, -1], []
        for command in actions.flatten(1, 2).unbind(1):
            position = position + 0.5 * (command - position)
            positions.append(position)
        return torch.stack(positions[self.config.frame_skip - 1 :: self.config.frame_skip], dim=1)


def true_dynamics() -> TrueDynamics:
    known = small_world_model(trained=False)
    return TrueDynamics(known.config, known.interface, known.normalizer)


@pytest.mark.parametrize("solver", ["cem", "mppi"])
def test_a_planner_reaches_the_goal_picture_with_the_true_dynamics(solver: str) -> None:
    position, goal = np.array([0.2, 0.7]), np.array([0.6, 0.3])
    config = PlanConfig(solver=solver, samples=64, horizon=4, execute=4, max_step=0.1)
    planner = Planner(true_dynamics(), config, {TOP: picture(goal)})
    draws, frame = np.random.default_rng(0), 0
    for _ in range(3):
        (chunk,) = planner.predict([[observation(position, frame / 10)]], draws)
        assert (chunk.t_obs, chunk.actions.shape) == (frame / 10, (8, 2))
        for command in chunk.actions[: planner.n_action_steps]:
            position, frame = position + 0.5 * (command - position), frame + 1
    assert np.abs(position - goal).max() < 0.04  # a pixel


def planner(model: WorldModel | None = None, **changes: Any) -> Planner:
    config = PlanConfig(**{"samples": 8, "iterations": 2, "elites": 2, "max_step": 0.02, **changes})
    return Planner(model or small_world_model(), config, {TOP: picture(np.array([0.5, 0.5]))})


def test_commands_are_straight_lines_between_waypoints_of_limited_steps() -> None:
    plans = torch.tensor([[[1.0, -0.5], [-1.0, 0.0]]])
    commands = planner(horizon=2, execute=2).commands(torch.tensor([0.3, 0.6]), plans)
    expected = [[[0.32, 0.59], [0.34, 0.58]], [[0.32, 0.58], [0.30, 0.58]]]
    torch.testing.assert_close(commands, torch.tensor([expected]))


def test_the_cost_is_the_distance_of_what_is_imagined_last() -> None:
    model = small_world_model()
    planned, plans = planner(model), torch.rand(3, 5, 2, generator=generator())
    seen, goal = (torch.from_numpy(picture(np.array(p)))[None] for p in ([0.1, 0.1], [0.5, 0.5]))
    latent = model.encode({TOP: seen})[0].detach()
    commands = planned.commands(torch.tensor([0.1, 0.1]), plans)
    imagined = model.imagine(latent.expand(3, 1, -1), commands[:, :0], commands)
    by_hand = ((imagined[:, -1] - model.encode({TOP: goal})) ** 2).sum(-1)
    found = planned.cost(latent[None], commands[0, :0], torch.tensor([0.1, 0.1]), plans)
    torch.testing.assert_close(found, by_hand.detach())

    nearest = planner(model, aim="best").cost(latent[None], commands[0, :0], torch.tensor([0.1, 0.1]), plans)
    each = ((imagined - model.encode({TOP: goal})) ** 2).sum(-1)
    torch.testing.assert_close(nearest, each.amin(1).detach())


def test_the_next_search_begins_at_the_rest_of_the_last_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[Tensor] = []

    def search(cost: Any, mean: Tensor, config: PlanConfig, generator: torch.Generator) -> Tensor:
        begun.append(mean)
        return torch.arange(10.0).reshape(5, 2) / 10

    monkeypatch.setitem(SOLVERS, "cem", search)
    policy, draws = planner(execute=2), np.random.default_rng(0)
    for t in (0.0, 0.4, 5.0, 0.0):  # two steps of two frames later; long after; a new episode
        policy.predict([[observation(np.array([0.2, 0.2]), t)]], draws)
    plan = torch.arange(10.0).reshape(5, 2) / 10
    assert torch.equal(begun[1], torch.cat([plan[2:], torch.zeros(2, 2)]))
    for cold in (begun[0], begun[2], begun[3]):
        assert not cold.any()


def test_plans_repeat_with_the_generator() -> None:
    seen = [[observation(np.array([0.2, 0.2]))]]
    first, again, other = (planner().predict(seen, np.random.default_rng(seed))[0].actions for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"solver": "gradient"}, r"plan.solver: expected one of \['cem', 'mppi'\], found 'gradient'"),
        ({"iterations": 0}, "plan.iterations: expected at least 1, found 0"),
        ({"elites": 65}, "plan.elites: expected at most 64, found 65"),
        ({"execute": 6}, "plan.execute: expected at most 5, found 6"),
        ({"max_step": 0.0}, "plan.max_step: expected more than 0, found 0"),
        ({"aim": "first"}, "plan.aim: expected 'last' or 'best', found 'first'"),
        ({"kept": 1.5}, "plan.colour and plan.kept: expected 0 to 10 and 0 to 1, found 0.0 and 1.5"),
    ],
)
def test_impossible_searches_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        PlanConfig(**changes)


def test_a_planner_needs_the_arms_position_a_fitting_goal_and_one_arm() -> None:
    policy, seen = planner(), observation(np.array([0.2, 0.2]))
    without = Interface({TOP: Feature("image", (SIZE, SIZE, 3))}, interface().action, 10, "base")
    with pytest.raises(InputError, match=r"observation\.state: missing"):
        policy.interface.require(without, "the planner", "the robot")
    with pytest.raises(InputError, match="expected the history of one arm, found 2"):
        policy.predict([[seen], [seen]], np.random.default_rng(0))
    with pytest.raises(InputError, match=r"expected shape \(32, 32, 3\), found \(8, 8, 3\)"):
        Planner(policy.model, policy.config, {TOP: np.zeros((8, 8, 3), np.uint8)})


def test_a_later_plan_continues_from_the_last_command_and_knows_how_the_arm_moves() -> None:
    model, given = small_world_model(), []

    def imagine(latents: Tensor, past: Tensor, actions: Tensor) -> Tensor:
        given.append((latents[0], past[0], actions[0, 0, 0]))
        return type(model).imagine(model, latents, past, actions)

    planned = planner(model, horizon=3, execute=1, iterations=1)
    planned.model.imagine = imagine  # type: ignore[method-assign]
    (first,) = planned.predict([[observation(np.array([0.2, 0.2]))] * 3], np.random.default_rng(0))
    latents, past, _ = given[-1]
    assert (len(latents), len(past)) == (1, 0)  # nothing is known of what was before
    history = [observation(np.array([0.2 + 0.01 * k, 0.2]), 0.1 * k) for k in range(3)]
    (second,) = planned.predict([history], np.random.default_rng(1))
    latents, past, _ = given[-1]
    expected = model.encode({TOP: torch.from_numpy(np.stack([seen.values[TOP] for seen in (history[0], history[2])]))})
    torch.testing.assert_close(latents, expected)
    np.testing.assert_allclose(past[0].numpy(), first.actions[:2], atol=1e-6)
    assert np.abs(second.actions[0] - first.actions[1]).max() <= 0.02 + 1e-6  # a step of max_step from the last command
    assert np.abs(first.actions[1] - history[2].values[STATE]).max() > 0


def test_coloured_samples_are_slow_and_of_unit_variance() -> None:
    white = torch.randn(20_000, 8, 2, generator=generator())
    assert torch.equal(coloured(white, 0.0), white)
    for steps in (7, 8):
        slow = coloured(white[:, :steps], 2.0)
        torch.testing.assert_close(slow.std((0, 2)), torch.ones(steps), atol=0.03, rtol=0)
        neighbours = (slow[:, 1:] * slow[:, :-1]).mean()
        assert neighbours > 0.5
    power = torch.fft.rfft(coloured(white, 2.0), dim=1).abs().square().mean((0, 2))
    torch.testing.assert_close(power[1] / power[2], torch.tensor(4.0), atol=0.3, rtol=0)  # 1 / f^2


def test_kept_elites_begin_the_next_iteration() -> None:
    met: list[Tensor] = []

    def cost(plans: Tensor) -> Tensor:
        met.append(plans)
        return quadratic(plans)

    config = PlanConfig(samples=32, elites=10, iterations=2, horizon=3, execute=3, kept=0.3)
    cem(cost, torch.zeros(3, 2), config, generator())
    best = met[0][quadratic(met[0]).topk(3, largest=False).indices]
    assert torch.equal(met[1][:3], best)
