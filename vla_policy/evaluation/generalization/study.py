"""`vla-eval generalization`: what there is to say about new episodes, and which of it is worth anything."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from rich.table import Table
from torch import Tensor
from torch.func import functional_call

from vla_policy.conf.training_config import DataConfig
from vla_policy.data import LeRobotDataset, WindowDataset
from vla_policy.evaluation.formats import interval, percent
from vla_policy.evaluation.generalization.certificate import compressed_bits, finite_hypothesis_bound, quantized
from vla_policy.evaluation.generalization.flatness import (
    effective_dimension,
    hessian_product,
    leading_eigenvalues,
    trace,
)
from vla_policy.evaluation.statistics import mean_interval
from vla_policy.evaluation.success.open_loop import stated_episodes
from vla_policy.interfaces import ACTION, InputError
from vla_policy.models import DiffusionPolicy
from vla_policy.training import make_windows, split_episodes

PRIOR_PRECISION = 1.0  # of the effective dimension


@dataclass
class GeneralizationConfig:
    """What a checkpoint's training says about new episodes."""

    n_windows: int = 512  # of training and of held-out episodes each, at least one an episode, for losses and errors
    hessian_windows: int = 64  # of the training episodes, on which the loss's curvature is taken
    eigenvalues: int = 5  # the largest ones
    trace_draws: int = 10  # of Hutchinson's estimate, 2 or more
    delta: float = 0.05  # probability that the bound does not hold
    seed: int = 0  # of windows, noise and draws
    device: str = "auto"  # auto | cpu | cuda
    out: str = "outputs/generalization/${now:%Y-%m-%d_%H-%M-%S}"  # folder of what is found

    def __post_init__(self) -> None:
        least = {"n_windows": 1, "hessian_windows": 1, "eigenvalues": 1, "trace_draws": 2, "seed": 0}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise InputError(f"{name}: expected at least {low}, found {getattr(self, name)}")
        if not 0 < self.delta < 1:
            raise InputError(f"delta: expected a number between 0 and 1, found {self.delta:g}")


def generalization(policy: DiffusionPolicy, dataset: LeRobotDataset, config: GeneralizationConfig) -> dict[str, Any]:
    """Losses and errors on training and held-out episodes, flatness, compressed size, the bound, and rollouts.

    `InputError` if the card does not say which episodes of `dataset` the policy was trained on, or for an ensemble.
    """
    if policy.config.ensemble > 1:
        raise InputError(f"CHECKPOINT: expected a single policy, found an ensemble of {policy.config.ensemble}")
    policy = policy.eval()
    trained, held_out, split_seed = _split(policy, dataset)
    windows, others = (make_windows(dataset, policy.config, episodes) for episodes in (trained, held_out))
    shuffled = "actions" in policy.card["data"]  # what was learnt by heart, in the same order again
    if shuffled:
        if len(windows) != policy.card["data"].get("windows"):
            raise InputError(f"{dataset.root}: expected the windows of the training, as it shuffled them, found others")
        windows.shuffle_actions(split_seed)
    seen, unseen = _measured(policy, windows, config), _measured(policy, others, config)
    chosen = np.random.default_rng(config.seed).permutation(len(windows))[: config.hessian_windows]
    batch = windows.__getitems__(chosen)

    def loss(weights: Mapping[str, Tensor]) -> Tensor:
        """The same function of the weights at every call."""
        found: tuple[Tensor, Any] = functional_call(
            policy, dict(weights), (batch, torch.Generator().manual_seed(config.seed))
        )
        return found[0]

    weights = {name: value.detach() for name, value in policy.named_parameters()}
    with torch.no_grad():
        bits, size = compressed_bits(weights, lambda changed: float(loss(changed)))
    compressed = _measured(with_weights(policy, quantized(weights, bits)[0]), windows, config)
    risk = compressed["worse_than_holding"]
    bound = None if risk is None else finite_hypothesis_bound(risk, size, len(trained), config.delta)
    return {
        "training_episodes": len(trained),
        "held_out_episodes": len(held_out),
        "shuffled_actions": shuffled,
        "training": seen,
        "held_out": unseen,
        "hessian": _curvature(policy, loss, config),
        "compressed": {"bits_a_weight": bits, "bits": size, "training": compressed},
        "bound": {"risk": bound, "vacuous": None if bound is None else bound >= 1, "delta": config.delta},
        "evaluations": policy.card.get("evaluations", []),
    }


