"""Real-time execution without ROS: what was seen, which action is due now, and what may leave as a command.

Nothing here reads a clock: the time is handed in as `now`, in seconds, so that a simulation, a test and a robot play
a chunk alike: `Pilot` says when to ask the policy and with what, `Gate` makes commands of its answers.
"""

from vla_policy.runtime.buffer import ObservationBuffer
from vla_policy.runtime.contract import gate_config
from vla_policy.runtime.gate import Gate, GateConfig
from vla_policy.runtime.history import History
from vla_policy.runtime.limits import Command, Limits
from vla_policy.runtime.periods import Period, Periods
from vla_policy.runtime.pilot import Pilot
from vla_policy.runtime.supervisor import State, Supervisor
from vla_policy.runtime.teleoperation import HELD, TELEOP_SCALE, Gamepad, HeldKey, Lead
from vla_policy.runtime.timeline import Timeline
from vla_policy.runtime.timing import Timing
from vla_policy.runtime.watchdog import Watchdog
from vla_policy.runtime.worker import Worker

__all__ = [
    "HELD",
    "TELEOP_SCALE",
    "Command",
    "Gamepad",
    "Gate",
    "GateConfig",
    "HeldKey",
    "History",
    "Lead",
    "Limits",
    "ObservationBuffer",
    "Period",
    "Periods",
    "Pilot",
    "State",
    "Supervisor",
    "Timeline",
    "Timing",
    "Watchdog",
    "Worker",
    "gate_config",
]
