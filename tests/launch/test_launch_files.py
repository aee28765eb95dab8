"""Launch files: with the real launch system where there is one, by their text elsewhere."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
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
    setup = subprocess.run(
        [
            sys.executable,
            "-c",
            "import setuptools; setuptools.setup = lambda **k: print(k['entry_points']); import setup",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    names = {f"{name}_node" for name in re.findall(r'node\((?:\w*Node, )?"(\w+)"', text)}
    names |= set(re.findall(r'executable="(\w+)"', text)) - {"joy_node"}
    assert len(names) >= 2
    for name in names:
        assert f"'{name} = vla_policy.nodes.{name}:main'" in setup
        module = ROOT / "vla_policy" / "nodes" / f"{name}.py"
        assert module.is_file()
    known = "".join(path.read_text() for path in (ROOT / "vla_policy" / "nodes").glob("*_node.py"))
    for parameter in re.findall(r'"(\w+)": (?!\()', text.split("def ", 1)[1]):
        assert f'"{parameter}"' in known
