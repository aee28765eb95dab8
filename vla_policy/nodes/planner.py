"""A policy node's planner: parameters that choose it, and those that change what it wants while it runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from rcl_interfaces.msg import ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from vla_policy.interfaces import InputError
from vla_policy.nodes import common
from vla_policy.planning.options import PlannerConfig, require_used, unused

PREFIX = "planner."
WANTED = {"objective": "progress, return, reach, keep_out, gentle, joined by +", "returns": "folder for return"}
NUMBERS = {"goal": "x, y, angle of the block, or the state to reach", "disc": "x, y, radius to keep out of, metres"}


class PlannerParameters:
    """The parameters `planner.name`, `planner.dynamics` and `planner.samples` of a node and, changeable at run time,
    `planner.objective`, `planner.goal`, `planner.disc` and `planner.returns`, which `config` joins.

    `use` is called with the new configuration before a change is accepted; its `InputError` refuses it. What no chosen
    objective uses is a mistake at the start; later it is kept for one that is chosen next.
    """

    def __init__(self, node: Node, use: Callable[[PlannerConfig], None]) -> None:
        self._use, self._node, default = use, node, PlannerConfig()
        values = {
            "name": common.parameter(
                node, "planner.name", default.name, "none, dmpc (the best of several proposals) or foresight"
            ),
            "dynamics": common.parameter(node, "planner.dynamics", "", "folder of a training with dynamics=dmpc"),
            "samples": common.parameter(
                node,
                "planner.samples",
                default.samples,
                "proposals for each chunk; of foresight imagined states, 8 do",
                (1, 1024),
            ),
        }
        for option, what in WANTED.items():
            given = getattr(default, option) or ""
            values[option] = node.declare_parameter(PREFIX + option, given, ParameterDescriptor(description=what)).value
        for option, what in NUMBERS.items():
            kind = Parameter.Type.DOUBLE_ARRAY
            values[option] = node.declare_parameter(PREFIX + option, kind, ParameterDescriptor(description=what)).value
        self.config = PlannerConfig(**{option: _chosen(option, value) for option, value in values.items()})
        require_used(self.config)
        node.add_on_set_parameters_callback(self._on_set)

    def _on_set(self, parameters: Sequence[Parameter]) -> SetParametersResult:
        given = {parameter.name.removeprefix(PREFIX): parameter.value for parameter in parameters}
        wanted = {option: _chosen(option, given[option]) for option in (*WANTED, *NUMBERS) if option in given}
        if not wanted:
            return SetParametersResult(successful=True)
        if self.config.name == "foresight":
            reason = f"planner.{next(iter(wanted))}: expected planner.name dmpc, which can want it, found foresight"
            return SetParametersResult(successful=False, reason=reason)
        try:
            changed = replace(self.config, **wanted)
            self._use(changed)
        except InputError as error:
            return SetParametersResult(successful=False, reason=str(error))
        self.config = changed
        kept = "".join(f"; {option} is kept for {words}" for option, words in unused(changed).items())
        wants = f"{changed.objective}, goal {changed.goal}, disc {changed.disc}"
        self._node.get_logger().info(f"planner wants {wants}{kept}")
        return SetParametersResult(successful=True)


def _chosen(option: str, given: Any) -> Any:
    """A parameter's value as that of the option: none for an empty folder or array."""
    if option in NUMBERS:
        return [float(number) for number in given or ()] or None
    return given or None if option in ("dynamics", "returns") else given
