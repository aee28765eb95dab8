"""A study: a YAML file with factors, seeds and a budget, and one run for every combination."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vla_policy.interfaces import InputError

AXES = ("epochs", "flops")  # of a figure: along a run's own validations


@dataclass
class Figure:
    """A plot of a result against a factor of numbers, or against `epochs` or `flops` along each run."""

    y: str  # a result: success_rate, mean_max_reward, val/loss, val/action_error, ...
    x: str  # a factor, epochs or flops
    line: str | None = None  # a factor: one curve for each of its levels
    fit: bool = False  # a power law A / x^B + C through the means: solid between the measured points, dotted beyond
    log: bool = True  # a logarithmic x axis


@dataclass
class Efficiency:
    """How much data a recipe is worth: its losses looked up on the power law of another one's."""

    factor: str  # whose levels are recipes
    standard: str  # the level whose curve is inverted
    data: str  # the factor with the amount of data
    y: str = "val/loss"  # a result that falls with data


@dataclass
class Study:
    """What is varied, how often, and how much it may cost."""

    title: str = ""
    overrides: list[str] = field(default_factory=list)  # of vla-train, for every run
    factors: dict[str, dict[str, Any]] = field(default_factory=dict)
    """by name their levels, and by level the overrides of vla-train that make it, one or a list"""
    seeds: list[int] = field(default_factory=lambda: [0])  # of the training
    evaluate: list[str] | None = None  # overrides of vla-eval rollout; null: no rollouts
    core_hours: float = 1.0  # no run is begun that would exceed it
    figures: list[Figure] = field(default_factory=list)
    efficiency: Efficiency | None = None

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise InputError(f"seeds: expected one or more different numbers, found {list(self.seeds)}")
        if not self.core_hours > 0:
            raise InputError(f"core_hours: expected a number above 0, found {self.core_hours}")
        for factor, options in self.factors.items():
            if not options:
                raise InputError(f"factors.{factor}: expected levels with their overrides, found none")
            for level, words in options.items():
                _overrides(f"factors.{factor}.{level}", words)
        named = [(f"figures.{k}.{what}", name) for k, fig in enumerate(self.figures) for what, name in _factors(fig)]
        if self.efficiency is not None:
            named += [("efficiency.factor", self.efficiency.factor), ("efficiency.data", self.efficiency.data)]
        for where, name in named:
            if name not in self.factors:
                raise InputError(f"{where}: expected one of the factors {sorted(self.factors)}, found {name!r}")
        if self.efficiency is not None and self.efficiency.standard not in self.factors[self.efficiency.factor]:
            levels = sorted(self.factors[self.efficiency.factor])
            raise InputError(f"efficiency.standard: expected one of {levels}, found {self.efficiency.standard!r}")

    def cells(self) -> list[Cell]:
        """One a combination of levels and a seed; all combinations of the first seed come first."""
        found = []
        for seed in self.seeds:
            for levels in itertools.product(*self.factors.values()):
                chosen = dict(zip(self.factors, levels, strict=True))
                words = [_overrides(name, self.factors[name][level]) for name, level in chosen.items()]
                found.append(Cell(chosen, seed, [*itertools.chain(*words)]))
        return found


@dataclass(frozen=True)
class Cell:
    """One run: a level of each factor, and a training seed."""

    levels: dict[str, str]
    seed: int
    overrides: list[str]

    @property
    def name(self) -> str:
        """The name of its folder."""
        parts = [f"{factor}={level}" for factor, level in self.levels.items()]
        return ",".join([*parts, f"seed={self.seed}"]).replace("/", "_")


def read_study(path: str | Path) -> Study:
    """The study of a YAML file; `InputError` naming file and key of a mistake."""
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: expected a study in YAML, found {str(error).splitlines()[0]}") from None
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: expected the keys of a study, found {type(content).__name__}")
    try:
        study = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Study), OmegaConf.create(_plain(content))))
    except OmegaConfBaseException as error:
        raise InputError(f"{path}: {str(error).splitlines()[0]}") from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    assert isinstance(study, Study)
    return study


def _overrides(where: str, words: Any) -> list[str]:
    found = [words] if isinstance(words, str) else words
    if not isinstance(found, list) or not all(isinstance(word, str) and "=" in word for word in found):
        raise InputError(f"{where}: expected key=value or a list of them, found {words!r}")
    return found


def _factors(figure: Figure) -> list[tuple[str, str]]:
    of_x = [] if figure.x in AXES else [("x", figure.x)]
    return of_x + ([] if figure.line is None else [("line", figure.line)])


def _plain(value: Any) -> Any:
    """Keys as text: YAML reads the level 10 as a number."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    return value
