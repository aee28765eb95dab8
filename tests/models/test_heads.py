"""Action tokens and the heads that predict them."""

import math

import pytest
import torch
from helpers.small_diffusion import batch_of, objective, small_policy

from vla_policy.interfaces import ACTION, InputError
from vla_policy.models import PolicyConfig, TransformerConfig
from vla_policy.models.heads import (
    AutoregressiveHead,
    DenoisingHead,
    MaskedHead,
    decode_bins,
    encode_bins,
    make_head,
    masked_diffusion_loss,
)


def test_tokens_come_back_within_half_a_bin_and_clip_what_lies_outside() -> None:
    actions = torch.rand(5, 16, 2) * 2 - 1
    tokens = encode_bins(actions, 256)
    assert tokens.shape == (5, 32)
    assert float((decode_bins(tokens, 256, 2) - actions).abs().max()) <= 1 / 256 + 1e-6
    assert torch.equal(encode_bins(decode_bins(tokens, 256, 2), 256), tokens)
    assert encode_bins(torch.tensor([[-7.0, -1.0], [1.0, 7.0]]), 4).tolist() == [0, 0, 3, 3]
    assert encode_bins(torch.tensor([[-0.5, -0.5001], [0.0, 0.49]]), 4).tolist() == [1, 0, 2, 2]


def test_a_patch_is_a_run_of_consecutive_actions() -> None:
    transformer = TransformerConfig(width=32, depth=2, heads=2, time_width=16, patch=4)
    policy = small_policy(transformer=transformer)
    head = policy.head
    assert isinstance(head, DenoisingHead)
    with torch.no_grad():
        for layer in policy.transformer.layers:  # without self-attention nothing crosses a patch's border
            layer.self_out.weight.zero_()
    noisy = torch.randn(1, 1, 16, 2)
    changed = noisy.clone()
    changed[:, :, 5] += 1
    prefix, modulations = policy.prefix(batch_of(1)), policy.transformer.modulations(torch.rand(1, 1))
    before, after = (head.denoise(policy.transformer, x, modulations, prefix) for x in (noisy, changed))
    assert (before != after).any(-1).flatten().tolist() == [4 <= step < 8 for step in range(16)]


def test_a_new_head_knows_nothing() -> None:
    batch = batch_of(4)
    for name in ("autoregressive", "masked"):
        policy = small_policy(trained=False, **objective(name))
        loss, _ = policy.loss(batch, torch.Generator().manual_seed(0))
        if name == "autoregressive":
            assert float(loss.detach()) == pytest.approx(math.log(256), rel=1e-5)
    policy = small_policy(trained=False)
    assert isinstance(policy.head, DenoisingHead)
    modulations = policy.transformer.modulations(torch.rand(4, 1))
    out = policy.head.denoise(policy.transformer, torch.randn(4, 1, 16, 2), modulations, policy.prefix(batch))
    assert torch.equal(out, torch.zeros(4, 1, 16, 2))


@pytest.mark.parametrize("name", ["autoregressive", "masked"])
def test_tokens_are_sampled_from_the_predicted_distribution(name: str) -> None:
    policy = small_policy(trained=False, **objective(name))
    head = policy.head
    assert isinstance(head, AutoregressiveHead | MaskedHead)
    with torch.no_grad():  # whatever it sees: bin 3 three times as likely as bin 200, nothing else
        head.logits.bias.fill_(-100.0)
        head.logits.bias[[3, 200]] = torch.tensor([math.log(3.0), 0.0])
    prefix = policy.prefix(batch_of(64))

    def tokens(seed: int) -> torch.Tensor:
        chunk = head.sample(policy.transformer, prefix, 64, torch.Generator().manual_seed(seed))
        return encode_bins(chunk, head.bins)

    assert set(tokens(0).unique().tolist()) == {3}
    head.greedy = False
    drawn = tokens(0)
    assert set(drawn.unique().tolist()) == {3, 200}
    assert torch.equal(drawn, tokens(0))
    assert not torch.equal(drawn, tokens(1))
    assert float((drawn == 3).float().mean()) == pytest.approx(0.75, abs=0.04)  # of 64 x 32


