"""The scene's configuration: the dataclass states each default, mistakes are named, choices reach the simulation."""

from dataclasses import asdict, replace
from importlib import resources
from typing import Any

import pytest
from omegaconf import OmegaConf

from sim import PushTConfig, make_env
from vla_policy.evaluation.success.checkpoint import env_factory
from vla_policy.evaluation.success.evaluate import EvalConfig
from vla_policy.interfaces import InputError
from vla_policy.rollouts.baselines import HoldPolicy
from vla_policy.utils.configuration import load_config, typed_config

DEFAULTS = OmegaConf.to_container(OmegaConf.create(asdict(PushTConfig())))


def test_a_scene_has_every_default_of_the_dataclass() -> None:
    values = OmegaConf.to_container(load_config("eval", []).scene)
    assert PushTConfig.from_mapping(values) == PushTConfig()
    assert values == DEFAULTS


def test_scenes_repeat_no_default() -> None:
    for file in resources.files("vla_policy.conf").joinpath("scene").iterdir():
        values = OmegaConf.to_container(OmegaConf.create(file.read_text(encoding="utf-8") or "{}"))
        assert _repeated(values, DEFAULTS) == [], file


def _repeated(values: dict[str, Any], defaults: dict[str, Any]) -> list[str]:
    """Keys whose value is the default's."""
    both = [key for key in values if key in defaults]
    nested = [name for key in both if isinstance(values[key], dict) for name in _repeated(values[key], defaults[key])]
    return [key for key in both if values[key] == defaults[key]] + nested


def test_the_language_task_changes_the_goals_and_little_else() -> None:
    words = ["scene=pusht_language", "scene.paraphrases=held_out", "scene.goals.red.pose=[0.55,0.1,0]"]
    env = env_factory(typed_config(EvalConfig, "eval", words), HoldPolicy())()
    assert list(env.config.goals) == ["red", "green", "blue", "yellow"]
    assert env.config.goals["red"].pose == (0.55, 0.1, 0.0)
    assert env.config.paraphrases == "held_out"
    language = {key: getattr(PushTConfig(), key) for key in ("goals", "block_colours", "paraphrases", "colours")}
    assert replace(env.config, **language) == PushTConfig()
    env.close()


def test_overrides_reach_the_environment() -> None:
    words = ["scene.physics.table_friction=0.3", "scene.goal_pose=[0.4,0.1,0]", "scene.cameras.top.size=32"]
    env = env_factory(typed_config(EvalConfig, "eval", words), HoldPolicy())()
    assert env.config.physics.table_friction == 0.3
    assert env.config.goal_pose == (0.4, 0.1, 0.0)
    assert env.config.cameras["top"].size == 32
    assert env.config.cameras["oblique"] == PushTConfig().cameras["oblique"]
    env.close()


def test_a_new_camera() -> None:
    side = {"position": [1, 0.5, 1], "target": [0.4, 0, 0], "field_of_view": 20, "size": 48}
    env = make_env("pybullet", ["side"], PushTConfig.from_mapping({"cameras": {"side": side}}))
    observation, _ = env.reset(seed=1)
    assert observation["observation.images.side"].shape == (48, 48, 3)
    env.close()


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"phisics": {}}, r"scene: expected keys out of .*'physics'.* found \['phisics'\]"),
        ({"physics": {"grip": 1}}, r"scene\.physics: expected keys out of .*'table_friction'.* found \['grip'\]"),
        ({"physics": 1}, r"scene\.physics: expected keys .* found 1"),
        ({"physics": {"table_friction": "rough"}}, r"table_friction: expected a number .* found 'rough'"),
        ({"physics": {"table_friction": -1}}, r"table_friction: expected a number that is not negative, found -1"),
        ({"max_episode_steps": 0}, r"max_episode_steps: expected a whole number above 0, found 0"),
        ({"goal_pose": [0.4, 0.0]}, r"scene\.goal_pose: expected 3 numbers, found \[0\.4, 0\.0\]"),
        ({"goal_pose": [0.4, 0.0, float("nan")]}, r"scene\.goal_pose: expected 3 numbers"),
        ({"cameras": 3}, r"scene\.cameras: expected cameras by name, found 3"),
        ({"cameras": {"top": {"zoom": 2}}}, r"scene\.cameras\.top: expected keys out of .* found \['zoom'\]"),
        ({"goals": ["red"]}, r"scene\.goals: expected goals by name, found \['red'\]"),
        ({"goals": {"red": {"pose": [0.5, 0, 0]}}}, r"scene\.goals\.red: a new goal needs \['colour'\]"),
        ({"goals": {"red": {"pose": [0.5, 0], "colour": [1, 0, 0]}}}, r"goals\.red\.pose: expected 3 numbers"),
        ({"goals": {"red": 3}}, r"scene\.goals\.red: expected keys out of \['colour', 'pose'\], found 3"),
        ({"paraphrases": "seen"}, r"paraphrases: expected one of \['training', 'held_out'\], found 'seen'"),
        ({"paraphrases": None}, r"scene\.paraphrases: expected text, found None"),
        ({"instruction": " "}, r"scene\.instruction: expected some words or null, found ' '"),
        ({"instruction": 3}, r"scene\.instruction: expected text, found 3"),
        ({"instruction": "push it"}, r"scene\.instruction: expected goals beside it"),
        ({"paraphrases": "held_out"}, r"scene\.paraphrases: expected goals beside it"),
        ({"block_colours": {"teal": [0, 0.4, 0.4]}}, r"scene\.block_colours: expected goals beside it"),
        ({"cameras": {"side": {"size": 96}}}, r"side: a new camera needs \['field_of_view', 'position', 'target'\]"),
    ],
)
def test_mistakes_are_named(values: dict, says: str) -> None:
    with pytest.raises(InputError, match=says):
        PushTConfig.from_mapping(values)