def with_weights(policy: DiffusionPolicy, weights: Mapping[str, Tensor]) -> DiffusionPolicy:
    """A copy of the policy with other weights."""
    changed = copy.deepcopy(policy)
    with torch.no_grad():
        for name, value in changed.named_parameters():
            value.copy_(weights[name])
    return changed


def _curvature(
    policy: DiffusionPolicy, loss: Callable[[Mapping[str, Tensor]], Tensor], config: GeneralizationConfig
) -> dict[str, Any]:
    weights = {name: value for name, value in policy.named_parameters() if value.requires_grad}
    product = hessian_product(lambda: loss(weights), list(weights.values()))
    size = sum(value.numel() for value in weights.values())
    eigenvalues = leading_eigenvalues(product, size, config.eigenvalues, config.seed)
    mean, error = trace(product, size, config.trace_draws, config.seed)
    return {
        "eigenvalues": eigenvalues,
        "trace": mean,
        "trace_standard_error": error,
        "effective_dimension": effective_dimension(eigenvalues, PRIOR_PRECISION),
        "parameters": size,
    }


def _split(policy: DiffusionPolicy, dataset: LeRobotDataset) -> tuple[list[int], list[int], int]:
    """Training and held-out episodes and the seed of the split, from what the card says of it."""
    data = policy.card.get("data") or {}
    stated = re.fullmatch(r"(\d+) of (\d+) episodes, split seed (\d+)", str(data.get("split", "")))
    held_out = stated_episodes(policy.card, dataset)
    if stated is None or not held_out:
        raise InputError(
            f"{dataset.root}: expected a policy trained on it alone with held-out episodes, found {data.get('split')!r}"
        )
    count, total, seed = (int(number) for number in stated.groups())
    split = DataConfig(str(dataset.root), n_episodes=count, val_episodes=len(held_out), split_seed=seed)
    excluded = data.get("excluded_episodes") or []
    kept = [index for index in dataset.episodes if index not in excluded]
    filled = [index for index in kept if dataset.length(index)]
    if len(kept) == total and count + len(held_out) <= len(filled):
        trained, again = split_episodes(filled, split)
        if sorted(again) == sorted(held_out):
            return trained, held_out, seed
    raise InputError(f"{dataset.root}: expected the {total} episodes that the policy was trained on, found others")


