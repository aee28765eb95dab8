"""What launch files start, without `launch`: its classes are stand-ins that keep what they were made with."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from vla_policy.interfaces import InputError

FILE = Path(__file__).parents[1] / "launch" / "collect.launch.py"


class Argument:
    """A LaunchConfiguration: its value is in the context."""

    def __init__(self, name: str) -> None:
        self.name = name

    def perform(self, context: dict[str, str]) -> str:
        return context[self.name]


def _made(*args: Any, **kwargs: Any) -> SimpleNamespace:
    return SimpleNamespace(**kwargs)


CLASSES = {
    "launch": {"LaunchDescription": _made},
    "launch.actions": {"DeclareLaunchArgument": _made, "OpaqueFunction": _made},
    "launch.conditions": {"IfCondition": _made},
    "launch.substitutions": {"LaunchConfiguration": Argument},
    "launch_ros": {},
    "launch_ros.actions": {"Node": _made},
    "launch_ros.parameter_descriptions": {"ParameterValue": _made},
}


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The nodes of collect.launch.py with these arguments, as (dry_run of the gate, whether there is a simulation)."""
    for name, classes in CLASSES.items():
        module = ModuleType(name)
        vars(module).update(classes)
        monkeypatch.setitem(sys.modules, name, module)
    launch = runpy.run_path(str(FILE))

    def start(**chosen: str) -> tuple[bool, bool]:
        context = {name: value for name, (value, _) in launch["ARGUMENTS"].items()} | chosen
        nodes = {node.executable: node for node in launch["nodes"](context)}
        return nodes["command_gate_node"].parameters[0]["dry_run"], "pusht_sim_node" in nodes

    return start


def test_collecting_sends_to_the_simulated_arm_and_to_a_real_one_only_when_told_so(started: Any) -> None:
    assert started() == (False, True)
    assert started(contract="xarm6") == (True, False)
    assert started(contract="xarm6", dry_run="false") == (False, False)
    with pytest.raises(InputError, match="expected the simulated"):
        started(contract="xarm6", sim="true")
