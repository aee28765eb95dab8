"""Chunks that continue what is executed: the guidance against known posteriors, masks, exact prefixes, training."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.small_diffusion import batch_of, histories_of, objective, small_policy

from vla_policy.conf.policy_config import ObjectiveConfig
from vla_policy.data import Normalizer
from vla_policy.interfaces import ACTION, DataError, Given, InputError
from vla_policy.models import DiffusionPolicy, PolicyConfig, TransformerConfig, continuation
from vla_policy.models.chunks import ChunkCodec, Origin
from vla_policy.models.continuation import Known, drawn_prefix, guided, known_rows, require_continuing, soft_mask
from vla_policy.models.heads import AutoregressiveHead, DenoisingHead, MaskedHead, encode_bins
from vla_policy.models.objectives import Objective, Predict, make_objective

OBJECTIVES = [
    ("flow", "v_prediction", "euler"),
    ("ddpm", "epsilon", "ddim"),
    ("ddpm", "sample", "ddim"),
    ("ddpm", "v_prediction", "ddim"),
    ("ddpm", "v_prediction", "dpm_solver"),
]
CORRELATION = torch.tensor([[1.0, 0.8], [0.8, 1.0]])


def gaussian(made: Objective, covariance: torch.Tensor) -> Predict:
    """The exact prediction for chunks of two rows from N(0, covariance)."""
    levels = made.levels()

    def predict(x: torch.Tensor, k: int) -> torch.Tensor:
        level = levels[k]
        seen = level.data**2 * covariance + level.noise**2 * torch.eye(2)
        data = level.data * covariance @ torch.linalg.inv(seen) @ x  # of the posterior's mean
        return (data - level.of_x * x) / level.of_prediction

    return predict


def first_row_known(value: float) -> Known:
    return Known(torch.tensor([[[value], [0.0]]]), torch.tensor([[True, False]]), torch.tensor([[1.0, 0.0]]))


def sampled(name: str, prediction: str, sampler: str, covariance: torch.Tensor, value: float | None) -> torch.Tensor:
    """Chunks (4000, 2), guided to a `value` of the first row if there is one."""
    made = make_objective(ObjectiveConfig(name, prediction, sampler, inference_steps=50, clip_sample=False))
    noise = torch.randn(1, 4000, 2, 1, generator=torch.Generator().manual_seed(0))
    predict = gaussian(made, covariance)
    if value is not None:
        predict = guided(predict, made.levels(), first_row_known(value))
    return made.sample(predict, noise, None)[0, :, :, 0]


@pytest.mark.parametrize(("name", "prediction", "sampler"), OBJECTIVES)
def test_guidance_gives_the_posterior_of_a_gaussian(
    name: str, prediction: str, sampler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of independent rows the known one alone changes; a correlated one follows it: N(rho y, 1 - rho^2)."""
    monkeypatch.setattr(continuation, "STRONGEST", 1e9)  # PiGDM's own weight, which is exact for N(0, 1)
    free, known = (sampled(name, prediction, sampler, torch.eye(2), value) for value in (None, 1.5))
    torch.testing.assert_close(known[:, 0], torch.full((4000,), 1.5), atol=0.02, rtol=0)
    torch.testing.assert_close(known[:, 1], free[:, 1])
    following = sampled(name, prediction, sampler, CORRELATION, 1.5)
    torch.testing.assert_close(following[:, 0], torch.full((4000,), 1.5), atol=0.05, rtol=0)
    assert float(following[:, 1].mean()) == pytest.approx(0.8 * 1.5, abs=0.1)
    assert float(following[:, 1].std()) == pytest.approx(0.6, abs=0.1)


def test_guidance_is_the_papers_step_on_a_flow() -> None:
    """x1 = x + (1 - t) v, v + w J^T W (Y - x1), with w = min(5, (1 - t) / t (t^2 + (1 - t)^2) / (1 - t)^2)."""
    made = make_objective(ObjectiveConfig(inference_steps=10))
    predict, x = gaussian(made, CORRELATION), torch.randn(1, 3, 2, 1, generator=torch.Generator().manual_seed(1))
    known = first_row_known(0.7)
    for k in range(10):
        t = k / 10
        seen = t**2 * CORRELATION + (1 - t) ** 2 * torch.eye(2)
        jacobian = t * CORRELATION @ torch.linalg.inv(seen)
        error = known.weights[:, None, :, None] * (known.rows[:, None] - jacobian @ x)
        weight = 5.0 if t == 0 else min(5.0, (1 - t) / t * (t**2 + (1 - t) ** 2) / (1 - t) ** 2)
        expected = predict(x, k) + weight * jacobian.T @ error
        torch.testing.assert_close(guided(predict, made.levels(), known)(x, k), expected)


