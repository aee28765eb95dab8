"""The scene of scene=pusht_language, as its file has it."""

from omegaconf import OmegaConf

from sim import PushTConfig
from vla_policy.utils.configuration import load_config


def four_goals(*overrides: str) -> PushTConfig:
    scene = load_config("eval", ["scene=pusht_language", *overrides]).scene
    return PushTConfig.from_mapping(OmegaConf.to_container(scene, resolve=True))
