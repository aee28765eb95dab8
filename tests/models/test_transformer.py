"""adaLN-zero, the observation prefix, causal masks and the cache."""

import pytest
import torch
from helpers.small_diffusion import batch_of, objective, small_policy

from vla_policy.conf.policy_config import TransformerConfig
from vla_policy.models.heads import DenoisingHead
from vla_policy.models.transformer import ActionTransformer, Layer, time_embedding

CONFIG = TransformerConfig(width=32, depth=3, heads=2, time_width=16)
TOKENS, NOISY = 6, (4, 6, 32)  # a chunk's tokens; draws, tokens, width


def random_transformer() -> ActionTransformer:
    torch.manual_seed(0)
    model = ActionTransformer(TOKENS, CONFIG)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def test_a_new_layer_is_the_identity() -> None:
    torch.manual_seed(0)
    model = ActionTransformer(TOKENS, CONFIG)
    prefix = model.prefix(torch.randn(3, 5, 32))
    modulations = model.modulations(torch.rand(3, 2))
    x = torch.randn(3, 2, TOKENS, 32)
    layer = model.layers[0]
    assert isinstance(layer, Layer)
    assert torch.equal(layer(x, modulations[0], prefix.layers[0]), x)


def test_draws_that_share_a_prefix_equal_draws_with_a_prefix_each() -> None:
    model = random_transformer()
    tokens, noisy, time = torch.randn(3, 5, 32), torch.randn(3, *NOISY), torch.rand(3, 4)
    together = model(noisy, model.modulations(time), model.prefix(tokens))
    alone = [model(noisy[:, [s]], model.modulations(time[:, [s]]), model.prefix(tokens)) for s in range(noisy.shape[1])]
    torch.testing.assert_close(together, torch.cat(alone, dim=1))


def test_training_and_inference_attention_agree() -> None:
    model = random_transformer()
    tokens, noisy, time = torch.randn(2, 5, 32), torch.randn(2, *NOISY), torch.rand(2, 4)
    real = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    trained = model(noisy, model.modulations(time), model.prefix(tokens, real), causal=True)
    with torch.no_grad():
        again = model(noisy, model.modulations(time), model.prefix(tokens, real), causal=True)
    torch.testing.assert_close(trained.detach(), again)


def test_the_observation_and_time_matter() -> None:
    model = random_transformer()
    noisy = torch.randn(1, *NOISY).expand(2, -1, -1, -1)
    by_observation = model(noisy, model.modulations(torch.full((2, 1), 0.5)), model.prefix(torch.randn(2, 5, 32)))
    assert not torch.allclose(by_observation[0], by_observation[1])
    prefix = model.prefix(torch.randn(1, 5, 32).expand(2, 5, 32))
    by_time = model(noisy, model.modulations(torch.tensor([[0.1], [0.9]])), prefix)
    assert not torch.allclose(by_time[0], by_time[1])


def test_a_context_conditions_as_the_time_does() -> None:
    model = random_transformer()
    noisy, tokens = torch.randn(2, *NOISY), torch.randn(2, 5, 32)
    time, context = torch.rand(2, 4), torch.randn(2, 16)
    prefix = model.prefix(tokens, context=context)
    together = model(noisy, model.modulations(time, prefix.context), prefix)
    for row in range(2):  # each observation has its own
        alone = model.prefix(tokens[[row]], context=context[[row]])
        expected = model(noisy[[row]], model.modulations(time[[row]], alone.context), alone)
        torch.testing.assert_close(together[[row]], expected)
    assert not torch.allclose(together, model(noisy, model.modulations(time), prefix))


def test_padding_of_the_prefix_is_as_if_it_were_not_there() -> None:
    model = random_transformer()
    tokens, noisy, modulations = torch.randn(1, 5, 32), torch.randn(1, *NOISY), model.modulations(torch.rand(1, 4))
    padded = torch.cat([tokens, torch.randn(1, 3, 32)], dim=1)
    real = torch.tensor([[True] * 5 + [False] * 3])
    expected = model(noisy, modulations, model.prefix(tokens))
    torch.testing.assert_close(model(noisy, modulations, model.prefix(padded, real)), expected)
    assert not torch.allclose(model(noisy, modulations, model.prefix(padded)), expected)


