"""What a state is worth, learnt from demonstrations that end when their task is done."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.small_world_model import make_walks

from vla_policy.conf.returns_config import ReturnConfig
from vla_policy.data import REMAINING
from vla_policy.interfaces import ACTION, STATE, InputError
from vla_policy.jobs.train import train
from vla_policy.planning.objectives import LearnedReturn
from vla_policy.planning.options import PlannerConfig, make_objective
from vla_policy.training import make_windows
from vla_policy.world_model.returns import ReturnModel, fit_states


def line(places: np.ndarray) -> dict[str, Any]:
    """A batch of states on a line that ends at x = 1, 0.1 of which are made in a step."""
    states = torch.from_numpy(np.stack([places, np.zeros_like(places)], axis=-1)).float()
    remaining = torch.from_numpy((1 - places) * 10).float()
    return {STATE: states[:, None], REMAINING: remaining, "task": [""] * len(places)}


@pytest.fixture(scope="module")
def model() -> ReturnModel:
    """Trained on that line."""
    from helpers.small_diffusion import pusht_interface

    config = ReturnConfig([STATE], discount=0.8, width=32)
    rng = np.random.default_rng(0)
    spread = {STATE: rng.uniform([0, -0.1], [1, 0.1], (200, 2)).astype(np.float32)}
    torch.manual_seed(0)
    model = ReturnModel(config, pusht_interface(), fit_states(spread, config))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(300):
        loss, _ = model.loss(line(rng.uniform(0, 1, 64)), torch.Generator())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def test_a_return_is_discounted_from_the_end(model: ReturnModel) -> None:
    places = np.linspace(0, 1, 11)
    found = model.logits({STATE: line(places)[STATE][:, 0]}).sigmoid().detach()
    np.testing.assert_allclose(found, 0.8 ** ((1 - places) * 10), atol=0.08)


def test_futures_are_ranked_without_torch_as_with_it(model: ReturnModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "returns")
    stored = ReturnModel.from_pretrained(tmp_path / "returns")
    places = np.random.default_rng(1).uniform(0, 1, (5, 4, 2))
    objective = LearnedReturn((STATE,), stored.arrays(), 0.8)
    returns = stored.logits({STATE: torch.from_numpy(places).float()}).sigmoid().detach().numpy()
    expected = (returns * 0.8 ** np.array([1, 2, 3, 4])).mean(1)
    np.testing.assert_allclose(objective({STATE: places}), expected, rtol=1e-4)
    wanted = PlannerConfig("dmpc", dynamics="d", objective="return", returns=str(tmp_path / "returns"))
    chosen = make_objective(wanted, stored.interface)
    np.testing.assert_allclose(chosen({STATE: places, ACTION: places}), objective({STATE: places}))


def test_going_to_the_end_is_the_optimum_and_delay_costs_the_discount(model: ReturnModel) -> None:
    """On the line, where the true return of k steps at speed v from x is 0.8 ** (steps left), whatever k."""
    objective = LearnedReturn((STATE,), model.arrays(), 0.8)
    steps = np.arange(1, 5)
    speeds = np.array([0.1, 0.05, 0.0, -0.05])
    futures = np.stack([np.stack([0.3 + v * steps, 0 * steps], axis=-1) for v in speeds])
    scores = objective({STATE: futures})
    assert scores.argsort().tolist() == [3, 2, 1, 0]
    assert scores[0] == pytest.approx(0.8**7, abs=0.03)  # every step of the way expects the same
    assert scores[2] == pytest.approx(np.mean(0.8 ** (7 + steps)), abs=0.03)


def test_windows_say_how_much_follows(tmp_path: Path) -> None:
    dataset = make_walks(tmp_path / "walks", episodes=2)
    windows = make_windows(dataset, ReturnConfig([STATE]), [0, 1])
    length = dataset.length(0)
    found = windows.vectors(np.arange(len(windows)))[REMAINING]
    assert found[:length].tolist() == list(range(length - 1, -1, -1))
    assert found[length] == dataset.length(1) - 1


def test_training_by_command(tmp_path: Path) -> None:
    make_walks(tmp_path / "walks", episodes=6)
    words = [f"data.root={tmp_path / 'walks'}", "returns=mlp", "trainer.steps=30", "data.val_episodes=1"]
    words += [f"returns.state_keys=[{STATE}]", "trainer.validate_every=30", "trainer.wandb=null"]
    train([*words, f"run_dir={tmp_path / 'run'}"])
    model = ReturnModel.from_pretrained(tmp_path / "run" / "checkpoints" / "last")
    assert model.card["training"]["steps"] == 30
    assert "val/return_error" in (tmp_path / "run" / "metrics.csv").read_text()
    with pytest.raises(InputError, match="returns: expected none with dynamics, found both"):
        train([*words, "dynamics=dmpc", f"run_dir={tmp_path / 'both'}"])


def test_mistakes_are_named() -> None:
    with pytest.raises(InputError, match=r"returns\.discount: expected a number between 0 and 1, found 1"):
        ReturnConfig(discount=1.0)
    with pytest.raises(InputError, match=r"returns\.state_keys: expected at least one key, found none"):
        ReturnConfig([])
