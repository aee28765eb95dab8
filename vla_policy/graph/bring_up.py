"""bring_up NODE ... [--arm]: configures and activates lifecycle nodes and, with --arm, enables the gate."""

from __future__ import annotations

import argparse
import sys

from rclpy.utilities import remove_ros_args

from vla_policy.graph.operator import GraphError, Operator
from vla_policy.utils.starter import Starter


def main() -> None:
    parser = argparse.ArgumentParser(prog="bring_up", description=__doc__)
    parser.add_argument("NODE", nargs="+", help="lifecycle nodes, for instance policy")
    parser.add_argument("--arm", action="store_true", help="enable the command gate afterwards")
    options = parser.parse_args(remove_ros_args(sys.argv)[1:])
    starter = Starter()

    def check() -> None:
        if starter.gone():  # must not bring up or arm the nodes of another launch
            raise GraphError("the launch that started this has ended")

    try:
        with Operator(check) as operator:
            for name in options.NODE:
                operator.bring_up(name)
                print(f"{name} is active", flush=True)
            if options.arm:
                operator.enable(True)
                print("the gate is armed", flush=True)
    except GraphError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
