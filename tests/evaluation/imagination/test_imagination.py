"""What a world model knows: errors against closed forms, probes against known maps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.small_world_model import TOP, make_walks, small_world_model

from vla_policy.evaluation.imagination.encoded_episodes import EncodedEpisode, encode_episodes
from vla_policy.evaluation.imagination.errors import blocks, fit_linear, imagine_episode
from vla_policy.evaluation.imagination.probes import Affine, Quantity, degrees, fit_mlp, millimetres, ridge, score
from vla_policy.evaluation.imagination.report import summarize_latents
from vla_policy.evaluation.imagination.study import fitting_episodes
from vla_policy.interfaces import ACTION, InputError
from vla_policy.world_model import WorldModel

POSITION = Quantity(slice(0, 2), "mm", millimetres)
AVERAGE = torch.zeros(16)


def recording(latents: torch.Tensor, commands: torch.Tensor) -> EncodedEpisode:
    return EncodedEpisode(0, latents, commands, {}, {})


def always(value: torch.Tensor) -> Affine:
    return Affine(torch.zeros(20, 16), value)


def test_a_recording_has_the_latents_of_its_pictures(tmp_path: Path) -> None:
    dataset, model = make_walks(tmp_path / "walks", episodes=3, length=70), small_world_model()
    (found,) = encode_episodes(model, dataset, [1])
    torch.testing.assert_close(found.latents, model.encode({TOP: torch.from_numpy(dataset.frames(1, TOP))}).detach())
    np.testing.assert_array_equal(found.commands, dataset.episode(1).columns[ACTION])


def test_copying_the_last_latent_of_a_straight_line_errs_by_its_speed() -> None:
    model = small_world_model()
    speed = torch.randn(16, generator=torch.Generator().manual_seed(0))
    latents = torch.arange(30.0)[:, None] * speed
    found = imagine_episode(
        model, recording(latents, torch.zeros(30, 2)), 3, Affine(torch.zeros(20, 16), speed), AVERAGE
    )
    assert found is not None
    assert found.frames[0].tolist() == [4, 6, 8, 10]  # a history of three, two frames apart, lies before
    assert found.frames[-1].tolist() == [23, 25, 27, 29]
    for step in range(3):
        expected = (2 * (step + 1) * speed).square().mean()
        torch.testing.assert_close(found.errors["copy last"][step], expected)
    torch.testing.assert_close(found.predicted["linear"], speed.expand(20, 3, 16))
    torch.testing.assert_close(found.errors["mean"][2], latents[8 + 2 : 30].square().mean((0, 1)))
    assert imagine_episode(model, recording(latents[:10], torch.zeros(10, 2)), 3, always(speed), AVERAGE) is None


def test_the_linear_model_finds_linear_dynamics_and_foretells_them() -> None:
    model = small_world_model()
    draws = torch.Generator().manual_seed(1)
    turn = torch.linalg.qr(torch.randn(16, 16, generator=draws))[0] * 0.9
    push = torch.randn(4, 16, generator=draws)
    commands = torch.rand(400, 2, generator=draws)
    latents = [torch.randn(16, generator=draws), torch.randn(16, generator=draws)]
    for block in blocks(model, commands)[:-1]:
        latents.append(latents[-2] @ turn + block @ push)
    known = recording(torch.stack(latents), commands)
    linear = fit_linear(model, [known])
    found = imagine_episode(model, known, 4, linear, AVERAGE)
    assert found is not None
    assert found.errors["linear"].max() < 1e-3 * found.errors["copy last"].min()


def test_the_model_imagines_as_it_would_alone(tmp_path: Path) -> None:
    dataset, model = make_walks(tmp_path / "walks", episodes=2), small_world_model()
    (known,) = encode_episodes(model, dataset, [0])
    found = imagine_episode(model, known, 3, always(torch.zeros(16)), AVERAGE)
    assert found is not None
    row, t = 7, 11  # the eighth start; the first has two steps of two frames before it
    past, future = known.commands[t - 4 : t].reshape(1, 2, 2, 2), known.commands[t : t + 6].reshape(1, 3, 2, 2)
    alone = model.imagine(known.latents[[t - 4, t - 2, t]][None], past, future)[0].detach()
    torch.testing.assert_close(found.predicted["model"][row], alone)
    torch.testing.assert_close(found.truth[row], known.latents[[t + 2, t + 4, t + 6]])


def test_probes_recover_a_linear_map_and_the_network_a_curved_one() -> None:
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(3000, 8, generator=draws)
    weight, bias = torch.randn(8, 2, generator=draws), torch.tensor([0.4, -0.1])
    found = ridge(x, x @ weight + bias, penalty=0.0)
    torch.testing.assert_close(found.weight, weight, atol=1e-4, rtol=0)
    torch.testing.assert_close(found.bias, bias, atol=1e-4, rtol=0)
    shrunk = ridge(x, x @ weight + bias, penalty=1.0)
    assert shrunk.weight.norm() < 0.6 * weight.norm()
    draws.manual_seed(1)
    x, test = torch.rand(1500, 2, generator=draws), torch.rand(300, 2, generator=draws)
    network, line = fit_mlp(x, (4 * x).sin(), steps=150), ridge(x, (4 * x).sin())
    curved = [(4 * test).sin().numpy()]
    assert score(line, [test], curved, POSITION)["r2"] < 0.9
    assert score(network, [test], curved, POSITION)["r2"] > 0.97


def test_scores_are_millimetres_degrees_and_r2_over_episodes() -> None:
    truth = [np.array([[0.0, 0.0], [0.1, 0.0]], np.float32), np.array([[0.2, 0.1]], np.float32)]
    off = Affine(torch.eye(2), torch.tensor([0.003, 0.004]))
    found = score(off, [torch.from_numpy(t) for t in truth], truth, POSITION)
    assert found["median"] == pytest.approx(5.0, rel=1e-4)
    assert found["mean"] == pytest.approx(5.0, rel=1e-4)
    everything = np.concatenate(truth)
    left, total = 3 * (0.003**2 + 0.004**2), ((everything - everything.mean(0)) ** 2).sum()
    assert found["r2"] == pytest.approx(1 - left / total, rel=1e-4)
    angles = np.radians([179.0, 10.0])
    turned = np.radians([-179.0, -20.0])
    a, b = (np.stack([2 * np.cos(v), 2 * np.sin(v)], axis=1) for v in (angles, turned))
    np.testing.assert_allclose(degrees(a, b), [2.0, 30.0])


def test_nothing_is_fitted_on_held_out_episodes(tmp_path: Path) -> None:
    dataset = make_walks(tmp_path / "walks", episodes=8)
    model = small_world_model()
    model.card = {"data": {"held_out_episodes": {"walks": [2, 5]}}}
    assert fitting_episodes(model, dataset, [5], 99) == [0, 1, 3, 4, 6, 7]  # 2 was held out as well
    assert fitting_episodes(model, dataset, [0, 2], 3) == [1, 4, 7]
    with pytest.raises(InputError, match="expected episodes that are not held out, found 8"):
        fitting_episodes(model, dataset, list(range(8)), 3)


def test_models_and_datasets_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    dataset = make_walks(tmp_path / "walks", episodes=2)
    known = small_world_model()
    changed: Any = known.interface.to_dict()
    changed["fps"] = 20.0
    other = WorldModel(known.config, type(known.interface).from_dict(changed), known.normalizer)
    with pytest.raises(InputError, match="fps: expected 20, found 10"):
        next(iter(encode_episodes(other, dataset, [0])))


def test_a_collapsed_model_is_called_one() -> None:
    draws = torch.Generator().manual_seed(0)
    healthy, line = torch.randn(200, 16, generator=draws), torch.randn(200, 1, generator=draws) @ torch.ones(1, 16)
    halves = [recording(healthy[:100], torch.zeros(100, 2)), recording(healthy[100:], torch.zeros(100, 2))]
    assert summarize_latents(halves)["n"] == 200
    assert not summarize_latents(halves)["collapsed"]
    found = summarize_latents([recording(line, torch.zeros(200, 2))])
    assert found["collapsed"]
    assert found["effective_rank"] == pytest.approx(1, abs=0.01)
