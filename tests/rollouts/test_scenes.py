"""Scenes by name are those of `scene=`."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from sim import PushTConfig
from vla_policy.interfaces import InputError
from vla_policy.rollouts.scenes import SCENES, load_scene
from vla_policy.utils.configuration import load_config


@pytest.mark.parametrize("name", SCENES)
def test_a_scene_is_that_of_the_commands(name: str) -> None:
    values = OmegaConf.to_container(load_config("eval", [f"scene={name}"]).scene)
    assert load_scene(name) == PushTConfig.from_mapping(values)


def test_an_instruction_counts_where_there_are_several_goals() -> None:
    assert load_scene("pusht_language", "to the red goal").instruction == "to the red goal"
    assert load_scene("pusht", "to the red goal") == PushTConfig()


def test_another_scene_is_refused() -> None:
    with pytest.raises(InputError, match="found 'kitchen'"):
        load_scene("kitchen")
