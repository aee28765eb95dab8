"""The scene of task=pusht_language, as its file has it."""

from omegaconf import OmegaConf

from sim import PushTConfig
from vla_policy.utils.configuration import load_config


def four_goals(*overrides: str) -> PushTConfig:
    task = load_config("eval", ["task=pusht_language", *overrides]).task
    return PushTConfig.from_mapping(OmegaConf.to_container(task, resolve=True))
