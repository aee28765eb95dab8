"""The averaged weights follow their formula."""

import pytest
import torch
from torch import nn

from vla_policy.training.ema import averaged_model, ema_decay


def test_decay_follows_the_power_schedule_up_to_its_maximum() -> None:
    assert ema_decay(1, 0.75, 0.9999) == pytest.approx(1 - 2**-0.75)
    assert ema_decay(999, 0.75, 0.9999) == pytest.approx(1 - 1000**-0.75)
    assert ema_decay(10**9, 0.75, 0.9999) == 0.9999


def test_the_average_is_the_weighted_sum_and_the_model_is_left_alone() -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    average = averaged_model(model, 0.75, 0.9)
    expected = model.weight.detach().clone()
    for step in range(1, 5):
        with torch.no_grad():
            model.weight.add_(1.0)
        kept = model.weight.detach().clone()
        decay = ema_decay(step, 0.75, 0.9)
        average.update_parameters(model)
        expected = decay * expected + (1 - decay) * model.weight.detach()
        torch.testing.assert_close(average.module.weight, expected)
        assert torch.equal(model.weight, kept)
    assert not average.module.weight.requires_grad
