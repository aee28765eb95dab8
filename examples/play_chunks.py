"""Play chunks of actions through the gate of a robot's contract, without ROS and without a robot.

python examples/play_chunks.py [CONTRACT]

The imagined arm follows every command at once. The chunks ask it to be elsewhere immediately; the gate leads it there
within the contract's limits, and holds when a chunk has a bad number.
"""

import sys

import numpy as np

from vla_policy.interfaces import ActionChunk
from vla_policy.robot.contract import load_contract
from vla_policy.runtime import Gate, GateConfig, Limits

START, SECONDS = 100.0, 2.0
ROWS = 16  # of a chunk


def main(name: str = "pusht_sim") -> None:
    contract = load_contract(name)
    command, period = contract.command, 1.0 / contract.interface.fps
    change = None if command.acceleration is None else command.acceleration / command.rate**2
    limits = Limits(command.low, command.high, command.speed / command.rate, change)
    gate = Gate(GateConfig(command.rate, limits, heartbeats={"policy": contract.timeouts.policy}))

    arm = (command.low + command.high) / 2
    goal = arm + (command.high - command.low) / 8
    fastest = np.zeros_like(arm)
    for tick in range(int(SECONDS * command.rate)):
        now = START + tick / command.rate  # the caller's clock: here one that does not wait
        gate.measure(arm, now)
        gate.heartbeat("policy", stop=False, steady=now)
        if tick == 0:
            gate.enable(now, now)
        if tick % round(command.rate * period) == 0:  # a new chunk every control period
            gate.offer(ActionChunk(np.tile(goal, (ROWS, 1)), t_obs=now, dt=period), now)
        sent = gate.tick(now, now)
        if sent is not None:
            fastest = np.maximum(fastest, np.abs(sent.action - arm) * command.rate)
            arm = sent.action
    print(f"{np.abs(goal - arm).max():.3g} from the goal; fastest {fastest.round(3)}, allowed {command.speed}")

    gate.offer(ActionChunk(np.full((ROWS, len(goal)), np.nan), t_obs=now, dt=period), now)
    sent = gate.tick(now + 1 / command.rate, now + 1 / command.rate)
    print(f"{sent.status}: {sent.reason}" if sent is not None else "nothing is sent")


if __name__ == "__main__":
    main(*sys.argv[1:])
