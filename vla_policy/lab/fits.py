"""Power laws of loss against data and what follows from them, with bootstrap intervals.

Few points carry three parameters, so an interval stands beside every number, and nothing is said beyond the measured
range without saying so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares, minimize_scalar

from vla_policy.interfaces import InputError

Sample = Sequence[tuple[float, float]]  # amounts of data with their losses
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
    amounts, losses = np.array(points, float).T
    if len(np.unique(amounts)) < 3:
        raise InputError(f"power law: expected 3 or more amounts of data, found {sorted(set(amounts.tolist()))}")
    unit = float(np.exp(np.log(amounts).mean()))  # amounts around 1 keep the equations well conditioned

    def best(exponent: float) -> tuple[np.ndarray, float]:
        """A > 0 and C for an exponent, which are linear in the losses, and the squared error."""
        terms = np.column_stack([(amounts / unit) ** -exponent, np.ones_like(amounts)])
        solution = np.linalg.lstsq(terms, losses, rcond=None)[0]
        if solution[0] <= 0:
            solution = np.array([0.0, losses.mean()])
        return solution, float(np.square(terms @ solution - losses).sum())

    tried = np.geomspace(*EXPONENTS, 60)
    near = int(np.argmin([best(exponent)[1] for exponent in tried]))
    around = tried[max(near - 1, 0)], tried[min(near + 1, len(tried) - 1)]
    b = float(minimize_scalar(lambda exponent: best(exponent)[1], bounds=around, method="bounded").x)
    (a, c), _ = best(b)
    return PowerLaw(float(a) * unit**b, b, float(c))


def data_efficiency(standard: Sample, amount: float, loss: float) -> float:
    """How many times the data the standard recipe would need for the loss that another one has at `amount`.

    The power law of the standard recipe, inverted (arXiv 2509.14786).
    """
    return fit_power_law(standard).amount(loss) / amount


def bootstrap(groups: Sequence[Sample], statistic: Callable[[list[list[tuple[float, float]]]], float]) -> list[float]:
    """The 95 % percentile interval of `statistic` over resampled groups of points.

    Within a group points are resampled among those of the same amount: the training seeds.
    """
    generator = np.random.default_rng(0)
    values = []
    for _ in range(RESAMPLES):
        drawn = [_resampled(group, generator) for group in groups]
        values.append(statistic(drawn))
    return [float(value) for value in np.quantile(values, [0.025, 0.975])]


def _resampled(points: Sample, generator: np.random.Generator) -> list[tuple[float, float]]:
    found = []
    for amount in sorted({amount for amount, _ in points}):
        same = [point for point in points if point[0] == amount]
        found += [same[k] for k in generator.integers(len(same), size=len(same))]
    return found


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


def fit_repeated_data(runs: Sequence[tuple[float, float, float, float]]) -> RepeatedData:
    """The least-squares fit in log loss to (parameters, unique samples, epochs, loss), epochs from 1 on."""
    n, u, epochs, losses = np.array(runs, float).T
    if len(runs) < 7:
        raise InputError(f"repeated data: expected 7 or more runs for 6 parameters, found {len(runs)}")
    n_unit, u_unit = float(np.exp(np.log(n).mean())), float(np.exp(np.log(u).mean()))

    def model(parameters: np.ndarray) -> RepeatedData:
        a, alpha, b, beta, e, r = np.exp(parameters)
        return RepeatedData(a, alpha, b, beta, e, r)

    def residuals(parameters: np.ndarray) -> np.ndarray:
        return np.log(model(parameters)(n / n_unit, u / u_unit, epochs)) - np.log(losses)

    spread = max(float(np.ptp(losses)), 1e-6)
    starts = [np.log([spread, 0.3, spread, 0.5, max(losses.min() - spread / 2, 1e-3), r]) for r in (3, 15, 100, 500)]
    bounds = (np.log([1e-9, 0.01, 1e-9, 0.01, 1e-9, 0.1]), np.log([1e9, 5, 1e9, 5, 1e9, 1e5]))
    fits = [least_squares(residuals, start, bounds=bounds, max_nfev=5000) for start in starts]
    found = model(min(fits, key=lambda fit: fit.cost).x)
    return RepeatedData(
        found.a * n_unit**found.alpha, found.alpha, found.b * u_unit**found.beta, found.beta, found.e, found.r
    )


def frontier(points: Sample) -> list[tuple[float, float]]:
    """The Pareto frontier of (cost, loss): each point that no cheaper or equally cheap one is as good as."""
    found: list[tuple[float, float]] = []
    for cost, loss in sorted(points):
        if not found or loss < found[-1][1]:
            found.append((cost, loss))
    return found


def critical_cost(first: Sample, second: Sample) -> float | None:
    """The cost from which on the frontier of `second` stays below that of `first`; None if it does not within both."""
    ours, theirs = frontier(first), frontier(second)
    low, high = max(ours[0][0], theirs[0][0]), min(ours[-1][0], theirs[-1][0])
    costs = sorted({cost for cost, _ in [*ours, *theirs] if low <= cost} | {low, high})
    ahead = [_at(theirs, cost) < _at(ours, cost) for cost in costs]
    if not ahead or not ahead[-1]:
        return None
    since = len(ahead) - ahead[::-1].index(False) if False in ahead else 0
    return float(costs[since])


def _at(points: Sample, cost: float) -> float:
    """The best loss at no more than this cost."""
    return min((loss for spent, loss in points if spent <= cost), default=float("inf"))
