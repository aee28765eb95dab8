"""adaLN-zero and the observation prefix."""

from dataclasses import replace

import pytest
import torch
from helpers.small_diffusion import batch_of, small_policy

from vla_policy.models.config import TransformerConfig
from vla_policy.models.transformer import ActionTransformer, Layer, time_embedding

CONFIG = TransformerConfig(width=32, depth=3, heads=2, time_width=16)


def random_transformer() -> ActionTransformer:
    torch.manual_seed(0)
    model = ActionTransformer(2, 16, CONFIG)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def test_a_new_layer_is_the_identity_and_a_new_model_predicts_zero() -> None:
    torch.manual_seed(0)
    model = ActionTransformer(2, 16, CONFIG)
    prefix = model.prefix(torch.randn(3, 5, 32))
    modulations = model.modulations(torch.rand(3, 2))
    x = torch.randn(3, 2, 16, 32)
    layer = model.layers[0]
    assert isinstance(layer, Layer)
    assert torch.equal(layer(x, modulations[0], prefix[0]), x)
    assert torch.equal(model(torch.randn(3, 2, 16, 2), modulations, prefix), torch.zeros(3, 2, 16, 2))


def test_draws_that_share_a_prefix_equal_draws_with_a_prefix_each() -> None:
    model = random_transformer()
    tokens, noisy, time = torch.randn(3, 5, 32), torch.randn(3, 4, 16, 2), torch.rand(3, 4)
    together = model(noisy, model.modulations(time), model.prefix(tokens))
    alone = [model(noisy[:, [s]], model.modulations(time[:, [s]]), model.prefix(tokens)) for s in range(noisy.shape[1])]
    torch.testing.assert_close(together, torch.cat(alone, dim=1))


def test_a_patch_is_a_run_of_consecutive_actions() -> None:
    torch.manual_seed(0)
    model = ActionTransformer(2, 16, replace(CONFIG, patch=4))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        for layer in model.layers:  # without self-attention nothing crosses a patch's border
            assert isinstance(layer, Layer)
            layer.self_out.weight.zero_()
    noisy = torch.randn(1, 1, 16, 2)
    changed = noisy.clone()
    changed[:, :, 5] += 1
    prefix, modulations = model.prefix(torch.randn(1, 5, 32)), model.modulations(torch.rand(1, 1))
    moved = (model(noisy, modulations, prefix) != model(changed, modulations, prefix)).any(-1).flatten()
    assert moved.tolist() == [4 <= step < 8 for step in range(16)]


def test_training_and_inference_attention_agree() -> None:
    model = random_transformer()
    tokens, noisy, time = torch.randn(2, 5, 32), torch.randn(2, 1, 16, 2), torch.rand(2, 1)
    trained = model(noisy, model.modulations(time), model.prefix(tokens))
    with torch.no_grad():
        torch.testing.assert_close(trained.detach(), model(noisy, model.modulations(time), model.prefix(tokens)))


def test_the_observation_and_time_matter() -> None:
    model = random_transformer()
    noisy = torch.randn(1, 1, 16, 2).expand(2, 1, 16, 2)
    by_observation = model(noisy, model.modulations(torch.full((2, 1), 0.5)), model.prefix(torch.randn(2, 5, 32)))
    assert not torch.allclose(by_observation[0], by_observation[1])
    prefix = model.prefix(torch.randn(1, 5, 32).expand(2, 5, 32))
    by_time = model(noisy, model.modulations(torch.tensor([[0.1], [0.9]])), prefix)
    assert not torch.allclose(by_time[0], by_time[1])


def test_the_time_embedding_tells_all_ddpm_steps_apart() -> None:
    embedded = time_embedding(torch.arange(100) / 100, 64)
    distance = torch.cdist(embedded, embedded) + 10 * torch.eye(100)
    assert float(distance.min()) > 0.1


def test_a_chunk_encodes_its_observation_and_prefix_once(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = small_policy(image=True)
    calls = {"observe": 0, "prefix": 0, "modulations": 0, "forward": 0}
    for owner, name in (
        (policy, "observe"),
        (policy.transformer, "prefix"),
        (policy.transformer, "modulations"),
        (policy.transformer, "forward"),
    ):
        original = getattr(owner, name)

        def counted(*args, original=original, name=name):
            calls[name] += 1
            return original(*args)

        monkeypatch.setattr(owner, name, counted)
    policy.sample(batch_of(2), torch.Generator().manual_seed(0))
    assert calls == {"observe": 1, "prefix": 1, "modulations": 1, "forward": 10}


def test_reusing_the_prefix_equals_recomputing_it_every_step() -> None:
    policy = small_policy(image=True).eval()
    batch = batch_of(2)
    reused = policy.sample(batch, torch.Generator().manual_seed(3))
    noise = torch.randn(2, 1, 16, 2, generator=torch.Generator().manual_seed(3))
    times = policy.objective.times()

    def predict(x: torch.Tensor, k: int) -> torch.Tensor:
        tokens, _ = policy.observe(batch, None)
        modulations = policy.transformer.modulations(x.new_full(x.shape[:2], times[k]))
        return policy.transformer(x, modulations, policy.transformer.prefix(tokens))

    with torch.no_grad():
        recomputed = policy.objective.sample(predict, noise, None)[:, 0]
    torch.testing.assert_close(reused, policy.normalizer.unnormalize("action", recomputed), atol=1e-5, rtol=1e-5)
