"""A robot's contract: which topics carry what a policy sees and does, in which units and within which limits.

One YAML file a robot, in `config/`. It provides an `Interface`; a checkpoint that needs another one is refused. The
topics, rates and limits beside it belong to the robot and may differ from those the data were recorded with.
"""

from vla_policy.interfaces import STATE
from vla_policy.robot.contract.load import find_config, load_contract
from vla_policy.robot.contract.spec import (
    ARRAY,
    COMMAND_TYPES,
    COMPRESSED,
    IMAGE,
    IMAGE_TYPES,
    JOINT_STATE,
    POSE,
    POSE_FIELDS,
    SIMULATED,
    STATE_TYPES,
    TRAJECTORY,
    TWIST,
    CommandSpec,
    Contract,
    ImageRegion,
    Output,
    Source,
    Stream,
    Timeouts,
)
from vla_policy.robot.contract.units import Conversion

__all__ = [
    "ARRAY",
    "COMMAND_TYPES",
    "COMPRESSED",
    "IMAGE",
    "IMAGE_TYPES",
    "JOINT_STATE",
    "POSE",
    "POSE_FIELDS",
    "SIMULATED",
    "STATE",
    "STATE_TYPES",
    "TRAJECTORY",
    "TWIST",
    "CommandSpec",
    "Contract",
    "Conversion",
    "ImageRegion",
    "Output",
    "Source",
    "Stream",
    "Timeouts",
    "find_config",
    "load_contract",
]
