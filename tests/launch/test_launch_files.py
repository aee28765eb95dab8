"""Launch files: with the real launch system where there is one, by their text elsewhere."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from vla_policy.web.options import LiveConfig

if TYPE_CHECKING:
    from vla_policy.graph.operator import Operator

ROOT = Path(__file__).parents[2]
LAUNCH = """
import sys
from launch import LaunchService
from launch.launch_description_sources import AnyLaunchDescriptionSource
from launch.actions import IncludeLaunchDescription
from launch import LaunchDescription
arguments = [tuple(word.split(":=")) for word in sys.argv[2:]]
included = IncludeLaunchDescription(AnyLaunchDescriptionSource(sys.argv[1]), launch_arguments=arguments)
service = LaunchService()
service.include_launch_description(LaunchDescription([included]))
sys.exit(service.run())
"""  # as ros2 launch does
FILES = sorted((ROOT / "launch").glob("*.launch.py"))


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem.replace(".", "_"), path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_launch_descriptions_start_nodes(path: Path) -> None:
    pytest.importorskip("launch_ros")
    from launch.actions import DeclareLaunchArgument, OpaqueFunction
    from launch_ros.actions import Node

    from launch import LaunchContext

    context, nodes = LaunchContext(), []
    for entity in load(path).generate_launch_description().entities:
        if isinstance(entity, DeclareLaunchArgument):
            entity.execute(context)
        elif isinstance(entity, OpaqueFunction):
            nodes += entity.execute(context)
        else:
            nodes.append(entity)
    assert len([node for node in nodes if isinstance(node, Node)]) >= 2


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_launch_files_name_executables_and_parameters_that_exist(path: Path) -> None:
    text = path.read_text()
    compile(text, str(path), "exec")
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    names = {f"{name}_node" for name in re.findall(r'node\((?:\w*Node, )?"(\w+)"', text)}
    names |= set(re.findall(r'executable="(\w+)"', text)) - {"joy_node"}
    assert len(names) >= 2
    for name in names:
        module, _, function = scripts[name].partition(":")
        assert function == "main"
        assert (ROOT / module.replace(".", "/")).with_suffix(".py").is_file()
    known = "".join(path.read_text() for path in (ROOT / "vla_policy" / "nodes").glob("*_node.py"))
    known += "".join(f'"{option.name}"' for option in fields(LiveConfig))
    for parameter in re.findall(r'"(\w+)": (?!\()', text.split("def ", 1)[1]):
        assert f'"{parameter}"' in known


@contextmanager
def launched(log: Path, name: str, *arguments: str) -> Iterator[Operator]:
    """Somebody at the desk of a launch file being run; leaving interrupts it as Ctrl-C does, and it has to end well.

    Where the launch system and the installed package are.
    """
    pytest.importorskip("launch_ros")
    index = pytest.importorskip("ament_index_python.packages")
    try:
        index.get_package_prefix("vla_policy")
    except index.PackageNotFoundError:
        pytest.skip("vla_policy is not in the ament index")
    from helpers.ros import own_domain

    from vla_policy.graph.operator import Operator

    with own_domain(3), log.open("w") as output:
        program = subprocess.Popen(
            [sys.executable, "-c", LAUNCH, str(ROOT / "launch" / name), *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            with Operator(patience=300) as operator:
                yield operator
        finally:
            os.killpg(program.pid, signal.SIGINT)
            assert program.wait(120) == 0, log.read_text()
    assert "Traceback" not in log.read_text()


@pytest.mark.slow
@pytest.mark.dds
def test_the_simulation_is_brought_up_and_armed(tmp_path: Path) -> None:
    with launched(tmp_path / "log", "pusht.launch.py", "seed:=3") as operator:
        operator.wait(lambda: operator.gate_state in ("armed", "running", "holding"), "the gate being armed")
        operator.wait(lambda: "pusht_sim" in operator.diagnostics, "the simulation")
        assert operator.diagnostics["pusht_sim"]["seed"] == "3"
        operator.wait(lambda: "the gate is armed" in (tmp_path / "log").read_text(), "the end of bringing up")


@pytest.mark.slow
@pytest.mark.dds
def test_on_a_robot_nothing_is_brought_up_by_itself(tmp_path: Path) -> None:
    with launched(tmp_path / "log", "robot.launch.py", "contract:=pusht_sim") as operator:
        from lifecycle_msgs.srv import GetState

        state = operator.call(GetState, "policy/get_state", GetState.Request()).current_state
        assert state.label == "unconfigured"
        operator.wait(lambda: "command_gate" in operator.diagnostics, "the gate")
        gate = operator.diagnostics["command_gate"]
        assert (gate["state"], gate["dry_run"]) == ("idle", "True")
