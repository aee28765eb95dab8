"""Open-loop errors on a generated two-camera robot of 14 joints at 30 Hz, which has no simulator."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.bimanual import TASK, bimanual_interface
from helpers.commands import error_of
from helpers.plain_dataset import write_plain_dataset
from helpers.tiny_policies import tiny_policy

from vla_policy.cli.eval import main
from vla_policy.data import LeRobotDataset
from vla_policy.evaluation.success.open_loop import held_out_episodes, open_loop, summarize_open_loop
from vla_policy.interfaces import ACTION, STATE, ActionChunk, Feature, InputError, Interface, Observation
from vla_policy.utils.files import read_json

ROBOT = bimanual_interface()


@pytest.fixture(scope="module")
def dataset(bimanual_original: Path) -> LeRobotDataset:
    return LeRobotDataset(bimanual_original)


class Knows:
    """Answers with the recorded actions plus an offset, found by the time stamp; `error` radians off."""

    interface = ROBOT.select([STATE])
    n_obs_steps, n_action_steps = 2, 4

    def __init__(self, actions: np.ndarray, error: float) -> None:
        self.actions, self.error = actions, error
        self.times: list[float] = []

    def predict(self, histories: Sequence[Sequence[Observation]], generator: np.random.Generator) -> list[ActionChunk]:
        chunks = []
        for history in histories:
            assert history[0].t == pytest.approx(max(history[-1].t - 1 / 30, 0))
            assert history[-1].task == TASK
            frame = round(history[-1].t * 30)
            self.times.append(frame)
            rows = np.pad(self.actions[frame : frame + 6], ((0, 6), (0, 0)), constant_values=99.0)[:6]
            chunks.append(ActionChunk(rows + self.error, history[-1].t, 1 / 30))
        return chunks


def test_errors_are_those_of_the_executed_steps(dataset: LeRobotDataset) -> None:
    actions = dataset.episode(1).columns[ACTION].astype(float)
    policy = Knows(actions, 0.03)
    (error,) = open_loop(policy, dataset, [1], batch_size=3)
    assert policy.times == list(range(1, 61, 4))  # every 4 frames, from the first that has a last action
    assert error.chunks == 15
    np.testing.assert_allclose(error.policy, 0.03, atol=1e-6)  # nothing beyond the episode's end was counted
    by_hand = np.mean([np.abs(actions[t + 2] - actions[t - 1]) for t in range(1, 59, 4)], axis=0)
    np.testing.assert_allclose(error.hold[2], by_hand, atol=1e-6)


def test_summary_sets_the_policy_against_holding(dataset: LeRobotDataset) -> None:
    errors = [open_loop(Knows(dataset.episode(i).columns[ACTION], 0.001), dataset, [i])[0] for i in range(6)]
    summary = summarize_open_loop(errors, Knows(np.zeros((1, 14)), 0.0))
    assert summary["n_episodes"] == 6
    assert summary["mean_error"] == pytest.approx(0.001, rel=1e-3)
    assert summary["ratio"] < 0.2
    assert summary["difference_ci95"][1] < 0
    assert summary["by_step"]["hold"] == sorted(summary["by_step"]["hold"])  # the arms move on
    assert list(summary["channels"]) == list(ROBOT.action.names)


def test_episodes_come_from_the_user_or_the_checkpoint(dataset: LeRobotDataset) -> None:
    assert held_out_episodes([2], {"data": {"held_out_episodes": [0]}}, dataset) == [2]
    assert held_out_episodes(None, {"data": {"held_out_episodes": [0]}}, dataset) == [0]
    with pytest.raises(InputError, match=r"states no held-out episodes, expected episodes=\[...\] out of 0 to 5"):
        held_out_episodes(None, {}, dataset)


def test_command_on_a_checkpoint_with_two_cameras(
    dataset: LeRobotDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.set_num_threads(1)
    span = np.full(14, 0.8)
    card = {"data": {"held_out_episodes": [0, 2]}}
    tiny_policy(ROBOT, -span, span, list(ROBOT.observations), card).save_pretrained(tmp_path / "policy")
    arguments = ["open-loop", str(tmp_path / "policy"), str(dataset.root), f"out={tmp_path / 'out'}"]
    main(arguments)
    summary = read_json(tmp_path / "out" / "summary.json")
    assert summary["episodes"] == [0, 2]
    assert summary["mean_error"] > summary["mean_error_hold"] > 0  # it is untrained
    assert "right_joint_6" in capsys.readouterr().out
    assert len((tmp_path / "out" / "episodes.csv").read_text().splitlines()) == 3
    assert "expected an episode from 0 to 5, found 9" in error_of(main, *arguments, "episodes=[9]")
    assert "episodes" in error_of(main, *arguments, "episodes=first")


def test_a_policy_for_another_robot_is_refused(dataset: LeRobotDataset) -> None:
    other = Knows(np.zeros((1, 2)), 0.0)
    other.interface = Interface(ROBOT.observations, Feature("float32", (7,)), 30)
    with pytest.raises(InputError, match=r"do not fit: action: shape expected \[7\], found \[14\]"):
        open_loop(other, dataset, [0])


def test_each_frame_is_asked_with_its_own_task(tmp_path: Path) -> None:
    def columns(episode: int, length: int) -> dict[str, np.ndarray]:
        return {"task_index": np.where(np.arange(length) < 6, 0, 1)}

    dataset = LeRobotDataset(write_plain_dataset(tmp_path / "d", columns=columns, tasks=("grasp it", "place it")))

    class Listens:
        interface = dataset.interface.select([STATE])
        n_obs_steps, n_action_steps = 1, 1

        def __init__(self) -> None:
            self.heard: list[str] = []

        def predict(self, histories: Sequence[Sequence[Observation]], generator: np.random.Generator) -> list:
            self.heard += [history[-1].task for history in histories]
            return [ActionChunk(np.zeros((1, 2)), history[-1].t, 0.1) for history in histories]

    policy = Listens()
    open_loop(policy, dataset, [1])
    assert policy.heard == ["grasp it"] * 5 + ["place it"] * 3  # of frames 1 to 8