def test_the_masked_loss_is_the_weighted_sum_of_its_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 5, 7, generator=generator)
    tokens = torch.randint(7, (2, 3, 5), generator=generator)
    masked, time = torch.rand(2, 3, 5, generator=generator) < 0.5, torch.rand(2, 3, generator=generator) + 0.1
    total = 0.0
    for b in range(2):
        for s in range(3):
            surprise = sum(
                -float(logits[b, s, n].log_softmax(-1)[tokens[b, s, n]]) for n in range(5) if masked[b, s, n]
            )
            total += surprise / float(time[b, s]) / 5
    assert float(masked_diffusion_loss(logits, tokens, masked, time)) == pytest.approx(total / 6, rel=1e-5)


def test_the_masked_loss_of_a_uniform_guess_is_log_bins_on_average() -> None:
    policy = small_policy(trained=False, noise_samples=64, **objective("masked"))
    losses = [float(policy.loss(batch_of(16), torch.Generator().manual_seed(k))[0].detach()) for k in range(8)]
    assert sum(losses) / 8 == pytest.approx(math.log(256), rel=0.03)  # 1 / t makes up for the share t that is masked


def test_greedy_decoding_takes_the_most_likely_token_given_the_previous_ones() -> None:
    policy = small_policy(**objective("autoregressive")).eval()
    head = policy.head
    assert isinstance(head, AutoregressiveHead)
    prefix = policy.prefix(batch_of(3))
    with torch.no_grad():
        actions = head.sample(policy.transformer, prefix, 3, torch.Generator())
        tokens = encode_bins(actions, head.bins)[:, None]
        again = head.predict(policy.transformer, prefix, tokens).argmax(-1)
    assert torch.equal(again, tokens)
    assert len(tokens.unique()) > 3


def test_unmasking_fixes_equal_shares_and_never_changes_its_mind(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = small_policy(**objective("masked")).eval()
    head = policy.head
    assert isinstance(head, MaskedHead)
    seen, original = [], head.predict

    def watched(transformer, prefix, tokens, time):
        seen.append((tokens.clone(), float(time)))
        return original(transformer, prefix, tokens, time)

    monkeypatch.setattr(head, "predict", watched)
    with torch.no_grad():
        chunk = head.sample(policy.transformer, policy.prefix(batch_of(2)), 2, torch.Generator())
    assert [int((tokens[0] == head.nothing).sum()) for tokens, _ in seen] == [32, 29, 26, 22, 19, 16, 13, 10, 6, 3]
    assert [time for _, time in seen] == pytest.approx([1 - k / 10 for k in range(10)])
    final = encode_bins(chunk, head.bins)[:, None]
    for tokens, _ in seen:
        kept = tokens != head.nothing
        assert torch.equal(tokens[kept], final[kept])


@pytest.mark.parametrize("name", ["flow", "ddpm", "autoregressive", "masked"])
def test_every_objective_memorises_one_chunk(name: str) -> None:
    policy = small_policy(trained=False, **objective(name))
    batch = batch_of(2)
    optimizer = torch.optim.Adam(policy.parameters(), lr=5e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(150):
        loss, _ = policy.loss(batch, generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    error = (policy.eval().sample(batch, generator) - batch[ACTION]).abs().mean()
    untrained = (small_policy(trained=False, **objective(name)).sample(batch, generator) - batch[ACTION]).abs().mean()
    assert float(error) < 0.5 * float(untrained)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (objective("autoregressive") | {"action_normalization": "mean_std"}, "quantile or min_max.*'mean_std'"),
        ({"objective": objective("gan")["objective"]}, r"policy\.objective\.name: expected one of .*'masked'.*'gan'"),
    ],
)
def test_impossible_objectives_are_refused(change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_head(PolicyConfig(**change), 2)


def test_token_heads_refuse_samplers_of_others() -> None:
    config = PolicyConfig(**objective("masked"))
    config.objective.sampler = "euler"
    with pytest.raises(InputError, match=r"policy\.objective\.sampler: .*\['greedy', 'categorical'\], found 'euler'"):
        make_head(config, 2)
    config.objective.sampler, config.objective.bins = "greedy", 1
    with pytest.raises(InputError, match=r"policy\.objective\.bins: expected at least 2, found 1"):
        make_head(config, 2)
