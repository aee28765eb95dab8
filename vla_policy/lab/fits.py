"""Power laws of loss against data, the worth of repeated data, frontiers, and bootstrap intervals.

Few points carry three parameters, so an interval stands beside every number, and nothing is said beyond the measured
range without saying so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import least_squares, minimize_scalar

from vla_policy.interfaces import InputError

Sample = Sequence[tuple[float, float]]  # amounts of data with their losses
Run = tuple[float, float, float, float]  # parameters, unique samples, epochs from 1 on, loss above 0
RESAMPLES = 1000
EXPONENTS = 0.02, 5.0  # of a power law


@dataclass(frozen=True)
class PowerLaw:
    """L(D) = A / D^B + C."""

    a: float
    b: float
    c: float

    def __call__(self, amount: np.ndarray | float) -> np.ndarray:
        """The loss at an amount of data."""
        return np.asarray(self.a / np.asarray(amount, float) ** self.b + self.c)

    def amount(self, loss: float) -> float:
        """The amount of data with this loss; infinite at or below the asymptote C, and without a slope."""
        if loss <= self.c or self.a <= 0:
            return float("inf")
        return float((self.a / (loss - self.c)) ** (1 / self.b))


def fit_power_law(points: Sample) -> PowerLaw:
    """The least-squares power law through three or more amounts of data, A >= 0 and B within `EXPONENTS`.

    `InputError` for fewer amounts.
    """
    amounts, losses = np.array(points, float).reshape(-1, 2).T
    if len(np.unique(amounts)) < 3:
        raise InputError(f"power law: expected 3 or more amounts of data, found {sorted(set(amounts.tolist()))}")
    unit = float(np.exp(np.log(amounts).mean()))  # amounts around 1 keep the equations well conditioned

    def best(exponents: np.ndarray | float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A >= 0 and C for each exponent, which are linear in the losses, and the squared error."""
        terms = (amounts / unit) ** -np.asarray(exponents)[..., None]
        centred = terms - terms.mean(-1, keepdims=True)
        a = np.maximum(centred @ losses / np.square(centred).sum(-1), 0.0)
        c = losses.mean() - a * terms.mean(-1)
        return a, c, np.square(a[..., None] * terms + c[..., None] - losses).sum(-1)

    tried = np.geomspace(*EXPONENTS, 60)
    near = int(np.argmin(best(tried)[2]))
    around = tried[max(near - 1, 0)], tried[min(near + 1, len(tried) - 1)]
    b = float(minimize_scalar(lambda exponent: float(best(exponent)[2]), bounds=around, method="bounded").x)
    a, c, _ = best(b)
    return PowerLaw(float(a) * unit**b, b, float(c))


def resamples(points: Sample, generator: np.random.Generator) -> Iterator[list[tuple[float, float]]]:
    """Points drawn anew among those of the same amount, which are the training seeds, `RESAMPLES` times."""
    groups = [[point for point in points if point[0] == amount] for amount in sorted({amount for amount, _ in points})]
    for _ in range(RESAMPLES):
        yield [same[k] for same in groups for k in generator.integers(len(same), size=len(same))]


def has_spread(points: Sample) -> bool:
    """Whether every amount has two or more training seeds, without which an interval would be a point."""
    amounts = [amount for amount, _ in points]
    return all(amounts.count(amount) > 1 for amount in amounts)


def percentile_interval(values: Sequence[float]) -> list[float]:
    """The 95 % percentile interval of bootstrapped values, which may be infinite."""
    return [float(value) for value in np.quantile(values, [0.025, 0.975], method="inverted_cdf")]


@dataclass(frozen=True)
class RepeatedData:
    """L = A / N^alpha + B / D'^beta + E with D' = U + U R (1 - exp(-(epochs - 1) / R)) (arXiv 2507.15857).

    N parameters, U unique samples; R, written R_D*, says after how many repetitions data is worth little more.
    """

    a: float
    alpha: float
    b: float
    beta: float
    e: float
    r: float

    def __call__(self, parameters: np.ndarray, unique: np.ndarray, epochs: np.ndarray) -> np.ndarray:
        """The loss after so many epochs."""
        worth = effective_data(unique, epochs, self.r)
        return np.asarray(self.a / parameters**self.alpha + self.b / worth**self.beta + self.e)


def effective_data(unique: np.ndarray, epochs: np.ndarray, r: float) -> np.ndarray:
    """D' of `RepeatedData`."""
    return np.asarray(unique * (1 + r * (1 - np.exp(-(epochs - 1) / r))))


def fit_repeated_data(runs: Sequence[Run], starts: Sequence[float] = (3.0, 15.0, 100.0, 500.0)) -> RepeatedData:
    """The least-squares fit in log loss, the best of those that start from these R.

    `InputError` for fewer than 7 runs.
    """
    if len(runs) < 7:
        raise InputError(f"repeated data: expected 7 or more runs for 6 parameters, found {len(runs)}")
    n, u, epochs, losses = np.array(runs, float).T
    n_unit, u_unit = float(np.exp(np.log(n).mean())), float(np.exp(np.log(u).mean()))

    def model(parameters: np.ndarray) -> RepeatedData:
        return RepeatedData(*np.exp(parameters).tolist())

    def residuals(parameters: np.ndarray) -> np.ndarray:
        return np.log(model(parameters)(n / n_unit, u / u_unit, epochs)) - np.log(losses)

    spread = max(float(np.ptp(losses)), 1e-6)
    begin = [np.log([spread, 0.3, spread, 0.5, max(losses.min() - spread / 2, 1e-3), r]) for r in starts]
    bounds = (np.log([1e-9, 0.01, 1e-9, 0.01, 1e-9, 0.1]), np.log([1e9, 5, 1e9, 5, 1e9, 1e5]))
    fits = [least_squares(residuals, np.clip(start, *bounds), bounds=bounds, max_nfev=5000) for start in begin]
    found = model(min(fits, key=lambda fit: fit.cost).x)
    a, b = found.a * n_unit**found.alpha, found.b * u_unit**found.beta
    return replace(found, a=a, b=b)


def frontier(points: Sample) -> list[tuple[float, float]]:
    """The Pareto frontier of (cost, loss): each point that no cheaper or equally cheap one is as good as."""
    found: list[tuple[float, float]] = []
    for cost, loss in sorted(points):
        if not found or loss < found[-1][1]:
            found.append((cost, loss))
    return found


def critical_cost(first: Sample, second: Sample) -> float | None:
    """The cost from which on the best loss of `second` stays below that of `first`, within what both were measured at;
    None if there is none.
    """
    if not first or not second:
        return None
    costs = [sorted(cost for cost, _ in points) for points in (first, second)]
    low, high = max(some[0] for some in costs), min(some[-1] for some in costs)
    critical = None
    for cost in sorted({cost for some in costs for cost in some if low <= cost <= high}, reverse=True):
        if _at(second, cost) >= _at(first, cost):
            break
        critical = cost
    return critical


def _at(points: Sample, cost: float) -> float:
    """The best loss at no more than this cost."""
    return min((loss for spent, loss in points if spent <= cost), default=float("inf"))
