"""The swap test's bookkeeping: who is commanded what, what counts as reached, what is reported."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from helpers.commands import error_of
from helpers.language import four_goals
from helpers.point_env import INTERFACE, PointEnv

from vla_policy.cli.eval import main
from vla_policy.evaluation.language import swap
from vla_policy.evaluation.language.swap import SwapConfig, swap_starts, swap_test
from vla_policy.evaluation.language.swap_env import UntilReached
from vla_policy.interfaces import STATE, ActionChunk, Observation
from vla_policy.utils.configuration import load_config
from vla_policy.utils.files import read_json

CORNERS = {"red": (0.8, 0.8), "green": (0.8, -0.8), "blue": (-0.8, 0.8), "yellow": (-0.8, -0.8)}
SCENE = load_config("swap", []).scene
SMALL = {"n_starts": 6, "seed": 50000, "num_envs": 2, "num_workers": 0, "scene": SCENE}


class CornerEnv(PointEnv):
    """The point that is driven to one of four corners; the word for it is the instruction."""

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        self.task = (options or {})["goal"]
        return super().reset(seed=seed)

    def _info(self) -> dict[str, Any]:
        near = {goal: max(0.0, 1 - float(np.linalg.norm(self.position - at))) for goal, at in CORNERS.items()}
        covered = near[self.task]
        info = {"coverage": covered, "coverages": near, "goal": self.task, "is_success": covered > 0.95}
        return super()._info() | info


class GoesTo:
    """Drives to the corner that `choose` makes of the instruction."""

    n_obs_steps, n_action_steps = 1, 4
    interface = INTERFACE.select([STATE])

    def __init__(self, choose: Callable[[str], str]) -> None:
        self.choose = choose

    def predict(self, histories: Sequence[Sequence[Observation]], generator: np.random.Generator) -> list[ActionChunk]:
        return [ActionChunk(np.tile(CORNERS[self.choose(h[-1].task)], (4, 1)), h[-1].t, 0.1) for h in histories]


@pytest.fixture
def on_corners(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swap, "swap_env", lambda scene, cameras: UntilReached(CornerEnv(limit=40)))


def run(choose: Callable[[str], str], out: Path, **changes: Any) -> dict[str, Any]:
    return swap_test(GoesTo(choose), SwapConfig(**(SMALL | changes)), out, "scripted")


def test_every_goal_is_commanded_equally_often_and_starts_repeat() -> None:
    config = SwapConfig(**(SMALL | {"n_starts": 40}))
    starts = swap_starts(list(CORNERS), config)
    assert starts == swap_starts(list(CORNERS), config)
    assert len(set(starts)) == 80
    assert Counter(s.goal for s in starts) == dict.fromkeys(CORNERS, 20)
    assert Counter(s.goal for s in starts[::2]) == dict.fromkeys(CORNERS, 10)  # the first of each start, too
    assert [s.seed for s in starts] == [50000 + i // 2 for i in range(80)]
    all_four = swap_starts(list(CORNERS), SwapConfig(**(SMALL | {"instructions": 4})))
    assert [{s.goal for s in all_four[i : i + 4]} for i in range(0, 24, 4)] == [set(CORNERS)] * 6


def test_a_policy_that_follows(on_corners: None, tmp_path: Path) -> None:
    found = run(lambda task: task, tmp_path)
    assert (found["n_episodes"], found["n_starts"]) == (12, 6)
    assert {kind: counts["n_success"] for kind, counts in found["outcomes"].items()} == {
        "commanded": 12, "other": 0, "none": 0
    }  # fmt: skip
    assert found["outcomes"]["commanded"]["success_ci95"] == pytest.approx([0.7354, 1.0], abs=1e-4)
    assert found["paired"]["all instructions followed"]["n_success"] == 6
    assert read_json(tmp_path / "summary.json")["confusion"] == found["confusion"]
    with (tmp_path / "episodes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert all(row["goal"] == row["reached"] == row["task"] and row["outcome"] == "commanded" for row in rows)


def test_a_policy_that_does_not_listen_is_at_chance(on_corners: None, tmp_path: Path) -> None:
    found = run(lambda task: "blue", tmp_path, n_starts=8)
    assert {kind: counts["n_success"] for kind, counts in found["outcomes"].items()} == {
        "commanded": 4, "other": 12, "none": 0
    }  # fmt: skip
    assert found["confusion"]["red"] == {"red": 0, "green": 0, "blue": 4, "yellow": 0, "none": 0}
    assert found["paired"]["all instructions followed"]["n_success"] == 0
    assert found["paired"]["one goal reached whatever was said"]["n_success"] == 8


def test_nothing_is_reached_without_time(on_corners: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swap, "swap_env", lambda scene, cameras: UntilReached(CornerEnv(limit=3)))
    found = run(lambda task: task, tmp_path)
    assert found["outcomes"]["none"]["n_success"] == 12
    assert found["paired"]["nothing reached"]["n_success"] == 6


class Covers(gymnasium.Env):
    """Coverages by step, of red and of blue; red is commanded and every step says that the episode is over."""

    task = "red"

    def __init__(self, red: Sequence[float], blue: Sequence[float]) -> None:
        self.coverages = list(zip(red, blue, strict=True))

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        self.steps = 0
        return {}, {"coverages": {"red": 0.9, "blue": 0.9}, "goal": "red"}

    def step(self, action: np.ndarray) -> tuple[dict, float, bool, bool, dict]:
        red, blue = self.coverages[self.steps]
        self.steps += 1
        info = {"coverages": {"red": red, "blue": blue}, "goal": "red", "is_success": red > 0.95}
        return {}, 0.0, True, self.steps == len(self.coverages), info


@pytest.mark.parametrize(
    ("red", "blue", "reached", "steps"),
    [
        ([1.0] * 15, [0.0] * 15, "red", 10),  # success alone ends nothing: ten steps in a row count
        ([0.8] * 9 + [0.79] + [0.8] * 10, [0.0] * 20, "red", 20),
        ([0.0] * 15, [0.85] * 15, "blue", 10),
        ([1.0] * 9 + [0.5] * 3, [0.0] * 12, "", 12),
        ([0.9] * 5 + [0.0] * 12, [0.0] * 5 + [0.9] * 12, "blue", 15),
    ],
)
def test_reached_is_ten_steps_in_a_row(red: list[float], blue: list[float], reached: str, steps: int) -> None:
    env = UntilReached(Covers(red, blue))
    env.reset(seed=0)
    for step in range(1, len(red) + 1):  # noqa: B007
        _, _, terminated, truncated, info = env.step(np.zeros(2))
        if terminated or truncated:
            break
    assert (info["reached"], step, terminated) == (reached, steps, bool(reached))
    assert info["is_success"] == (reached == "red")


def test_the_real_scene_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["n_starts=1", "seed=50000", "num_workers=0", "num_envs=2", f"out={tmp_path}"]
    main(["swap", "baseline=expert", *words])
    shown = capsys.readouterr().out
    assert "commanded" in shown
    assert "one goal reached whatever was said" in shown
    found = read_json(tmp_path / "summary.json")
    assert found["outcomes"]["commanded"]["n_success"] == 2
    with (tmp_path / "episodes.csv").open() as file:
        first, second = csv.DictReader(file)
    assert [first[k] for k in ("seed", "pusher_x", "block_x")] == [second[k] for k in ("seed", "pusher_x", "block_x")]
    assert first["goal"] != second["goal"]
    assert first["task"] != second["task"]


@pytest.mark.parametrize(
    ("override", "message"),
    {
        "n_starts=0": "n_starts: expected at least 1, found 0",
        "instructions=1": "instructions: expected at least 2, found 1",
        "instructions=5": "instructions: expected at most 4, one for each goal, found 5",
        "scene=pusht": "instructions: expected at most 0",
        "scene.instruction='push it'": "scene.instruction: expected null",
        "scene.paraphrases=seen": "scene.paraphrases: expected one of ['training', 'held_out'], found 'seen'",
    }.items(),
)
def test_mistakes_are_one_line(override: str, message: str, tmp_path: Path) -> None:
    assert message in error_of(main, "swap", "baseline=expert", f"out={tmp_path / 'out'}", override)
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_or_a_baseline_is_needed() -> None:
    assert "expected either a CHECKPOINT or baseline=" in error_of(main, "swap")


def test_the_scene_of_the_test_is_that_of_the_commands() -> None:
    assert asdict(four_goals()) == asdict(SwapConfig(scene=SCENE).pusht)
