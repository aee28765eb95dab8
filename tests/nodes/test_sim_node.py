"""The simulated arm with several goals tells the graph which one is meant."""

from __future__ import annotations

from pathlib import Path

import pytest

rclpy = pytest.importorskip("rclpy")

from helpers.ros import own_domain  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402

from sim import LanguagePushTEnv  # noqa: E402
from vla_policy.nodes.operator import Operator  # noqa: E402
from vla_policy.nodes.processes import Processes  # noqa: E402
from vla_policy.scenes import load_scene  # noqa: E402

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


def test_another_scene_is_one_line(tmp_path: Path) -> None:
    with own_domain(1), Processes(tmp_path) as processes:
        node = processes.start("pusht_sim", scene="kitchen")
        assert node.wait(60) == 2
        said = processes.last_words("pusht_sim")
        assert "task: expected one of ['pusht', 'pusht_language'], found 'kitchen'" in said
        assert "Traceback" not in said
