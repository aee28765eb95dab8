"""A study: a YAML file with factors, seeds and a budget, and one run for every combination."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vla_policy.interfaces import InputError
from vla_policy.utils.configuration import literal

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
class Objectives:
    """What repeated data is worth to each objective: frontiers of loss against computing, and where they cross."""

    factor: str  # whose levels are objectives
    comparable: list[str] = field(default_factory=list)  # levels whose losses mean the same
    y: str = "val/loss"  # a result that is measured along each run


@dataclass
class Teachers:
    """Which runs learn from which others, by `distill.teacher`."""

    factor: str  # whose levels are recipes
    of: dict[str, str] = field(default_factory=dict)  # student's level: teacher's level, all other levels being equal


@dataclass
class Study:
    """What is varied, how often, and how much it may cost."""

    title: str = ""
    overrides: list[str] = field(default_factory=list)  # of vla-train, for every run
    factors: dict[str, dict[str, Any]] = field(default_factory=dict)
    """by name their levels, and by level the overrides of vla-train that make it, one or a list; policy.ensemble=K
    trains K policies and joins them
    """
    teachers: Teachers | None = None
    seeds: list[int] = field(default_factory=lambda: [0])  # of the training
    evaluate: list[str] | None = None  # overrides of vla-eval rollout; null: no rollouts
    core_hours: float = 1.0  # no run is begun that would exceed it
    figures: list[Figure] = field(default_factory=list)
    efficiency: Efficiency | None = None
    objectives: Objectives | None = None

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise InputError(f"seeds: expected one or more different numbers from 0 on, found {list(self.seeds)}")
        if not self.core_hours > 0:
            raise InputError(f"core_hours: expected a number above 0, found {self.core_hours}")
        _overrides("overrides", list(self.overrides))
        _overrides("evaluate", list(self.evaluate or []))
        for factor, options in self.factors.items():
            if not options:
                raise InputError(f"factors.{factor}: expected levels with their overrides, found none")
            for level, words in options.items():
                _overrides(f"factors.{factor}.{level}", words)
        for name, count in Counter(cell.name for cell in self.cells()).items():
            if count > 1:
                raise InputError(f"factors: expected a folder name for each run, found {count} runs named {name!r}")
        for where, name in self._named_factors():
            if name not in self.factors:
                raise InputError(f"{where}: expected one of the factors {sorted(self.factors)}, found {name!r}")
        for where, name, level in self._named_levels():
            if level not in self.factors[name]:
                raise InputError(f"{where}: expected one of {sorted(self.factors[name])}, found {level!r}")
        self._require_teachers_first()
        self._require_single_trainings()
        for k, figure in enumerate(self.figures):
            if figure.x not in AXES:
                self._require_numbers(f"figures.{k}.x", figure.x, positive=figure.log or figure.fit)
        if self.efficiency is not None:
            self._require_numbers("efficiency.data", self.efficiency.data, positive=True)

    def _named_factors(self) -> Iterator[tuple[str, str]]:
        for k, figure in enumerate(self.figures):
            if figure.x not in AXES:
                yield f"figures.{k}.x", figure.x
            if figure.line is not None:
                yield f"figures.{k}.line", figure.line
        if self.efficiency is not None:
            yield "efficiency.factor", self.efficiency.factor
            yield "efficiency.data", self.efficiency.data
        if self.objectives is not None:
            yield "objectives.factor", self.objectives.factor
        if self.teachers is not None:
            yield "teachers.factor", self.teachers.factor

    def _named_levels(self) -> Iterator[tuple[str, str, str]]:
        if self.efficiency is not None:
            yield "efficiency.standard", self.efficiency.factor, self.efficiency.standard
        if self.objectives is not None:
            for level in self.objectives.comparable:
                yield "objectives.comparable", self.objectives.factor, level
        if self.teachers is not None:
            for level in itertools.chain(*self.teachers.of.items()):
                yield "teachers.of", self.teachers.factor, level

    def _require_teachers_first(self) -> None:
        """`InputError` for a student that runs before its teacher."""
        if self.teachers is None:
            return
        order = list(self.factors[self.teachers.factor])
        for student, teacher in self.teachers.of.items():
            if order.index(teacher) >= order.index(student):
                raise InputError(f"teachers.of: expected {teacher!r} before its student {student!r}, found it behind")

    def _require_single_trainings(self) -> None:
        """`InputError` if results along a run are asked for where there are ensembles, whose members have their own."""
        along = self.objectives is not None or any(figure.x in AXES for figure in self.figures)
        for factor, options in self.factors.items():
            for level, words in options.items():
                if along and any(word.startswith("policy.ensemble=") for word in _overrides(factor, words)):
                    raise InputError(
                        f"factors.{factor}.{level}: expected no policy.ensemble in a study with objectives or a figure "
                        "along epochs or flops, which ensembles do not have, found one"
                    )

    def teacher(self, cell: Cell) -> Cell | None:
        """The run that a run learns from."""
        if self.teachers is None or cell.levels[self.teachers.factor] not in self.teachers.of:
            return None
        levels = cell.levels | {self.teachers.factor: self.teachers.of[cell.levels[self.teachers.factor]]}
        return next(other for other in self.cells() if (other.levels, other.seed) == (levels, cell.seed))

    def _require_numbers(self, where: str, factor: str, positive: bool) -> None:
        """`InputError` for a level that cannot be placed on the axis, rather than after hours of runs."""
        for level in self.factors[factor]:
            try:
                value = float(level)
            except ValueError:
                value = math.nan
            if not math.isfinite(value) or (positive and value <= 0):
                expected = "levels that are numbers" + (" above 0" if positive else "")
                raise InputError(f"{where}: expected a factor with {expected}, found {level!r} in {factor!r}")

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
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: expected a study in YAML, found {str(error).splitlines()[0]}") from None
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: expected the keys of a study, found {type(content).__name__}")
    try:
        study = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Study), OmegaConf.create(literal(content))))
    except OmegaConfBaseException as error:
        raise InputError(f"{path}: {str(error).splitlines()[0]}") from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    assert isinstance(study, Study)
    return study


class _Loader(yaml.SafeLoader):
    """Keys as text, since YAML reads the level 10 as a number; `InputError` for keys that are then the same."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        seen: set[str] = set()
        for key in keys:
            name = str(self.construct_object(key, deep=True))
            if name in seen:
                line = key.start_mark.line + 1
                raise InputError(f"line {line}: expected every key once, found {name!r} again; quotes tell keys apart")
            seen.add(name)
        return {str(key): value for key, value in super().construct_mapping(node, deep).items()}


def _overrides(where: str, words: Any) -> list[str]:
    found = [words] if isinstance(words, str) else words
    fits = isinstance(found, list) and all(
        isinstance(word, str) and ("=" in word or word.startswith("~")) for word in found
    )
    if not fits:
        raise InputError(f"{where}: expected key=value or a list of them, found {words!r}")
    return found
