"""Configuration: dataclasses that state each default once, and Hydra's groups of what recipes and choices change."""

from dataclasses import asdict

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from vla_policy.conf.dynamics_config import DynamicsConfig
from vla_policy.conf.policy_config import BackboneConfig, PolicyConfig
from vla_policy.conf.returns_config import ReturnConfig
from vla_policy.conf.training_config import DataConfig, DistillConfig, TrainerConfig
from vla_policy.conf.trajectory_config import TrajectoryConfig
from vla_policy.conf.world_model_config import WorldModelConfig

_store = ConfigStore.instance().store
_store("default", asdict(DataConfig(MISSING)), group="data", package="data")
_store("default", asdict(TrainerConfig()), group="trainer", package="trainer")
_store("default", asdict(DistillConfig()), group="distill", package="distill")
_store("policy_defaults", asdict(PolicyConfig()) | {"observation_keys": MISSING}, package="policy")
_store("tiny", {"backbone": asdict(BackboneConfig())}, group="backbone", package="policy")
_store("dynamics_defaults", asdict(DynamicsConfig()), package="dynamics")
_store("returns_defaults", asdict(ReturnConfig()), package="returns")
_store("trajectory_defaults", asdict(TrajectoryConfig()), package="trajectory")
_store("world_model_defaults", asdict(WorldModelConfig()), package="world_model")
