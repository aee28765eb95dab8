"""The policy's node says stop, and why, while it has an instruction that its policy cannot read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

import numpy as np
import pytest
from helpers.ros import Sensors, activate, own_domain, spinning, wait_for
from rclpy.lifecycle import TransitionCallbackReturn

from vla_policy.interfaces import ActionChunk, Observation
from vla_policy.nodes import policy_node
from vla_policy.robot.contract import load_contract

pytestmark = pytest.mark.dds


class Reader:
    """Holds still, and reads what begins with "push"."""

    interface, n_obs_steps, n_action_steps = load_contract("pusht_sim").interface, 2, 2

    def __init__(self, unchecked: str = "") -> None:
        self.tasks: list[str] = []
        self.unchecked = unchecked

    def predict(self, histories: Sequence[Sequence[Observation]], generator: np.random.Generator) -> list[ActionChunk]:
        self.tasks += [history[-1].task for history in histories]
        return [ActionChunk(np.zeros((8, 2)), history[-1].t, 0.1) for history in histories]

    def unreadable(self, instruction: str) -> str:
        return "" if instruction.startswith("push") or self.unchecked else f"cannot read {instruction!r}"


@contextmanager
def running(reader: Reader, monkeypatch: pytest.MonkeyPatch, *parameters: str) -> Iterator[tuple]:
    monkeypatch.setattr(policy_node, "robot_policy", lambda *_: reader)
    told = "task:=ignore everything"
    with own_domain(2), spinning(policy_node.PolicyNode, told, *parameters) as node, closing(Sensors()) as robot:
        activate(node)
        yield node, robot


def test_the_policy_says_stop_until_it_gets_a_readable_instruction(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Reader()
    with running(reader, monkeypatch) as (node, robot):
        warmed = len(reader.tasks)
        wait_for(lambda: robot.stops[-3:] == [True] * 3, "stop")
        assert node.problem() == "cannot read 'ignore everything'"
        assert len(reader.tasks) == warmed  # it was not asked what to do
        robot.tell("push the T")
        wait_for(lambda: node.problem() == "", "an instruction that it can read")
        wait_for(lambda: reader.tasks[-1] == "push the T", "a chunk")
        robot.tell("forget it")
        wait_for(lambda: node.problem() == "cannot read 'forget it'", "a refusal")
        wait_for(lambda: robot.stops[-1], "stop")


def test_an_instruction_that_is_read_at_once_is_not_taken_for_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    with running(Reader(), monkeypatch) as (node, _):
        node._worker.ask = lambda question: question()() is None
        node._instruction = "push the T"
        node.begin()
        assert node.problem() == ""


def test_another_instruction_forgets_what_was_predicted_for_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    forgotten: list[str] = []
    reader = Reader()
    with running(reader, monkeypatch) as (node, robot):
        monkeypatch.setattr(node._pilot, "forget", lambda: forgotten.append(node._instruction))
        for instruction in ("push the T", "push the T", "push it"):
            robot.tell(instruction)
            wait_for(lambda said=instruction: reader.tasks[-1] == said, "a chunk")
    assert forgotten == ["ignore everything", "push the T"]


def test_cleaning_up_ends_the_draft_and_lets_the_policy_go(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[object] = []
    monkeypatch.setattr(policy_node, "end_draft", ended.append)
    reader = Reader()
    with running(reader, monkeypatch, "draft:=small") as (node, _):
        assert node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
        assert ended == []
        assert node.trigger_cleanup() == TransitionCallbackReturn.SUCCESS
        assert ended == [reader]
        assert not hasattr(node, "_predict")
        activate(node)


def test_a_configuration_that_fails_afterwards_ends_the_draft(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[object] = []
    reader = Reader()
    monkeypatch.setattr(policy_node, "end_draft", ended.append)
    monkeypatch.setattr(policy_node, "robot_policy", lambda *_: reader)
    monkeypatch.setattr(reader, "predict", None)
    with own_domain(2), spinning(policy_node.PolicyNode, "draft:=small") as node:
        assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
        assert "not callable" in node.error
        assert ended == [reader]


def test_unchecked_instructions_reach_the_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    for reader, parameters in ((Reader(), ("check_instruction:=false",)), (Reader("instructions are not checked"), ())):
        with running(reader, monkeypatch, *parameters) as (node, _):
            wait_for(lambda node=node: node.problem() == "", "no reason to stop")
            wait_for(lambda reader=reader: len(reader.tasks) > policy_node.WARMUP, "a chunk")
            assert reader.tasks[-1] == "ignore everything"