def test_rows_weigh_less_the_later_they_are_due() -> None:
    weights = soft_mask(5, 2).tolist()
    closed = [c * (math.exp(c) - 1) / (math.e - 1) for c in (3 / 4, 2 / 4, 1 / 4)]  # c_i = (5 - i) / (5 - 2 + 1)
    assert weights == pytest.approx([1.0, 1.0, *closed])
    assert soft_mask(3, 3).tolist() == [1.0, 1.0, 1.0]


def test_known_rows_are_those_from_the_newest_observation_on_in_the_policys_numbers() -> None:
    rng = np.random.default_rng(0)
    config = PolicyConfig(horizon=6, n_action_steps=2, action_relative=True, normalization_per_step=True)
    scales = np.linspace(0.1, 0.6, 6)[:, None]  # a row each, the first one is due before the newest observation
    normalizer = Normalizer.fit({ACTION: scales * rng.uniform(-1, 1, (500, 6, 2))})
    state = torch.tensor([[[0.4, 0.1]], [[0.0, 0.0]]])
    rows = rng.uniform(-0.2, 0.2, (3, 2))
    known = known_rows([Given(rows, 2), None], Origin(state), ChunkCodec(config, None), normalizer, state.device)
    assert known.frozen.tolist() == [[False, True, True, False, False, False], [False] * 6]
    assert known.weights[0].tolist() == pytest.approx([0.0, 1.0, 1.0, float(soft_mask(3, 2)[2]), 0.0, 0.0])
    assert not known.weights[1].any()
    restored = normalizer.unnormalize(ACTION, known.rows)[0, 1:4].numpy() + state[0].numpy()
    np.testing.assert_allclose(restored, rows, atol=1e-6)
    assert not known.rows[0, [0, 4, 5]].any()


POLICIES = [
    objective("flow"),
    objective("flow") | {"prefix_steps": 4, "transformer": TransformerConfig(32, 2, 2, time_width=16, patch=4)},
    objective("ddpm"),
    objective("ddpm") | {"prefix_steps": 4, "ensemble": 2},
    objective("autoregressive"),
    objective("masked", sampler="categorical") | {"action_normalization": "quantile", "predict_past": False},
]


@pytest.mark.parametrize("changes", POLICIES, ids=lambda c: f"{c['objective'].name}-{c.get('prefix_steps', 0)}")
def test_the_frozen_rows_are_executed_to_the_last_bit_and_the_others_follow_them(changes: dict) -> None:
    policy = small_policy(**changes)
    histories, rows = histories_of(policy, 3), np.random.default_rng(1).uniform(0.2, 0.6, (9, 2))

    def chunks(given: list[Given | None]) -> list[np.ndarray]:
        return [chunk.actions for chunk in policy.predict(histories, np.random.default_rng(2), given)]

    free = chunks([])
    for before, again in zip(free, chunks([None] * 3), strict=True):
        np.testing.assert_array_equal(before, again)
    continued = chunks([Given(rows, 3), None, Given(rows, 3)])
    for k in (0, 2):
        np.testing.assert_array_equal(continued[k][:3], rows[:3])
        assert np.abs(continued[k][3:] - free[k][3:]).max() > 1e-6
    np.testing.assert_allclose(continued[1], free[1], atol=1e-6)


def test_guidance_brings_a_chunk_nearer_to_what_it_continues() -> None:
    policy = small_policy(**objective("flow"))
    histories, rows = histories_of(policy, 1), np.full((9, 2), 0.45)
    free, continued = (
        policy.predict(histories, np.random.default_rng(0), given)[0].actions for given in ([], [Given(rows, 2)])
    )
    assert np.abs(continued - 0.45)[2:6].mean() < 0.7 * np.abs(free - 0.45)[2:6].mean()


def test_training_gives_rows_without_noise_and_counts_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = small_policy(prefix_steps=5, noise_samples=8)
    head = policy.head
    assert isinstance(head, DenoisingHead)
    seen = []

    def watched(transformer, noisy, modulations, prefix, given=None):
        seen.append((noisy, given))
        return torch.zeros_like(noisy)

    monkeypatch.setattr(head, "denoise", watched)
    batch = batch_of(16)
    loss, _ = policy.train().loss(batch, torch.Generator().manual_seed(0))
    (noisy, given), actions = seen[0], policy.chunks(batch)[:, None].expand(-1, 8, -1, -1)
    torch.testing.assert_close(noisy[given], actions[given])
    assert (noisy[~given] != actions[~given]).all()
    generator = torch.Generator().manual_seed(0)
    target = head.objective.corrupt(actions, torch.randn(actions.shape, generator=generator), generator).target
    assert float(loss.detach()) == pytest.approx(float(target[~given].square().mean()), rel=1e-5)


