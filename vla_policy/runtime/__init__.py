"""Real-time execution without ROS: what was seen, which action is due now, and what may leave as a command.

Nothing here reads a clock: the time is handed in as `now`, in seconds, so that a simulation, a test and a robot play
a chunk alike.
"""

from vla_policy.runtime.executor import Executor, measured_pose
from vla_policy.runtime.history import History
from vla_policy.runtime.limits import Command, Limits
from vla_policy.runtime.timeline import Timeline

__all__ = ["Command", "Executor", "History", "Limits", "Timeline", "measured_pose"]
