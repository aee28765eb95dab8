"""Policies compiled for one arm."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from helpers.compiling import compiling
from helpers.small_diffusion import batch_of, histories_of, objective, small_policy
from helpers.small_vlm import small_backbone
from torch._dynamo.utils import counters
from torch.profiler import ProfilerActivity, profile

from vla_policy.interfaces import ENVIRONMENT_STATE, Given, InputError
from vla_policy.models import BackboneConfig, DiffusionPolicy, TransformerConfig
from vla_policy.models.prepared import prepare

GIVEN = Given(np.full((4, 2), 0.4), 2)
TINY: dict[str, Any] = {"transformer": TransformerConfig(width=32, depth=1, heads=2, time_width=16)}


def chunk(policy: DiffusionPolicy, given: Given | None = None, seed: int = 0) -> np.ndarray:
    (found,) = policy.predict(histories_of(policy, 1, seed), np.random.default_rng(seed), [given])
    return found.actions


def norms(call: Callable[[], object]) -> int:
    """The layer normalisations that torch runs as operations, of which compiled code has none."""
    with profile(activities=[ProfilerActivity.CPU]) as found:
        call()
    return sum(event.count for event in found.key_averages() if event.key == "aten::layer_norm")


@compiling
@pytest.mark.slow
def test_it_gives_the_same_chunks_and_never_compiles_again() -> None:
    policy = small_policy(object_frame=ENVIRONMENT_STATE, action_relative=True, **TINY)
    several = batch_of(3)

    def chunks() -> list[np.ndarray]:
        """From nothing, twice; and what is not prepared: guided, for three arms, several for each."""
        drawn = [policy.sample(several, torch.Generator().manual_seed(0))]
        drawn.append(policy.propose(several, torch.Generator().manual_seed(0), 2))
        return [chunk(policy), chunk(policy, seed=1), chunk(policy, GIVEN), *(part.numpy() for part in drawn)]

    expected, guided = chunks(), norms(lambda: chunk(policy, GIVEN))
    prepare(policy)
    graphs = counters["stats"]["unique_graphs"]
    found = chunks()
    with ThreadPoolExecutor(1) as worker:  # as in a node
        found[1] = worker.submit(chunk, policy, seed=1).result()
        assert worker.submit(norms, lambda: chunk(policy)).result() == 0
    for mine, others in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, others, atol=1e-5)
    np.testing.assert_array_equal(chunk(policy), found[0])
    assert norms(lambda: chunk(policy)) == 0
    assert 0 < norms(lambda: chunk(policy, GIVEN)) < guided  # its observation is encoded by compiled code
    assert counters["stats"]["unique_graphs"] == graphs


@compiling
@pytest.mark.slow
@pytest.mark.parametrize("name", ["ddpm", "masked"])
def test_given_rows_are_prepared_too(name: str) -> None:
    given = {"prefix_steps": 4} if name == "ddpm" else {}
    policy = small_policy(image=True, **TINY, **objective(name, inference_steps=3), **given)
    expected = [chunk(policy), chunk(policy, GIVEN)]
    prepare(policy)
    for mine, others in zip([chunk(policy), chunk(policy, GIVEN)], expected, strict=True):
        np.testing.assert_allclose(mine, others, atol=1e-5)
    assert norms(lambda: chunk(policy)) == norms(lambda: chunk(policy, GIVEN)) == 0


@compiling
@pytest.mark.slow
def test_instructions_of_any_length_have_one_shape() -> None:
    backbone = small_backbone()
    policy = small_policy(image=True, backbone=backbone, backbone_config=BackboneConfig(), **TINY)
    batches = [{**batch_of(1), "task": [task]} for task in ("push", "push the T onto the red goal")]

    def chunks() -> list[torch.Tensor]:
        return [policy.sample(batch, torch.Generator().manual_seed(0)) for batch in batches]

    expected = chunks()
    prepare(policy)
    for mine, others in zip(chunks(), expected, strict=True):
        torch.testing.assert_close(mine, others, atol=1e-5, rtol=0)
    with torch.no_grad():
        reading = [norms(partial(policy.read, batch)) for batch in batches]
    assert [norms(partial(policy.sample, batch, torch.Generator())) for batch in batches] == reading


@compiling
@pytest.mark.slow
def test_each_member_of_an_ensemble_is_compiled_with_its_own_weights() -> None:
    policy = small_policy(ensemble=2, **TINY)
    expected = chunk(policy)
    prepare(policy)
    np.testing.assert_allclose(chunk(policy), expected, atol=1e-5)
    assert norms(lambda: chunk(policy)) == 0


def test_what_cannot_be_prepared_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = small_policy(**TINY, **objective("autoregressive"))
    with pytest.raises(InputError, match="compile: expected a policy of flow, ddpm or masked, found autoregressive"):
        prepare(tokens)
    with pytest.raises(InputError, match="compile: expected a policy on a CPU, found one on meta"):
        prepare(small_policy(**TINY).to("meta"))
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", (None, "no-such-compiler"))
    with pytest.raises(InputError, match=r"compile: expected a C\+\+ compiler \(apt install g\+\+, .*found none"):
        prepare(small_policy(**TINY))