def test_as_many_rows_are_given_as_were_drawn_after_those_of_the_past() -> None:
    given = drawn_prefix(torch.Size([500, 4, 8]), 1, 3, torch.Generator().manual_seed(0))
    assert not given[..., 0].any()
    assert not given[..., 4:].any()
    counts = given.sum(-1)
    assert torch.equal(given[..., 1:4], torch.arange(3) < counts[..., None])  # the first ones
    shares = torch.bincount(counts.flatten(), minlength=4) / 2000
    torch.testing.assert_close(shares, torch.full((4,), 0.25), atol=0.04, rtol=0)


def test_a_flag_says_which_rows_of_a_token_are_given() -> None:
    policy = small_policy(prefix_steps=4, transformer=TransformerConfig(32, 2, 2, time_width=16, patch=4))
    head = policy.head
    assert isinstance(head, DenoisingHead)
    prefix, modulations = policy.prefix(batch_of(1)), policy.transformer.modulations(torch.rand(1, 1))
    noisy, given = torch.randn(1, 1, 16, 2), torch.zeros(1, 1, 16, dtype=torch.bool)

    def found(flags: torch.Tensor | None) -> torch.Tensor:
        return head.denoise(policy.transformer, noisy, modulations, prefix, flags)

    assert torch.equal(found(None), found(given))
    one, two = given.clone(), given.clone()
    one[..., 1], two[..., 2] = True, True  # the same token
    assert not torch.equal(found(one), found(None))
    assert not torch.equal(found(one), found(two))


@pytest.mark.parametrize("name", ["autoregressive", "masked"])
def test_action_tokens_are_given_and_the_rest_is_sampled_after_them(name: str) -> None:
    policy = small_policy(**objective(name)).eval()
    head = policy.head
    assert isinstance(head, AutoregressiveHead | MaskedHead)
    rows = torch.zeros(2, 16, 2).uniform_(-1, 1, generator=torch.Generator().manual_seed(0))
    frozen = (torch.arange(16) >= 1) & (torch.arange(16) < 9)  # the first row is due before the newest observation
    known, prefix = Known(rows, frozen.expand(2, 16), frozen.expand(2, 16).float()), policy.prefix(batch_of(2))
    calls, original = [], policy.transformer.forward
    policy.transformer.forward = lambda *a, **k: calls.append(1) or original(*a, **k)  # type: ignore[method-assign]
    with torch.no_grad():
        chunk = head.sample(policy.transformer, prefix, 2, torch.Generator().manual_seed(0), known)
        tokens = encode_bins(chunk, head.bins)
        assert torch.equal(tokens[:, 2:18], encode_bins(rows, head.bins)[:, 2:18])
        if isinstance(head, AutoregressiveHead):
            likely = head.predict(policy.transformer, prefix, tokens[:, None]).argmax(-1)[:, 0]
            assert torch.equal(likely[:, 18:], tokens[:, 18:])
        else:
            assert len(calls) == 5  # ten passes, but half of the tokens are there


def test_options_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match=r"policy\.prefix_steps: expected 0 with masked, which is given rows without"):
        small_policy(prefix_steps=2, **objective("masked"))
    with pytest.raises(InputError, match=r"policy\.prefix_steps: expected at most 14, found 15"):
        PolicyConfig(prefix_steps=15)
    with pytest.raises(InputError, match=r"delay: expected at most policy\.prefix_steps, 4, with rtc, found 5"):
        require_continuing(PolicyConfig(prefix_steps=4), 5)
    with pytest.raises(InputError, match=r"chunking: expected another one than rtc with policy\.action_basis=freq"):
        require_continuing(PolicyConfig(action_basis="frequency", normalization_per_step=True))
    with pytest.raises(DataError, match=r"expected shape .* 1 to n of them frozen, found"):
        Given(np.zeros((2, 2)), 3)
    teacher, student = small_policy(prefix_steps=2), small_policy()
    with pytest.raises(InputError, match=r"teacher: expected policy\.prefix_steps 0, found 2"):
        student.learn_from(teacher)


def test_checkpoints_from_before_load_and_new_ones_come_back(tmp_path: Path) -> None:
    small_policy().save_pretrained(tmp_path / "old")
    options = tmp_path / "old" / "config.yaml"
    options.write_text("".join(line for line in options.open() if "prefix_steps" not in line))
    assert DiffusionPolicy.from_pretrained(tmp_path / "old").config.prefix_steps == 0
    policy = small_policy(prefix_steps=3)
    policy.save_pretrained(tmp_path / "new")
    stored, batch = DiffusionPolicy.from_pretrained(tmp_path / "new"), batch_of(2)
    draws = [p.sample(batch, torch.Generator().manual_seed(0)) for p in (policy.eval(), stored)]
    torch.testing.assert_close(*draws, rtol=0, atol=0)
