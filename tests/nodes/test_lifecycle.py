"""What the nodes with a model have in common: refused transitions, fresh observations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from helpers.ros import FakeRobot, image_message, own_domain, spinning, wait_for
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from sensor_msgs.msg import Image

from vla_policy.graph.operator import GraphError, Operator
from vla_policy.nodes import common
from vla_policy.nodes.lifecycle import ModelNode
from vla_policy.nodes.perception import Perception
from vla_policy.robot.contract import load_contract

pytestmark = pytest.mark.dds
ACTIVE, INACTIVE = State.PRIMARY_STATE_ACTIVE, State.PRIMARY_STATE_INACTIVE
CONFIGURE, ACTIVATE = Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE
DEACTIVATE, CLEANUP = Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP


class Looking(ModelNode):
    """It has no model, and looks at what the simulated arm sends."""

    def __init__(self) -> None:
        super().__init__("policy")
        self.begun = 0

    def load(self) -> None:
        contract = load_contract("pusht_sim")
        self.perception = Perception(self, contract, contract.interface.observations, self.answered)

    def begin(self) -> None:
        self.begun += 1


class Setup:
    def __init__(self, node: Looking, robot: FakeRobot, operator: Operator) -> None:
        self.node, self.robot, self.operator = node, robot, operator
        self.camera = robot.create_publisher(Image, "/pusht_sim/camera/image_raw", common.IMAGE_QOS)
        self.seeing = True
        self.pictures = common.Ticker(0.05, self._look)

    def change(self, transition: int, label: str = "") -> tuple[bool, int]:
        """Whether the node says that it did this, and the state it is in then."""
        request = ChangeState.Request(transition=Transition(id=transition, label=label))
        success = self.operator.call(ChangeState, "policy/change_state", request).success
        return success, self.operator.call(GetState, "policy/get_state", GetState.Request()).current_state.id

    def _look(self) -> None:
        if self.seeing:
            self.camera.publish(image_message(np.zeros((96, 96, 3), np.uint8), self.robot.now()))


@contextmanager
def meeting() -> Iterator[Operator]:
    """An operator that has found the node's services: of two participants in a process Fast DDS may hide one of them
    from the other for good.
    """
    services = {"policy/change_state": ChangeState, "policy/get_state": GetState}
    for attempt in range(5):
        with Operator(patience=30.0) as operator:
            try:
                for service, kind in services.items():  # one after the other: at once it happens more often
                    operator._clients[service] = client = operator.node.create_client(kind, service)
                    operator.wait(client.service_is_ready, f"service {service}", 5.0)
            except GraphError:
                if attempt == 4:
                    raise
                continue
            yield operator
            return


@pytest.fixture
def setup() -> Iterator[Setup]:
    with own_domain(2), spinning(Looking) as node, FakeRobot() as robot, meeting() as operator:
        setup = Setup(node, robot, operator)
        yield setup
        setup.pictures.close()


def test_an_impossible_transition_is_refused_and_the_node_keeps_running(setup: Setup) -> None:
    for transition in (ACTIVATE, DEACTIVATE, CLEANUP, 99):
        assert setup.change(transition) == (False, State.PRIMARY_STATE_UNCONFIGURED)
    assert setup.change(0, "nonsense") == (False, State.PRIMARY_STATE_UNCONFIGURED)
    setup.operator.bring_up("policy")
    for transition in (CONFIGURE, ACTIVATE, CLEANUP, 99):
        assert setup.change(transition) == (False, ACTIVE)
    setup.operator.bring_up("policy")  # once more: it is where it is to be
    assert setup.node.begun == 1
    assert setup.change(DEACTIVATE) == (True, INACTIVE)
    setup.operator.bring_up("policy")
    assert setup.node.begun == 2


def test_activating_again_asks_for_fresh_observations(setup: Setup) -> None:
    setup.operator.bring_up("policy")
    assert setup.change(DEACTIVATE) == (True, INACTIVE)
    setup.seeing = False
    end = common.steady() + 1.0
    wait_for(lambda: common.steady() > end, "time to go by")
    assert setup.change(ACTIVATE) == (False, INACTIVE)
    assert "fresh observations are needed, but no picture from /pusht_sim/camera/image_raw since" in setup.node.error
    setup.seeing = True
    wait_for(lambda: setup.change(ACTIVATE) == (True, ACTIVE), "activation")


def test_a_model_that_cannot_be_loaded_is_reported_by_bring_up(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    def load() -> None:
        raise OSError("no such checkpoint")

    monkeypatch.setattr(setup.node, "load", load)
    with pytest.raises(GraphError, match="policy: could not be configured; its log says why"):
        setup.operator.bring_up("policy")
    assert setup.node.error == "configure: no such checkpoint"
