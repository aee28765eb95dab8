"""A policy's node with a planner: what it wants is changed while it runs, and mistakes are refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.ros import Spinning, own_domain, spinning
from rcl_interfaces.msg import SetParametersResult
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter

from sim.geometry import WORKSPACE_HIGH, WORKSPACE_LOW
from sim.interface import pusht_interface
from vla_policy.conf.dynamics_config import DynamicsConfig
from vla_policy.graph.application import GraphConfig, nodes
from vla_policy.interfaces import ACTION, STATE, Branches, Given, InputError, Observation
from vla_policy.models import DiffusionPolicy, TransformerConfig
from vla_policy.nodes import policy_node
from vla_policy.nodes.planner import PlannerParameters
from vla_policy.planning.objectives import KeepOut, Sum
from vla_policy.planning.options import PlannerConfig
from vla_policy.world_model.dynamics import Dynamics, fit_dynamics

pytestmark = pytest.mark.dds


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dynamics of the pusher alone, which know nothing."""
    folder = tmp_path_factory.mktemp("planner")
    config = DynamicsConfig(state_keys=[STATE], transformer=TransformerConfig(width=16, depth=1, heads=2))
    random = torch.rand(64, 17, 2, generator=torch.Generator().manual_seed(0))
    model = Dynamics(config, pusht_interface({}), fit_dynamics({STATE: random, ACTION: random}, config))
    model.save_pretrained(folder / "dynamics")
    return folder


def small_policy(cameras: bool = True) -> DiffusionPolicy:
    from helpers.tiny_policies import tiny_policy

    keys = [STATE, "observation.images.top"] if cameras else [STATE]
    return tiny_policy(pusht_interface({"top": 96}), WORKSPACE_LOW, WORKSPACE_HIGH, keys)


@contextmanager
def configured(
    monkeypatch: pytest.MonkeyPatch, *parameters: str, cameras: bool = True
) -> Iterator[policy_node.PolicyNode]:
    monkeypatch.setattr(policy_node, "robot_policy", lambda *_: small_policy(cameras))
    with own_domain(2), spinning(policy_node.PolicyNode, "check_instruction:=false", *parameters) as node:
        assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS, node.error
        yield node


def set_to(node: policy_node.PolicyNode, **values: object) -> SetParametersResult:
    given = [Parameter(f"planner.{name}", value=value) for name, value in values.items()]
    result: SetParametersResult = node.set_parameters_atomically(given)
    return result


def test_what_a_planner_wants_changes_while_it_runs(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    chosen = ["planner.name:=dmpc", f"planner.dynamics:={folder / 'dynamics'}", "planner.samples:=3"]
    with configured(monkeypatch, *chosen, "planner.objective:=gentle") as node:
        refused = set_to(node, objective="keep_out")
        assert not refused.successful
        assert refused.reason == "planner.disc: expected one with planner.objective=keep_out, found none"
        refused = set_to(node, objective="progress")
        assert "expected 'observation.environment_state' for progress" in refused.reason
        assert set_to(node, disc=[0.4, 0.0, 0.03]).successful  # before the objective that uses it
        assert "disc is kept for keep_out" in capfd.readouterr().err
        assert set_to(node, objective="keep_out+gentle").successful
        assert "is kept" not in capfd.readouterr().err
        objective = node._ranking.objective
        assert isinstance(objective, Sum)
        assert objective.parts[0] == KeepOut((0.4, 0.0), 0.03)
        assert set_to(node, disc=[0.5, 0.0, 0.03]).successful
        assert node._ranking.objective.parts[0] == KeepOut((0.5, 0.0), 0.03)


def test_what_no_objective_uses_is_refused_at_the_start() -> None:
    chosen = {"name": "dmpc", "dynamics": "somewhere", "disc": [0.4, 0.0, 0.03]}
    with own_domain(2), Spinning("policy") as node:
        node._parameter_overrides = {f"planner.{k}": Parameter(f"planner.{k}", value=v) for k, v in chosen.items()}
        with pytest.raises(InputError, match=r"planner\.disc: expected planner\.objective=keep_out"):
            PlannerParameters(node, lambda config: None)


def test_without_a_planner_nothing_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    with configured(monkeypatch) as node:
        assert node._ranking is None
        reason = set_to(node, objective="gentle").reason
        assert "planner: expected one of ['dmpc', " in reason
        assert " with planner.objective, found none" in reason


def test_what_does_not_go_together_is_refused(folder: Path) -> None:
    chosen = ["planner.name:=dmpc", f"planner.dynamics:={folder / 'dynamics'}", "chunking:=ensemble"]
    with own_domain(2), spinning(policy_node.PolicyNode, *chosen) as node:
        assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
        assert "planner: expected none with chunking=ensemble, found 'dmpc'" in node.error


def test_with_foresight_chunks_continue_what_is_executed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = ["planner.name:=foresight", f"planner.dynamics:={folder / 'dynamics'}"]
    with configured(monkeypatch, *chosen, "planner.samples:=3", "chunking:=rtc", cameras=False) as node:
        rows = np.linspace([0.35, 0.0], [0.45, 0.1], 12)
        window = [Observation({STATE: np.array([0.35, 0.0], np.float32)}, "push", t) for t in (0.0, 0.1)]
        chunk = node._predict(window, Given(rows, 4)).args[0]
        assert isinstance(chunk, Branches)
        assert len(chunk.candidates) == 3
        assert (chunk.candidates[:, :4] == rows[:4]).all()
        refused = set_to(node, disc=[0.4, 0.0, 0.03])  # nobody would keep out of it
        assert refused.reason == "planner.disc: expected planner.name dmpc, which can want it, found foresight"
    with own_domain(2), spinning(policy_node.PolicyNode, *chosen) as node:
        assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
        assert "chunking: expected rtc with planner=foresight" in node.error


def test_vla_sim_hands_its_planner_to_the_node() -> None:
    planner = PlannerConfig("dmpc", dynamics="somewhere", objective="progress+keep_out", disc=[1, 0, 0.03])
    given = nodes("checkpoint", GraphConfig(planner=planner))["policy"]
    assert {key: value for key, value in given.items() if key.startswith("planner.")} == {
        "planner.name": "dmpc",
        "planner.dynamics": "somewhere",
        "planner.samples": 32,
        "planner.objective": "progress+keep_out",
        "planner.disc": [1.0, 0.0, 0.03],
    }
    with pytest.raises(InputError, match="planner: expected none, dmpc or foresight in the graph, found 'oracle'"):
        GraphConfig(planner=PlannerConfig("oracle"))
    with pytest.raises(InputError, match=r"planner\.goal: expected x, y and angle in a scene with several goals"):
        nodes("checkpoint", GraphConfig(planner=PlannerConfig("dmpc", "folder"), scene="pusht_language"))