def test_causal_attention_ignores_later_tokens() -> None:
    model = random_transformer()
    x = torch.randn(1, 1, TOKENS, 32, requires_grad=True)
    prefix, modulations = model.prefix(torch.randn(1, 5, 32)), model.modulations(torch.zeros(1, 1))
    for causal in (True, False):
        reaches = []
        for token in range(TOKENS):
            (gradient,) = torch.autograd.grad(
                model(x, modulations, prefix, causal=causal)[0, 0, token].sum(), x, retain_graph=True
            )
            reaches.append((gradient[0, 0].abs().sum(-1) > 0).tolist())
        lower = [[column <= row or not causal for column in range(TOKENS)] for row in range(TOKENS)]
        assert reaches == lower


def test_a_cache_of_keys_and_values_equals_the_whole_causal_pass() -> None:
    model = random_transformer()
    x, prefix, modulations = (
        torch.randn(2, *NOISY),
        model.prefix(torch.randn(2, 5, 32)),
        model.modulations(torch.zeros(1, 1)),
    )
    whole = model(x, modulations, prefix, causal=True)
    cache = model.new_cache()
    steps = [model(x[:, :, [k]], modulations, prefix, cache=cache) for k in range(TOKENS)]
    torch.testing.assert_close(torch.cat(steps, dim=2), whole)


def test_the_time_embedding_distinguishes_all_ddpm_steps() -> None:
    embedded = time_embedding(torch.arange(100) / 100, 64)
    distance = torch.cdist(embedded, embedded) + 10 * torch.eye(100)
    assert float(distance.min()) > 0.1


@pytest.mark.parametrize(
    ("name", "calls", "times"), [("flow", 10, 1), ("ddpm", 10, 1), ("autoregressive", 32, 1), ("masked", 10, 10)]
)
def test_a_chunk_encodes_its_observation_and_prefix_once(
    monkeypatch: pytest.MonkeyPatch, name: str, calls: int, times: int
) -> None:
    policy = small_policy(image=True, **objective(name))
    counts = {"observe": 0, "prefix": 0, "modulations": 0, "forward": 0}
    for owner, method in (
        (policy, "observe"),
        (policy.transformer, "prefix"),
        (policy.transformer, "modulations"),
        (policy.transformer, "forward"),
    ):
        original = getattr(owner, method)

        def counted(*args, original=original, method=method, **options):
            counts[method] += 1
            return original(*args, **options)

        monkeypatch.setattr(owner, method, counted)
    policy.sample(batch_of(2), torch.Generator().manual_seed(0))
    assert counts == {"observe": 1, "prefix": 1, "modulations": times, "forward": calls}
    assert policy.head.calls == calls


def test_reusing_the_prefix_equals_recomputing_it_every_step() -> None:
    policy = small_policy(image=True).eval()
    head = policy.head
    assert isinstance(head, DenoisingHead)
    batch = batch_of(2)
    reused = policy.sample(batch, torch.Generator().manual_seed(3))
    noise = torch.randn(2, 1, 16, 2, generator=torch.Generator().manual_seed(3))
    times = head.objective.times()

    def predict(x: torch.Tensor, k: int) -> torch.Tensor:
        modulations = policy.transformer.modulations(x.new_full(x.shape[:2], times[k]))
        return head.denoise(policy.transformer, x, modulations, policy.prefix(batch))

    with torch.no_grad():
        recomputed = head.objective.sample(predict, noise, None)[:, 0]
    torch.testing.assert_close(reused, policy.normalizer.unnormalize("action", recomputed)[:, 1:], atol=1e-5, rtol=1e-5)
