"""The options of every command: a dataclass states each default once, and what it means beside it.

`conf/<command>.yaml` adds only the choice of a scene, whose defaults `sim.PushTConfig` states. Help is read from the
dataclass's source, so that it needs none of its imports.
"""

from __future__ import annotations

import ast
import io
import math
import re
import tokenize
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib import import_module, resources
from pathlib import Path
from textwrap import wrap
from typing import Any

import yaml
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

OPTIONS = {
    "answers": "vla_policy.evaluation.language.answers:AnswersConfig",
    "calibrate": "vla_policy.evaluation.surprise.calibration:CalibrateConfig",
    "collect": "vla_policy.collection.collect:CollectConfig",
    "delays": "vla_policy.evaluation.success.delays:DelaysConfig",
    "eval": "vla_policy.evaluation.success.evaluate:EvalConfig",
    "generalization": "vla_policy.evaluation.generalization.study:GeneralizationConfig",
    "graph": "vla_policy.graph.application:GraphConfig",
    "instructions": "vla_policy.cli.calibrate.instructions:InstructionsConfig",
    "latency": "vla_policy.cli.bench.latency:LatencyConfig",
    "open_loop": "vla_policy.evaluation.success.open_loop:OpenLoopConfig",
    "plan": "vla_policy.evaluation.planning.study:PlanEvalConfig",
    "refusals": "vla_policy.evaluation.language.refusals:RefusalsConfig",
    "ros": "vla_policy.benchmarks.ros.measurements:RosConfig",
    "serve": "vla_policy.cli.serve:ServeConfig",
    "serve_bench": "vla_policy.cli.bench.serve:ServeBenchConfig",
    "sim": "vla_policy.cli.bench.sim:SimConfig",
    "speculation": "vla_policy.benchmarks.speculation:SpeculationConfig",
    "surprise": "vla_policy.evaluation.surprise.study:SurpriseConfig",
    "swap": "vla_policy.evaluation.language.swap:SwapConfig",
    "web_bench": "vla_policy.cli.bench.web:WebBenchConfig",
    "web_data": "vla_policy.web.options:DataConfig",
    "web_live": "vla_policy.web.options:LiveConfig",
    "world_model_eval": "vla_policy.evaluation.imagination.study:WorldModelEvalConfig",
}
SCENE = "sim.config:PushTConfig"
TRAINING = {  # sections of what vla-train composes
    "data": "vla_policy.conf.training_config:DataConfig",
    "trainer": "vla_policy.conf.training_config:TrainerConfig",
    "policy": "vla_policy.conf.policy_config:PolicyConfig",
    "policy.backbone": "vla_policy.conf.policy_config:BackboneConfig",
    "distill": "vla_policy.conf.training_config:DistillConfig",
    "scene": SCENE,
    "world_model": "vla_policy.conf.world_model_config:WorldModelConfig",
    "dynamics": "vla_policy.conf.dynamics_config:DynamicsConfig",
    "returns": "vla_policy.conf.returns_config:ReturnConfig",
    "trajectory": "vla_policy.conf.trajectory_config:TrajectoryConfig",
}
COLUMN, WIDTH = 22, 118  # where comments begin, and where lines end


def store_options(name: str) -> None:
    """Make the defaults of a command known to Hydra, as `<name>_options` in the defaults list of conf/<name>.yaml, and
    those of a scene if it has one.
    """
    if name in OPTIONS:
        ConfigStore.instance().store(f"{name}_options", _defaults(OPTIONS[name]))
    if re.search(r"^  - scene:", _yaml(name), re.MULTILINE):
        store_scene()


def values_like_groups(name: str) -> set[str]:
    """The options of a command that are plain values although they have the name of a folder of conf/, from which
    Hydra would choose.
    """
    if name not in OPTIONS:
        return set()
    folders = {entry.name for entry in resources.files("vla_policy.conf").iterdir() if entry.is_dir()}
    chosen = set(re.findall(r"^  - (\w+):", _yaml(name), re.MULTILINE))
    return (folders - chosen) & _defaults(OPTIONS[name]).keys()


