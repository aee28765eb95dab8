"""The simulated arm with several goals tells the graph which one is meant."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.ros import ROOT, own_domain
from std_srvs.srv import Trigger

from sim import LanguagePushTEnv
from vla_policy.graph.operator import Operator
from vla_policy.graph.processes import Processes
from vla_policy.rollouts.scenes import SCENES, load_scene

pytestmark = pytest.mark.dds


def instructions(seeds: list[int]) -> list[str]:
    env = LanguagePushTEnv(load_scene("pusht_language"), [])
    drawn = []
    for seed in seeds:
        env.reset(seed=seed)
        drawn.append(env.task)
    env.close()
    return drawn


def test_every_episode_has_an_instruction_of_its_own(tmp_path: Path) -> None:
    expected = instructions([5, 6])
    with own_domain(1), Processes(tmp_path) as processes, Operator(lambda: None) as operator:
        processes.start("pusht_sim", scene="pusht_language", seed=5)
        for seed, instruction in zip((5, 6), expected, strict=True):
            operator.call(Trigger, "pusht_sim/reset", Trigger.Request())
            operator.wait(lambda instruction=instruction: operator.instruction == instruction, "the instruction", 10.0)
            shown = {"seed": str(seed), "instruction": instruction}
            operator.wait(
                lambda shown=shown: operator.diagnostics.get("pusht_sim", {}).items() >= shown.items(), "it there", 10.0
            )


def test_one_instruction_is_kept_and_one_goal_has_none(tmp_path: Path) -> None:
    with own_domain(1), Processes(tmp_path) as processes, Operator(lambda: None) as operator:
        processes.start("pusht_sim", task="push it", seed=5)
        operator.wait(lambda: len(operator.coverages) > 3, "the simulation")
        assert operator.instruction == ""
        assert operator.node.count_publishers("task") == 0
    with own_domain(2), Processes(tmp_path) as processes, Operator(lambda: None) as operator:
        processes.start("pusht_sim", scene="pusht_language", task="cover the red goal with the T", seed=5)
        for _ in range(2):
            operator.call(Trigger, "pusht_sim/reset", Trigger.Request())
            operator.wait(lambda: operator.instruction == "cover the red goal with the T", "the instruction", 10.0)


@pytest.mark.slow
def test_the_policy_follows_the_instruction_of_the_episode(tmp_path: Path) -> None:
    """By `vla-sim`, with the shipped policy that reads it; its first episode is short, its second has another goal."""
    words = [str(ROOT / "checkpoints/pusht_language"), "scene=pusht_language", "seed=5", "n_episodes=2", "max_steps=25"]
    with own_domain(1) as environment:
        command = [sys.executable, "-m", "vla_policy.cli.sim", *words, f"out={tmp_path}", "domain_id=null"]
        played = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300)
    assert played.returncode == 0, played.stderr
    episodes = json.loads((tmp_path / "episodes.json").read_text())
    seeds = [episode["seed"] for episode in episodes]
    expected = instructions(seeds)
    assert [episode["instruction"] for episode in episodes] == expected
    assert len(set(expected)) == 2
    diagnostics = json.loads((tmp_path / "diagnostics.json").read_text())
    assert diagnostics["policy"]["instruction"] in expected
    assert int(diagnostics["policy"]["inference_ms.n"]) > 2


def test_another_scene_is_one_line(tmp_path: Path) -> None:
    with own_domain(1), Processes(tmp_path) as processes:
        node = processes.start("pusht_sim", scene="kitchen")
        assert node.wait(60) == 2
        said = processes.last_words("pusht_sim")
        assert f"scene: expected one of {list(SCENES)}, found 'kitchen'" in said
        assert "Traceback" not in said
