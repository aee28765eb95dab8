"""PushT in simulation: an xArm6 on a table in PyBullet, and gym-pusht behind the same interface."""

from sim.config import TASK, PushTConfig
from sim.env import PushTEnv, PushTState
from sim.gym_pusht import GymPushTEnv, make_env

__all__ = ["TASK", "GymPushTEnv", "PushTConfig", "PushTEnv", "PushTState", "make_env"]