def even_choice(windows: WindowDataset, count: int, seed: int) -> dict[int, np.ndarray]:
    """By episode the same number of its windows, about `count` in all and at least one each, drawn without a look at
    them: their mean over an episode is then one independent draw of the risk.
    """
    generator = np.random.default_rng(seed)
    owners = np.array([windows.window(index)[0] for index in range(len(windows))])
    episodes = np.unique(owners)
    each = max(1, count // len(episodes))
    return {int(episode): generator.permutation(np.flatnonzero(owners == episode))[:each] for episode in episodes}


def _measured(policy: DiffusionPolicy, windows: WindowDataset, config: GeneralizationConfig) -> dict[str, Any]:
    """The loss, the error of the executed actions, and how often holding the last action would have been closer: the
    mean over episodes, None if the policy sees no earlier moment that has a last action.
    """
    losses, errors, held = [], [], []
    generator = torch.Generator().manual_seed(config.seed)
    begin, steps = policy.n_obs_steps - 1, policy.n_action_steps
    chosen = even_choice(windows, config.n_windows, config.seed)
    for batch in _batches(windows, np.concatenate(list(chosen.values()))):
        with torch.no_grad():
            losses += [float(policy.loss(batch, generator)[0])] * len(batch[ACTION])
        due = batch[ACTION][:, begin : begin + steps]
        errors += (policy.sample(batch, generator)[:, :steps].cpu() - due).abs().mean((1, 2)).tolist()
        if begin:
            held += (batch[ACTION][:, begin - 1 : begin] - due).abs().mean((1, 2)).tolist()
    return {
        "loss": float(np.mean(losses)),
        "action_error": float(np.mean(errors)),
        "action_error_ci95": mean_interval(errors),
        "worse_than_holding": _worse(errors, held, [len(some) for some in chosen.values()]) if held else None,
        "n_windows": len(errors),
    }


def _worse(errors: Sequence[float], held: Sequence[float], lengths: Sequence[int]) -> float:
    """The mean over episodes, of so many windows each, of the share of windows with the larger error."""
    worse = np.array(errors) > np.array(held)
    return float(np.mean([part.mean() for part in np.split(worse, np.cumsum(lengths)[:-1])]))


def _batches(windows: WindowDataset, chosen: np.ndarray) -> Iterator[dict[str, Any]]:
    for first in range(0, len(chosen), 128):
        yield windows.__getitems__(chosen[first : first + 128])


def generalization_table(found: Mapping[str, Any]) -> Table:
    """Training beside held-out, then what the weights say, then what counts."""
    seen, unseen, hessian = found["training"], found["held_out"], found["hessian"]
    control = ", training actions shuffled" if found["shuffled_actions"] else ""
    table = Table(title=f"generalisation{control}", title_justify="left")
    for column in ("", f"training, {found['training_episodes']} episodes", f"held out, {found['held_out_episodes']}"):
        table.add_column(column, justify="right")
    table.add_row("loss", f"{seen['loss']:.4g}", f"{unseen['loss']:.4g}")
    table.add_row("error of executed actions", *(_error(part) for part in (seen, unseen)))
    table.add_row("worse than holding", *(_share(part["worse_than_holding"]) for part in (seen, unseen)))
    table.add_section()
    largest = ", ".join(f"{value:.3g}" for value in hessian["eigenvalues"])
    table.add_row("Hessian's largest eigenvalues", largest)
    table.add_row("Hessian's trace", f"{hessian['trace']:.4g} +- {hessian['trace_standard_error']:.2g}")
    table.add_row("effective dimension, at least", f"{hessian['effective_dimension']:.2f} of {hessian['parameters']}")
    size = found["compressed"]
    table.add_row("compressed", f"{size['bits'] / 8e3:.0f} kB, {size['bits_a_weight']} bits a weight")
    table.add_row("compressed, worse than holding", _share(size["training"]["worse_than_holding"]))
    table.add_row("bound on worse than holding", _bound(found["bound"]))
    table.add_section()
    for entry in found["evaluations"] or [None]:
        table.add_row("rollouts, what counts", "none yet: vla-eval rollout" if entry is None else _rollouts(entry))
    return table


def _share(value: float | None) -> str:
    return "-" if value is None else percent(value)


def _bound(bound: Mapping[str, Any]) -> str:
    if bound["risk"] is None:
        return "none: a policy of one observation sees no last action"
    vacuous = "vacuous: " if bound["vacuous"] else ""
    return f"{vacuous}{100 * bound['risk']:.0f} % (delta {bound['delta']:g})"


def _error(part: Mapping[str, Any]) -> str:
    return f"{part['action_error']:.4g} {interval(part['action_error_ci95'])}"


def _rollouts(entry: Mapping[str, Any]) -> str:
    low_high: Sequence[float] = entry["success_ci95"]
    return f"{entry['n_success']} / {entry['n_episodes']}, exact {interval(low_high, 100, 1)} %"
