"""Which way imports point, and what the package promises to those who install it."""

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from vla_policy.interfaces import ActionChunk, Feature, InputError, Interface, Observation

ROOT = Path(__file__).parents[1]
COMMANDS = [
    "vla-dataset",
    "vla-collect",
    "vla-train",
    "vla-eval",
    "vla-bench",
    "vla-lab",
    "vla-describe",
    "vla-calibrate",
    "vla-sim",
    "vla-serve",
    "vla-web",
]


def test_imports_point_one_way() -> None:
    result = subprocess.run([Path(sys.executable).with_name("lint-imports")], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_interfaces_need_numpy_alone() -> None:
    code = "import sys, vla_policy.interfaces; print(*(m for m in ('torch', 'pybullet', 'hydra') if m in sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""


def test_simulation_and_runtime_load_without_torch() -> None:
    code = "import sys, sim, vla_policy.runtime; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split()[-1] == "False"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    result = subprocess.run([Path(sys.executable).with_name(command), "--help"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert command in result.stdout


def test_package_xml_and_setup_agree() -> None:
    package = ElementTree.parse(ROOT / "package.xml").getroot()
    assert package.attrib["format"] == "3"
    assert package.findtext("export/build_type") == "ament_python"
    result = subprocess.run(
        [sys.executable, "setup.py", "--name", "--version"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.split()[-2:] == [package.findtext("name"), package.findtext("version")]


def make_interface(**changes: object) -> Interface:
    observations = {
        "observation.state": Feature("float32", (2,), ("x", "y"), ("m", "m")),
        "observation.images.top": Feature("image", (96, 96, 3)),
    }
    values: dict = {"observations": observations, "action": observations["observation.state"], "fps": 10.0}
    return Interface(**{**values, "frame": "base", **changes})


def test_interface_survives_json_and_hashes_its_content() -> None:
    interface = make_interface()
    assert Interface.from_dict(interface.to_dict()) == interface
    assert Interface.from_dict(interface.to_dict()).digest() == interface.digest()
    assert make_interface(fps=20.0).digest() != interface.digest()
    assert make_interface(fps=10).digest() == make_interface(fps=10.0).digest()
    assert interface.cameras == ["observation.images.top"]


def test_interface_differences_name_key_expected_and_found() -> None:
    needed = make_interface()
    provided = make_interface(
        observations={"observation.state": Feature("float32", (3,), ("x", "y", "z"), ("m", "m", "m"))},
        action=Feature("float32", (2,), ("x", "y"), ("mm", "mm")),
        fps=30.0,
        frame="world",
    )
    lines = "\n".join(needed.differences(provided))
    for expected in ("observation.state: shape expected [2], found [3]", "observation.images.top: missing"):
        assert expected in lines
    for expected in ("units expected ['m', 'm'], found ['mm', 'mm']", "fps: expected 10, found 30", "frame"):
        assert expected in lines
    with pytest.raises(InputError, match="policy and robot do not fit"):
        needed.require(provided, "policy", "robot")


def test_undeclared_units_and_frame_agree_with_everything() -> None:
    undeclared = make_interface(action=Feature("float32", (2,)), frame="")
    assert make_interface().differences(undeclared) == []
    assert undeclared.differences(make_interface()) == []


def test_observation_check_names_the_key() -> None:
    interface = make_interface()
    good = {"observation.state": np.zeros(2, np.float32), "observation.images.top": np.zeros((96, 96, 3), np.uint8)}
    Observation(good, "", 0.0).check(interface)
    for bad, message in [
        ({"observation.images.top": np.zeros((64, 64, 3), np.uint8)}, r"images.top.*\(96, 96, 3\).*\(64, 64, 3\)"),
        ({"observation.images.top": np.zeros((96, 96, 3), np.float32)}, "uint8"),
        ({"observation.state": np.array([0.0, np.nan])}, "observation.state.*finite"),
    ]:
        with pytest.raises(InputError, match=message):
            Observation({**good, **bad}, "", 0.0).check(interface)
    with pytest.raises(InputError, match="missing"):
        Observation({}, "", 0.0).check(interface)


@pytest.mark.parametrize(("shape", "dt"), [((0, 2), 0.1), ((2,), 0.1), ((4, 2), 0.0)])
def test_action_chunk_refuses_nonsense(shape: tuple[int, ...], dt: float) -> None:
    with pytest.raises(InputError):
        ActionChunk(np.zeros(shape), 0.0, dt)
