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
    smoothed_labels,
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
    def tokens(sampler: str, seed: int) -> torch.Tensor:
        policy = small_policy(trained=False, **objective(name, sampler=sampler))
        head = policy.head
        assert isinstance(head, AutoregressiveHead | MaskedHead)
        with torch.no_grad():  # whatever it sees: bin 3 three times as likely as bin 200, nothing else
            head.logits.bias.fill_(-100.0)
            head.logits.bias[[3, 200]] = torch.tensor([math.log(3.0), 0.0])
        chunk = head.sample(policy.transformer, policy.prefix(batch_of(64)), 64, torch.Generator().manual_seed(seed))
        return encode_bins(chunk, head.bins)

    assert set(tokens("greedy", 0).unique().tolist()) == {3}
    drawn = tokens("categorical", 0)
    assert set(drawn.unique().tolist()) == {3, 200}
    assert torch.equal(drawn, tokens("categorical", 0))
    assert not torch.equal(drawn, tokens("categorical", 1))
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
    surprise = torch.nn.functional.cross_entropy(logits.movedim(-1, 1), tokens, reduction="none")
    assert float(masked_diffusion_loss(surprise, masked, time)) == pytest.approx(total / 6, rel=1e-5)


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


def test_temperature_sharpens_or_flattens_the_predicted_distribution() -> None:
    policy = small_policy(trained=False, **objective("autoregressive", sampler="categorical", temperature=0.5))
    head = policy.head
    assert isinstance(head, AutoregressiveHead)
    logits = torch.full((4000, 256), -100.0)
    logits[:, [3, 200]] = torch.tensor([math.log(3.0), 0.0])
    drawn = head.choose(logits, torch.Generator().manual_seed(0))
    assert float((drawn == 3).float().mean()) == pytest.approx(9 / 10, abs=0.02)  # 3^2 : 1


def test_tokens_may_be_unmasked_at_random_or_by_confidence() -> None:
    def firsts(unmask: str) -> torch.Tensor:
        """Which tokens are there after one of 32 passes."""
        changes = objective("masked", sampler="greedy", inference_steps=32, unmask=unmask)
        policy = small_policy(trained=False, **changes)
        head = policy.head
        assert isinstance(head, MaskedHead)
        seen = []

        def predict(transformer, prefix, tokens, time):
            seen.append(tokens)
            confident = torch.linspace(5.0, 0.0, 32)[:, None] * torch.eye(256)[7]
            return confident.expand(*tokens.shape[:2], 32, 256)

        head.predict = predict  # type: ignore[method-assign]
        head.sample(policy.transformer, policy.prefix(batch_of(8)), 8, torch.Generator().manual_seed(0))
        return (seen[1] != head.nothing).nonzero()[:, -1]

    assert firsts("confidence").tolist() == [0] * 8
    assert len(firsts("random").unique()) > 3


def test_smoothed_labels_are_a_gaussian_over_the_neighbouring_bins() -> None:
    labels = smoothed_labels(torch.tensor([[5], [0]]), 16, 1.5)
    torch.testing.assert_close(labels.sum(-1), torch.ones(2, 1))
    assert float(labels[0, 0, 5] / labels[0, 0, 7]) == pytest.approx(math.exp(0.5 * (2 / 1.5) ** 2), rel=1e-5)
    assert int(labels[1, 0].argmax()) == 0


def test_smoothing_and_hidden_inputs_change_the_loss_in_training_alone() -> None:
    batch = batch_of(2)
    plain = small_policy(**objective("autoregressive"))
    changed = small_policy(**objective("autoregressive", label_smoothing=2.0, input_masking=0.5))
    assert set(changed.state_dict()) == set(plain.state_dict())

    def loss(policy, seed: int) -> float:
        return float(policy.loss(batch, torch.Generator().manual_seed(seed))[0].detach())

    assert loss(plain.train(), 0) == loss(plain.train(), 1)
    assert loss(changed.train(), 0) != loss(changed.train(), 1)
    assert loss(changed.eval(), 0) == loss(changed.eval(), 1) == pytest.approx(loss(plain.eval(), 0))


@pytest.mark.parametrize("name", ["flow", "autoregressive", "masked"])
@pytest.mark.parametrize("basis", ["time", "frequency"])
def test_a_head_without_past_rows_has_that_much_less_to_predict(name: str, basis: str) -> None:
    changes = objective(name) | {"predict_past": False, "action_basis": basis, "normalization_per_step": True}
    policy = small_policy(**changes)
    assert policy.head.length == (15 if name == "flow" else 30)
    assert policy.sample(batch_of(2), torch.Generator().manual_seed(0)).shape == (2, 15, 2)


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
    due = batch[ACTION][:, 1:]
    error = (policy.eval().sample(batch, generator) - due).abs().mean()
    untrained = (small_policy(trained=False, **objective(name)).sample(batch, generator) - due).abs().mean()
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