def store_scene() -> None:
    """Make the defaults of the simulated scene known to Hydra, as `scene_defaults`."""
    try:
        defaults = _defaults(SCENE)
    except ModuleNotFoundError:  # a robot need not have the simulation; who chooses a scene meets the error later
        defaults = {}
    ConfigStore.instance().store("scene_defaults", defaults, package="scene")


def _defaults(path: str) -> dict[str, Any]:
    """The defaults of the dataclass at `module:name`."""
    module, _, kind = path.partition(":")
    return asdict(getattr(import_module(module), kind)())


def _yaml(name: str) -> str:
    return resources.files("vla_policy.conf").joinpath(f"{name}.yaml").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Option:
    """A key, its default in YAML, its meaning, and the keys below it."""

    key: str
    default: str
    meaning: str
    below: list[Option] = field(default_factory=list)

    def lines(self, indent: int = 0) -> Iterator[str]:
        """`key: default  # meaning` in as many lines as it needs; the meaning of a long default stands above it."""
        text = f"{' ' * indent}{self.key}: {self.default}".rstrip()
        first = max(len(text) + 2, COLUMN)
        if first > WIDTH // 2 or not self.meaning:
            yield from (f"{' ' * indent}# {part}" for part in wrap(self.meaning, WIDTH - 2 - indent))
            yield text
        else:
            for i, part in enumerate(wrap(self.meaning, WIDTH - 2 - first)):
                yield f"{text if i == 0 else '':{first}}# {part}"
        for option in self.below:
            yield from option.lines(indent + 2)


def explained(name: str) -> str:
    """The help text of conf/<name>.yaml and of the command's options."""
    text = _yaml(name)
    title = [line for line in text.splitlines() if line.startswith("#")]
    groups = [Option(*found) for found in re.findall(r"^  - (\w+): (\w+)(?:\s+# (.*))?$", text, re.MULTILINE)]
    own = {option.key: option for option in options(*OPTIONS[name].split(":"))}
    chosen = [_with_keys(group, own.pop(group.key, None)) for group in groups]
    return "\n".join([*title, *(line for option in [*chosen, *own.values()] for line in option.lines())]) + "\n"


def _with_keys(group: Option, own: Option | None) -> Option:
    """A group with the keys that its choices share, if the command's options have them."""
    if own is None or not own.below:
        return group
    keys = [option for option in own.below if option.key != "name"]  # which the choice says
    return Option(group.key, "", f"{group.default}, {group.meaning}", keys)


def explained_training(values: Mapping[str, Any]) -> str:
    """What `vla-train --help` says of a composed configuration: its values, and what each key means."""
    meanings = _meanings_in("train") | _meanings_in("scene/pusht_language", "scene.")
    for section, path in TRAINING.items():
        if not values.get(section.partition(".")[0]):  # a robot need not have the simulation of a scene
            continue
        meanings |= _meanings_of(options(*path.split(":")), f"{section}.")
    return "".join(f"{line}\n" for option in _as_options(values, meanings) for line in option.lines())


def _as_options(values: Mapping[str, Any], meanings: Mapping[str, str], above: str = "") -> list[Option]:
    found = []
    for key, value in values.items():
        below = _as_options(value, meanings, f"{above}{key}.") if isinstance(value, Mapping) else []
        found.append(Option(key, "" if below else _as_yaml(value), meanings.get(above + key, ""), below))
    return found


def _as_yaml(value: Any) -> str:
    """A value in one line."""
    if isinstance(value, list):
        return yaml.safe_dump(value, default_flow_style=True, width=math.inf).strip()
    return OmegaConf.to_yaml({"key": value}).removeprefix("key:").strip()


def _meanings_of(found: list[Option], above: str) -> dict[str, str]:
    meanings = {above + option.key: option.meaning for option in found}
    for option in found:
        meanings |= _meanings_of(option.below, f"{above}{option.key}.")
    return meanings


