"""PushT simulation: an xArm6 on a table in PyBullet, and gym-pusht with the same interface."""

from sim.config import TASK, GoalConfig, PushTConfig
from sim.disturbances import Disturbance, DisturbedEnv
from sim.env import PushTEnv, PushTState
from sim.gym_pusht import GymPushTEnv, make_disturbed_env, make_env
from sim.language.env import LanguagePushTEnv

__all__ = [
    "TASK",
    "Disturbance",
    "DisturbedEnv",
    "GoalConfig",
    "GymPushTEnv",
    "LanguagePushTEnv",
    "PushTConfig",
    "PushTEnv",
    "PushTState",
    "make_disturbed_env",
    "make_env",
]
