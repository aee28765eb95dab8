"""Speculation draws from the target's own distribution, whatever the draft."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from helpers.toy_decoder import VOCABULARY, AheadDrafter, ToyDecoder, open_toy, table
from scipy.stats import chi2, chisquare

from vla_policy.interfaces import InputError
from vla_policy.speculation import Decoded, Draft, Drafter, DrafterConfig, LocalDrafter, Task, decode
from vla_policy.speculation.acceptance import draw, verify

LIMIT, DRAWS = 40, 20_000
TARGET = table(0)


def drafter(kind: str, seed: int) -> Drafter | None:
    config = DrafterConfig(length=3, branches=6)
    if kind == "none":
        return None
    return (LocalDrafter if kind == "speculative" else AheadDrafter)(open_toy(seed), config)


def sample(helper: Drafter | None, seed: int, temperature: float | None = 1.0, limit: int = LIMIT) -> Decoded:
    generator = torch.Generator().manual_seed(seed)
    if helper is not None:
        helper.begin(Task(None, limit, temperature, int(torch.randint(2**62, (), generator=generator))))
    return decode(ToyDecoder(TARGET), limit, temperature, generator, helper)


@pytest.mark.parametrize("kind", ["none", "speculative", "ssd"])
def test_tokens_are_distributed_as_the_targets_own(kind: str) -> None:
    """Chi-square over all contexts of two tokens, each with the target's own probabilities of what follows."""
    helper = drafter(kind, seed=1)
    found = [sample(helper, seed) for seed in range(DRAWS // LIMIT)]
    counts = torch.zeros(VOCABULARY, VOCABULARY + 1, VOCABULARY)
    for each in found:
        for before, last, token in zip([VOCABULARY, 0, *each.tokens], [0, *each.tokens], each.tokens, strict=False):
            counts[last, before, token] += 1
    assert int(counts.sum()) == DRAWS
    seen = counts.sum(-1)
    expected = seen[..., None] * TARGET.softmax(-1)
    enough = expected.min(-1).values > 2
    statistic = float(((counts - expected).square() / expected)[enough].sum())
    assert chi2.sf(statistic, int(enough.sum()) * (VOCABULARY - 1)) > 1e-3
    assert int(enough.sum()) > 15
    if kind != "none":
        kept, drafted = (sum(getattr(each, name) for each in found) for name in ("kept", "drafted"))
        assert 0.2 < kept / drafted < 0.8  # another model: tokens were kept and tokens were refused


def test_the_share_of_kept_tokens_is_the_overlap_of_both_distributions() -> None:
    """Leviathan et al., theorem 3.5: sum over tokens of min(p, q); and what comes out is distributed as p."""
    p, q = torch.tensor([[0.5, 0.3, 0.2, 0.0]]), torch.tensor([[0.1, 0.2, 0.3, 0.4]])
    generator, draws = torch.Generator().manual_seed(0), 20_000
    tokens = draw(q.expand(draws, -1), torch.rand(draws, generator=generator)).tolist()
    both = torch.cat([p, torch.tensor([[0.0, 0.0, 0.0, 1.0]])])
    ends = [(token, *verify(both, Draft([token], q), generator)) for token in tokens]
    assert sum(kept for _, kept, _ in ends) / draws == pytest.approx(0.1 + 0.2 + 0.2, abs=0.015)
    assert {bonus for _, kept, bonus in ends if kept} == {3}
    first = Counter(token if kept else bonus for token, kept, bonus in ends)
    assert first[3] == 0
    assert chisquare([first[k] for k in range(3)], (draws * p[0, :3]).tolist()).pvalue > 1e-3


@pytest.mark.parametrize("patience", [(None,), (0,), (1,), (3,), (None, 0), (4, 0, None, 2, 1)])
@pytest.mark.parametrize("temperature", [None, 0.7])
def test_drafts_that_were_prepared_or_not_are_the_same(
    patience: tuple[int | None, ...], temperature: float | None
) -> None:
    hits = late = 0
    for seed in range(8):
        plain = sample(drafter("speculative", 1), seed, temperature)
        ahead = AheadDrafter(open_toy(1), DrafterConfig(length=3, branches=6), patience)
        found = sample(ahead, seed, temperature)
        assert (found.tokens, found.passes, found.kept) == (plain.tokens, plain.passes, plain.kept)
        hits, late = hits + found.hits, late + found.late
    assert (hits > 0) == (patience not in [(0,), (1,)])
    assert (late > 0) == (patience in [(3,), (4, 0, None, 2, 1)])


@pytest.mark.parametrize("kind", ["speculative", "ssd"])
@pytest.mark.parametrize("length", [1, 3, 8])
def test_greedy_decoding_is_equal_token_by_token(kind: str, length: int) -> None:
    config = DrafterConfig(length=length, branches=5)
    for seed in (0, 1, 2):  # the first is the target itself, which is never refused
        helper = (LocalDrafter if kind == "speculative" else AheadDrafter)(open_toy(seed), config)
        for limit in (1, 2, 30):
            alone, found = sample(None, 0, None, limit), sample(helper, 0, None, limit)
            assert found.tokens == alone.tokens
            assert len(found.tokens) == alone.passes == limit
            if seed == 0:
                assert found.kept == found.drafted
                assert found.passes == -(-limit // (length + 1))
                assert kind == "speculative" or found.hits == found.asked


def test_the_last_token_ends_an_answer_wherever_in_a_draft_it_stands() -> None:
    for seed in (0, 1):
        alone = decode(ToyDecoder(TARGET), 30, 1.0, torch.Generator().manual_seed(3), None)
        for end in set(alone.tokens):
            helper = LocalDrafter(open_toy(seed), DrafterConfig())
            helper.begin(Task(None, 30, None, 0))
            found = decode(ToyDecoder(TARGET), 30, None, torch.Generator(), helper, end)
            greedy = decode(ToyDecoder(TARGET), 30, None, torch.Generator(), None, end)
            assert found.tokens == greedy.tokens
            assert end not in found.tokens[:-1]


def test_damaged_probabilities_are_refused() -> None:
    with pytest.raises(InputError, match="tokens: expected finite probabilities"):
        decode(ToyDecoder(TARGET * torch.nan), 3, 1.0, torch.Generator(), None)


def test_impossible_drafters_are_refused() -> None:
    with pytest.raises(InputError, match="found 0, 8 and 1"):
        DrafterConfig(length=0)
