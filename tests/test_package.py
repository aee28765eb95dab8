"""What ROS 2 tools are told of the package."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[1]
MANIFEST = ElementTree.parse(ROOT / "package.xml").getroot()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OF_ROS = ("_msgs", "_srvs", "rclpy", "launch", "launch_ros", "ament_index_python")  # ends of package names
KEYS = {
    "cv2": "python3-opencv",
    "matplotlib": "python3-matplotlib",
    "numpy": "python3-numpy",
    "PIL": "python3-pil",
    "psutil": "python3-psutil",
    "scipy": "python3-scipy",
    "shapely": "python3-shapely",
    "yaml": "python3-yaml",
}
"""rosdep keys of imported modules, as far as there are any."""


def test_the_manifest_agrees_with_the_project() -> None:
    for key in ("name", "version"):
        assert MANIFEST.findtext(key) == PROJECT[key]
    assert MANIFEST.findtext("description") == PROJECT["description"] + "."
    assert {url.get("type") for url in MANIFEST.findall("url")} == {"website", "repository", "bugtracker"}


def test_what_is_imported_is_depended_on() -> None:
    found = _imported()
    expected = {name for name in found if name.endswith(OF_ROS)} | {KEYS[name] for name in found if name in KEYS}
    assert not expected - {depend.text for depend in MANIFEST.findall("exec_depend")}
    assert "python3-psutil" in expected


def test_colcon_finds_pytest() -> None:
    """It runs unittest, which finds no test here, unless the extra `test` names pytest itself."""
    assert any(requirement.startswith("pytest>") for requirement in PROJECT["optional-dependencies"]["test"])


def test_the_manifest_passes_the_linter_of_ament() -> None:
    linter = pytest.importorskip("ament_xmllint.main")
    assert linter.main([str(ROOT / "package.xml")]) == 0


def _imported() -> set[str]:
    """The modules that the package, the simulator and the launch files import from elsewhere."""
    found: set[str] = set()
    for folder in ("vla_policy", "sim", "launch"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    found |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and not node.level:
                    found.add(str(node.module).partition(".")[0])
    return found
