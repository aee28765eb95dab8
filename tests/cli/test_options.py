"""Every option of every command is stated once, and explained."""

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from importlib import resources
from itertools import pairwise
from typing import Any

import pytest
from omegaconf import OmegaConf

from vla_policy.cli import train
from vla_policy.cli.help import config_parser
from vla_policy.conf.policy_config import BackboneConfig, PolicyConfig
from vla_policy.conf.training_config import TrainerConfig
from vla_policy.utils.configuration import load_config
from vla_policy.utils.options import OPTIONS, TRAINING, Option, explained, options


def dotted(found: list[Option], above: str = "") -> dict[str, Option]:
    return {
        key: option
        for one in found
        for key, option in {above + one.key: one, **dotted(one.below, f"{above}{one.key}.")}.items()
    }


def _as_yaml(value: Any) -> str:
    plain = {None: "null", True: "true", False: "false"}
    return plain[value] if value is None or isinstance(value, bool) else str(value).replace("'", "")


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_is_explained_and_the_file_repeats_none(name: str) -> None:
    found = dotted(options(*OPTIONS[name].split(":")))
    assert [key for key, option in found.items() if not option.meaning] == []
    lines = resources.files("vla_policy.conf").joinpath(f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not line.startswith(("#", "defaults:", "  - "))] == []


def test_help_has_defaults_and_what_they_mean() -> None:
    text = config_parser("vla-eval", "", "eval").format_help()
    assert "  scene: pusht          # or pusht_language; the scene: " in text
    assert "  num_envs: 16          # environments whose chunks are computed in batches\n" in text  # inherited
    assert "  disturbance:          # happens once in every episode; " in text
    assert "    magnitude: null     # null: the kind's default\n" in text
    assert "  out: outputs/eval/${now:%Y-%m-%d_%H-%M-%S}" in text
    assert max(map(len, text.splitlines())) <= 122


def test_help_shows_overridden_defaults() -> None:
    assert "\nnum_envs: 8 " in explained("calibrate")
    assert "\ndetector: whitened_error" in explained("calibrate")  # a constant
    assert "\nplan:                 # the search for plans\n  solver: cem " in explained("plan")
    assert "\ncameras: [top]        # each timed alone\n" in explained("sim")


@pytest.mark.parametrize("name", ["latency", "sim", "graph"])
def test_help_matches_the_composed_configuration(name: str) -> None:
    config = load_config(name, [])
    keys = dotted(options(*OPTIONS[name].split(":")))
    assert set(config) == {key for key in keys if "." not in key}
    for key in set(config) - {"scene", "planner", "out"}:
        assert _as_yaml(config[key]) == keys[key].default.replace("''", "")


@pytest.mark.parametrize("path", [path for section, path in TRAINING.items() if section != "scene"])
def test_every_option_of_training_is_explained(path: str) -> None:
    assert [key for key, option in dotted(options(*path.split(":"))).items() if not option.meaning] == []


@pytest.mark.parametrize("words", [[], ["world_model=lewm"], ["scene=pusht_language", "trainer.lr=0.5"]])
def test_the_help_of_training_explains_what_is_composed(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["vla-train", *words, "--help"])
    train.main()
    usage, _, text = capsys.readouterr().out.partition("== Configuration ==\n")
    assert "vla-train data.root=DATASET" in usage
    sections = {"scene", "data", "trainer", "distill", "policy", "world_model"}
    sections |= {"encoder", "backbone", "tiny", "transformer"}
    unexplained, section = [], ""
    for before, line in pairwise(["", *text.rstrip().splitlines()]):
        section = line.partition(":")[0] if line[0] != " " else section
        key = line.partition("#")[0].partition(":")[0].strip()
        if section != "scene" and key and "#" not in line + before * before.strip().startswith("#"):
            unexplained.append(key)
    assert set(unexplained) <= sections
    assert "  lr: 0.5             # the highest learning rate\n" in text or len(words) < 2
    assert max(map(len, text.splitlines())) <= 122


def flat(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    return {
        name: found
        for key, value in values.items()
        for name, found in (flat(value, f"{above}{key}.") if isinstance(value, dict) else {above + key: value}).items()
    }


@pytest.mark.parametrize("group", ["recipe", "policy"])
def test_recipes_and_objectives_repeat_no_default(group: str) -> None:
    config = load_config("train", ["data.root=x", "backbone=tiny"])
    plain: dict[str, Any] = {"policy": {**asdict(PolicyConfig()), "backbone": asdict(BackboneConfig())}}
    defaults = flat(plain | {"trainer": asdict(TrainerConfig())})
    assert set(flat({"trainer": OmegaConf.to_container(config.trainer)})) < set(defaults)
    files = list(resources.files("vla_policy.conf").joinpath(group).iterdir())
    values = {file.name: OmegaConf.to_container(OmegaConf.create(file.read_text() or "{}")) for file in files}
    said = {name: flat(own if group == "recipe" else {"policy": own}) for name, own in values.items()}
    for name, own in said.items():
        below = [said.get(f"{other}.yaml", {}) for other in own.get("defaults", [])]  # recipes that it begins with
        inherited = {key: value for part in [defaults, *below] for key, value in part.items() if key in defaults}
        assert {key: value for key, value in own.items() if key in inherited and inherited[key] == value} == {}, name


def test_configuration_is_composed_without_torch_and_the_simulation() -> None:
    code = "import sys, vla_policy.conf; sys.exit(len({'torch', 'sim'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_the_simulation_one_can_train_on_ones_own_robot() -> None:
    code = """
import sys
sys.modules["sim"] = None
from vla_policy.utils.configuration import load_config
assert load_config("train", ["data.root=x"]).scene == {}
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
