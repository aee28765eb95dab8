"""Scenes of the simulation by name, for the ROS 2 graph; elsewhere Hydra composes them from `scene=`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from vla_policy.interfaces import InputError
from vla_policy.utils.options import store_scene

if TYPE_CHECKING:
    from sim import PushTConfig

SCENES = ("pusht", "pusht_goal", "pusht_language")


def with_scene(stored: Mapping[str, Any]) -> dict[str, Any]:
    """A stored configuration whose scene has the key `scene`; older ones call it `task`."""
    return {"scene" if key == "task" else key: value for key, value in stored.items()}


def load_scene(name: str, instruction: str = "") -> PushTConfig:
    """`conf/scene/<name>.yaml`; where it has several goals, a non-empty `instruction` applies to all episodes.

    `InputError` for an unknown name.
    """
    from sim import PushTConfig

    if name not in SCENES:
        raise InputError(f"scene: expected one of {list(SCENES)}, found {name!r}")
    store_scene()
    with initialize_config_module("vla_policy.conf", version_base="1.3"):
        values = OmegaConf.to_container(compose(overrides=[f"+scene={name}"]).scene)
    scene = PushTConfig.from_mapping(cast(dict[str, object], values))
    return replace(scene, instruction=instruction) if scene.goals and instruction else scene
