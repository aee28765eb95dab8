"""A policy that counts in other units than the robot is refused by name, and only such a one."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers.tiny_policies import tiny_policy
from helpers.toy_decoder import load_toy

from vla_policy.data import Normalizer
from vla_policy.interfaces import ACTION, STATE, InputError, Interface
from vla_policy.models import loading
from vla_policy.nodes import model
from vla_policy.nodes.model import SHIPPED, robot_interface, robot_policy, shipped_policy
from vla_policy.robot.contract import Contract, load_contract
from vla_policy.robot.units import overlap, require_same_scale
from vla_policy.speculation import DrafterConfig, DraftProcess

ROOT = Path(__file__).parents[2]
SO101 = load_contract("so101")
LOW, HIGH = SO101.command.low, SO101.command.high


def without_units(interface: Interface, *keys: str) -> Interface:
    observations = {
        key: replace(feature, units=()) if key in keys else feature for key, feature in interface.observations.items()
    }
    action = replace(interface.action, units=()) if ACTION in keys else interface.action
    return replace(interface, observations=observations, action=action)


def require(
    low: np.ndarray, high: np.ndarray, interface: Interface = SO101.interface, contract: Contract = SO101
) -> None:
    ranges = {STATE: (low, high), ACTION: (low, high)}
    require_same_scale(contract, interface, ranges, "checkpoint grasp")


@pytest.mark.parametrize("keys", [(STATE,), (ACTION,), (STATE, ACTION)])
def test_undeclared_units_are_refused_unless_the_contract_accepts_them(keys: tuple[str, ...], tmp_path: Path) -> None:
    interface = without_units(SO101.interface, *keys)
    message = rf"checkpoint grasp and robot contract so101 do not fit: units: .*none of {' and '.join(keys)}; declare"
    with pytest.raises(InputError, match=message):
        require(LOW, HIGH, interface)
    text = (ROOT / "config/so101.yaml").read_text()
    (tmp_path / "mine.yaml").write_text(text + "units_unknown: accept\n")
    require(LOW, HIGH, interface, load_contract(tmp_path / "mine.yaml"))
    (tmp_path / "mine.yaml").write_text(text + "units_unknown: perhaps\n")
    with pytest.raises(InputError, match=r"units_unknown: expected one of .*, found 'perhaps'"):
        load_contract(tmp_path / "mine.yaml")


def test_a_contract_declares_its_units_too(tmp_path: Path) -> None:
    data = yaml.safe_load((ROOT / "config/so101.yaml").read_text())
    data["action"]["units"] = data["observations"][STATE]["units"] = []
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(data))
    with pytest.raises(InputError, match="units: expected"):
        load_contract(tmp_path / "mine.yaml")


def test_undeclared_units_are_accepted_in_simulation() -> None:
    pusht = load_contract("pusht_sim")
    ranges = {ACTION: (pusht.command.low, pusht.command.high)}
    require_same_scale(pusht, without_units(pusht.interface, STATE, ACTION), ranges, "checkpoint")


@pytest.mark.parametrize("accept", [False, True])
def test_degrees_on_a_robot_in_radians_are_named(accept: bool) -> None:
    contract = replace(SO101, accepts_unknown_units=accept)
    low, high = np.rad2deg(0.7 * LOW), np.rad2deg(0.7 * HIGH)
    with pytest.raises(InputError) as error:
        require(low, high, contract=contract)
    said = str(error.value)
    ranges = f"{low[0]:.4g} to {high[0]:.4g}, expected {LOW[0]:g} to {HIGH[0]:g}"
    assert f"action shoulder_pan {ranges} rad (degrees?)" in said
    assert all(said.count(f"action {name} ") == 1 for name in SO101.interface.action.names)
    assert STATE not in said  # the same channels once more


def test_only_the_channels_that_are_off_are_named() -> None:
    low, high = 0.7 * LOW, 0.7 * HIGH
    low[5], high[5] = 2.0, 98.0
    with pytest.raises(InputError, match=r"found action gripper 2 to 98, expected .* rad \(degrees or perc"):
        require(low, high)


def test_millimetres_are_named_and_a_state_is_judged_where_actions_are_relative() -> None:
    arm = load_contract("xarm6")
    ranges = {STATE: (np.array([270.0, -150.0]), np.array([600.0, 150.0]))}
    with pytest.raises(InputError, match=r"state x 270 to 600, expected 0\.27 to 0\.63 m \(millimetres\?\)"):
        require_same_scale(arm, arm.interface, ranges, "checkpoint")


@pytest.mark.parametrize(
    ("low", "high"),
    [
        (LOW, HIGH),
        (HIGH - 0.05, HIGH),  # a corner
        (LOW - 0.1, LOW - 0.05),  # folded up, a little beyond
        (1.5 * LOW, 1.5 * HIGH),  # a box that is tighter than the data
        (5 * LOW, 5 * HIGH),  # a very tight one, for a first try
        (0.5 * HIGH, 0.5 * HIGH),  # at rest
    ],
)
def test_what_a_robot_may_have_recorded_passes(low: np.ndarray, high: np.ndarray) -> None:
    require(low, high)


@pytest.mark.parametrize(
    ("data", "part"),
    [
        ((0.0, 1.0), 1.0),
        ((-1.0, 3.0), 0.3),
        ((5.0, 9.0), 0.0),
        ((0.5, 0.5), 1.0),
        ((5.0, 5.0), 0.0),
        ((1.05, 1.05), 1.0),
        ((1.1, 2.1), 0.0),
    ],
)
def test_overlap_is_the_part_of_the_data_within_the_box_and_a_tenth_around_it(data: tuple, part: float) -> None:
    assert overlap(data, (0.0, 1.0)) == pytest.approx(part)


def test_usual_ranges_leave_rare_values_out() -> None:
    rng = np.random.default_rng(0)
    values = rng.uniform(-1, 1, (5000, 2))
    values[7, 0] = 1000.0  # a glitch
    values[:, 1] = 0.4
    for mode in ("min_max", "mean_std", "quantile"):
        low, high = Normalizer.fit({ACTION: values}, mode).usual_range(ACTION)
        assert low[0] == pytest.approx(-0.98, abs=0.01)
        assert high[0] == pytest.approx(0.98, abs=0.01)
        assert (low[1], high[1]) == (0.4, 0.4)
    stats = Normalizer.fit({ACTION: values[:, 1:]}).to_dict()[ACTION]["stats"]
    older = {name: value for name, value in stats.items() if not name.startswith("q")}
    low, high = Normalizer.from_dict({ACTION: {"mode": "min_max", "stats": older}}).usual_range(ACTION)
    assert (low, high) == (0.4, 0.4)


@pytest.mark.parametrize("scale", [1.0, np.rad2deg(1.0)])
def test_no_node_loads_a_policy_with_undeclared_units(scale: float, tmp_path: Path) -> None:
    interface = SO101.interface.select([STATE])
    policy = tiny_policy(without_units(interface, STATE, ACTION), 0.5 * LOW * scale, 0.5 * HIGH * scale, [STATE])
    policy.save_pretrained(tmp_path / "policy")
    with pytest.raises(InputError, match="checkpoint policy and robot contract so101 do not fit: units: expected"):
        robot_policy(SO101, str(tmp_path / "policy"), "cpu", 1)
    with pytest.raises(InputError, match="checkpoint policy and robot contract so101 do not fit: units: expected"):
        robot_interface(SO101, str(tmp_path / "policy"))
    accepting = replace(SO101, accepts_unknown_units=True)
    if scale == 1.0:
        assert robot_policy(accepting, str(tmp_path / "policy"), "cpu", 1).interface.action.units == ()
    else:
        with pytest.raises(InputError, match=r"shoulder_pan .* rad \(degrees\?\)"):
            robot_interface(accepting, str(tmp_path / "policy"))


def test_a_policy_that_does_not_fit_leaves_no_draft_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tiny_policy(without_units(SO101.interface.select([STATE]), STATE, ACTION), LOW, HIGH, [STATE])
    drafter = policy.drafter = DraftProcess(load_toy(1), DrafterConfig())
    monkeypatch.setattr(loading, "load_policy", lambda *_, **__: policy)
    with pytest.raises(InputError, match="do not fit: units"):
        robot_policy(SO101, "policy", "cpu", 1, draft="small")
    assert not drafter.alive


@pytest.mark.parametrize("checkpoint", ["pusht_image", "pusht_language"])
@pytest.mark.parametrize("robot", ["pusht_sim", "xarm6", "xarm6_joints"])
def test_shipped_checkpoints_fit_the_robots_that_they_are_for(checkpoint: str, robot: str) -> None:
    contract = load_contract(robot)
    folder = str(ROOT / "checkpoints" / checkpoint)
    policy = robot_policy(contract, folder, "cpu", 1)
    assert policy.interface.action.units == ("m", "m")
    assert robot_interface(contract, folder) == policy.interface


def test_the_shipped_policy_is_never_looked_for_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Path(shipped_policy()).samefile(Path(model.__file__).parents[2] / SHIPPED)
    monkeypatch.setattr(model, "__file__", str(tmp_path / "installed" / "nodes" / "model.py"))
    with pytest.raises(InputError, match="parameter 'checkpoint': expected a folder or hub name, found none"):
        shipped_policy()
