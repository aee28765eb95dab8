"""Real-time execution without ROS: synchronised observations, the action that is due, and safe commands.

Nothing here reads a clock: the time is an argument, `now`, in seconds, so that a simulation, a test and a robot execute
a chunk in the same way. `Pilot` decides when to call the policy, with which input, and what to play of its answer;
`Gate` makes commands of chunks.
"""

from vla_policy.runtime.buffer import ObservationBuffer
from vla_policy.runtime.chunking import CHUNKINGS, Chunking, predicted
from vla_policy.runtime.contract import gate_config
from vla_policy.runtime.gate import Gate, GateConfig
from vla_policy.runtime.history import History
from vla_policy.runtime.limits import Command, Limits
from vla_policy.runtime.periods import Period, Periods
from vla_policy.runtime.pilot import Pilot, decided
from vla_policy.runtime.supervisor import State, Supervisor
from vla_policy.runtime.teleoperation import HELD, TELEOP_SCALE, Gamepad, HeldKey, Lead
from vla_policy.runtime.timeline import Timeline
from vla_policy.runtime.timing import Timing
from vla_policy.runtime.watchdog import Watchdog
from vla_policy.runtime.worker import Worker

__all__ = [
    "CHUNKINGS",
    "HELD",
    "TELEOP_SCALE",
    "Chunking",
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
    "decided",
    "gate_config",
    "predicted",
]
