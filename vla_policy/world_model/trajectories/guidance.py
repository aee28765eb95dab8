"""Guidance of a denoiser's predictions: towards what a value prefers, or towards a condition.

Both take predictions of any schedule x = a data + s noise (`models.objectives.Level`).
Shapes: B observations, S draws, T rows, D channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from vla_policy.models.objectives import Level, Predict

RowValue = Callable[[Tensor], Tensor]  # of rows (B, S, T, D) to (B, S)


def value_guided(predict: Predict, levels: Sequence[Level], value: RowValue, weight: float) -> Predict:
    """A prediction for p(data) exp(weight * value(data)) instead of p(data) (Diffuser, Janner et al. 2022, arXiv
    2205.09991, equation 3).

    The gradient of weight * value(E[data | x]) is added to the score of x (diffusion posterior sampling, Chung et al.
    2023, arXiv 2209.14687), so by Tweedie's formula E[data | x] = (x + s^2 score) / a it moves the estimated data by
    s^2 / a times it. That is exact for Gaussian data and a linear value. Pure noise, a = 0, says nothing of the value.
    """

    def guided(x: Tensor, k: int) -> Tensor:
        level = levels[k]
        if level.data == 0:
            return predict(x, k)
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            prediction = predict(x, k)
            estimate = level.of_x * x + level.of_prediction * prediction
            (gradient,) = torch.autograd.grad(value(estimate).sum(), x)
        change = weight * level.noise**2 / level.data * gradient  # of the estimated data
        return prediction.detach() + change / level.of_prediction

    return guided


def classifier_free(conditional: Predict, unconditional: Predict, weight: float) -> Predict:
    """Away from the prediction without the condition, through the one with it and, with a weight above 1, beyond
    (Ho & Salimans 2022, arXiv 2207.12598, in Decision Diffuser's form: equation 8 of arXiv 2211.15657).
    """

    def guided(x: Tensor, k: int) -> Tensor:
        base = unconditional(x, k)
        return base + weight * (conditional(x, k) - base)

    return guided