def _meanings_in(name: str, above: str = "") -> dict[str, str]:
    """What the comments of conf/<name>.yaml say of its keys: those beside a key or, where there are none, above it."""
    meanings: dict[str, str] = {}
    parents: list[tuple[int, str]] = []
    over: list[str] = []
    text = resources.files("vla_policy.conf").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    for line in text.splitlines():
        code, _, comment = (part.strip() for part in line.partition("#"))
        indent = len(line) - len(line.lstrip())
        if not code and indent > COLUMN and parents:  # a comment that goes on
            meanings[above + ".".join(key for _, key in parents)] += f" {comment}"
        elif not code:
            over = [*over, comment] if comment else []
        elif match := re.match(r"(\w+):", code):
            parents = [*((at, key) for at, key in parents if at < indent), (indent, match[1])]
            meanings[above + ".".join(key for _, key in parents)] = comment or " ".join(over)
            over = []
    return meanings


def options(module: str, kind: str) -> list[Option]:
    """The fields of a dataclass, inherited ones first, from its source."""
    module, node = _find(module, kind)
    assert isinstance(node, ast.ClassDef)
    found: dict[str, Option] = {}
    for base in node.bases:
        found |= {option.key: option for option in options(module, ast.unparse(base))}
    comments = _comments(module)
    for statement, after in zip(node.body, [*node.body[1:], None], strict=True):
        if not isinstance(statement, ast.AnnAssign) or statement.value is None:
            continue
        meaning = comments.get(statement.end_lineno or 0, "")
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            meaning = " ".join(str(after.value.value).split())
        key = ast.unparse(statement.target)
        default, below = _default(module, statement.value)
        found[key] = Option(key, default, meaning, below)
    return list(found.values())


def _default(module: str, value: ast.expr) -> tuple[str, list[Option]]:
    """A default in YAML, or the options of the dataclass that it is."""
    if isinstance(value, ast.Call) and ast.unparse(value.func) == "field":
        (factory,) = (word.value for word in value.keywords if word.arg == "default_factory")
        value = factory.body if isinstance(factory, ast.Lambda) else ast.Call(factory, [], [])
    if isinstance(value, ast.Call):
        name = ast.unparse(value.args[0].func if value.args and isinstance(value.args[0], ast.Call) else value.func)
        empty = {"list": "[]", "dict": "{}"}
        return empty.get(name, ""), options(module, name) if _is_class(module, name) else []
    if ast.unparse(value) == "MISSING":
        return "???", []
    if isinstance(value, ast.Name):
        _, named = _find(module, value.id)
        assert isinstance(named, ast.expr)
        value = named
    if isinstance(value, ast.List):
        return "[" + ", ".join(ast.unparse(item).strip("'") for item in value.elts) + "]", []
    return _as_yaml(ast.literal_eval(value)), []


def _is_class(module: str, name: str) -> bool:
    """Whether it is one of our classes, rather than a function or an expression that computes a default."""
    try:
        return isinstance(_find(module, name)[1], ast.ClassDef)
    except LookupError:
        return False


def _find(module: str, name: str) -> tuple[str, ast.AST]:
    """Where a class or a constant is defined, and its node; imports are followed."""
    for node in _source(module)[1].body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return module, node
        if isinstance(node, ast.Assign):
            for target in node.targets:
                names = target.elts if isinstance(target, ast.Tuple) else [target]
                values = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
                for one, value in zip(names, values, strict=False):
                    if isinstance(one, ast.Name) and one.id == name:
                        return module, value
        if isinstance(node, ast.ImportFrom) and any(alias.name == name for alias in node.names):
            return _find(str(node.module), name)
    raise LookupError(f"{module}: no {name}")


@cache
def _source(module: str) -> tuple[str, ast.Module]:
    path = Path(str(resources.files("vla_policy"))).parent / module.replace(".", "/")
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    text = path.read_text(encoding="utf-8")
    return text, ast.parse(text)


@cache
def _comments(module: str) -> dict[int, str]:
    tokens = tokenize.generate_tokens(io.StringIO(_source(module)[0]).readline)
    return {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}
