"""vla-eval planner=dmpc: what it plays, what it measures, what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.commands import error_of
from helpers.tiny_policies import tiny_policy

from sim.geometry import WORKSPACE_HIGH, WORKSPACE_LOW
from sim.interface import pusht_interface
from vla_policy.cli.eval import main
from vla_policy.conf.dynamics_config import DynamicsConfig
from vla_policy.interfaces import ACTION, ENVIRONMENT_STATE, STATE
from vla_policy.models import TransformerConfig
from vla_policy.world_model.dynamics import Dynamics, fit_dynamics

SHORT = ["n_episodes=2", "seed=50000", "num_workers=0", "videos=0", "scene.max_episode_steps=12", "latency_repeats=2"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A policy and dynamics that know nothing."""
    folder, interface = tmp_path_factory.mktemp("planner"), pusht_interface({})
    policy = tiny_policy(interface, WORKSPACE_LOW, WORKSPACE_HIGH, [STATE, ENVIRONMENT_STATE])
    policy.save_pretrained(folder / "policy")
    config = DynamicsConfig(transformer=TransformerConfig(width=16, depth=1, heads=2), future=15)
    random = torch.rand(64, 17, 6, generator=torch.Generator().manual_seed(0))
    batch = {STATE: random[..., :2], ENVIRONMENT_STATE: random[..., 2:], ACTION: random[..., :2]}
    Dynamics(config, interface, fit_dynamics(batch, config)).save_pretrained(folder / "dynamics")
    return str(folder / "policy"), str(folder / "dynamics")


def test_a_planner_is_evaluated_like_a_policy(
    folders: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy, dynamics = folders
    words = ["planner=dmpc", f"planner.dynamics={dynamics}", "planner.samples=3", f"out={tmp_path}"]
    main([policy, *SHORT, *words, "planner.objective=progress+keep_out", "planner.disc=[0.45,0,0.5]"])
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["planner"] | {"disc": [0.45, 0, 0.5], "samples": 3} == summary["planner"]
    assert summary["n_entered_disc"] == 2  # nobody can keep out of the whole table
    assert summary["entered_disc_ci95"] == pytest.approx([0.1581, 1.0], abs=1e-4)  # exact, of 2 of 2: 0.025 ** (1 / 2)
    assert "entered the disc  [95 %]" in capsys.readouterr().out
    assert summary["chunk_ms"]["p50"] > 0
    main([policy, *SHORT, *words, "planner.objective=progress+keep_out", "planner.disc=[2,2,0.01]"])
    assert json.loads((tmp_path / "summary.json").read_text())["n_entered_disc"] == 0


def test_the_simulator_itself_ranks_proposals(folders: tuple[str, str], tmp_path: Path) -> None:
    steps = []
    for samples in (1, 3):
        words = ["planner=oracle", f"planner.samples={samples}", f"out={tmp_path / str(samples)}"]
        main([folders[0], *SHORT, *words])
        summary = json.loads((tmp_path / str(samples) / "summary.json").read_text())
        assert summary["planner"] | {"name": "oracle", "samples": samples} == summary["planner"]
        assert summary["chunk_ms"]["p50"] is None  # it plans in the simulators
        steps.append((tmp_path / str(samples) / "episodes.csv").read_text().splitlines()[1:])
    main([folders[0], *SHORT, f"out={tmp_path / 'alone'}"])
    alone = (tmp_path / "alone" / "episodes.csv").read_text().splitlines()[1:]
    assert steps[0] == alone  # the only one of one proposal is the policy's, and trying it changes nothing
    assert steps[1] != alone


def test_another_goal_is_another_play(folders: tuple[str, str], tmp_path: Path) -> None:
    policy, dynamics = folders
    steps = []
    for name, goal in (("one", "[0.45,0.1,0]"), ("other", "[0.45,-0.1,2]")):
        words = ["planner=dmpc", f"planner.dynamics={dynamics}", f"planner.goal={goal}", f"out={tmp_path / name}"]
        main([policy, *SHORT, *words])
        rows = (tmp_path / name / "episodes.csv").read_text().splitlines()
        steps.append(rows[1:])
    assert steps[0] != steps[1]


def test_mistakes_are_one_line(folders: tuple[str, str], tmp_path: Path) -> None:
    policy, dynamics = folders
    for words, message in (
        ([policy, "planner=dmpc"], "planner.dynamics: expected the folder of dynamics, found none"),
        (
            [policy, "planner.samples=4"],
            "planner: expected one of ['dmpc', 'oracle', 'diffuser', 'decision_diffuser', 'foresight'] with "
            "planner.samples, found none",
        ),
        ([policy, "planner=dmpc", f"planner.dynamics={policy}"], "expected a dynamics, found ['policy']"),
        (["baseline=hold", "planner=dmpc", f"planner.dynamics={dynamics}"], "planner: expected a CHECKPOINT"),
        (
            [policy, "planner=cem"],
            "planner: expected one of ['decision_diffuser', 'diffuser', 'dmpc', 'foresight', 'none', 'oracle'], "
            "found 'cem'",
        ),
        ([policy, "planner=oracle", f"planner.dynamics={dynamics}"], "expected none with planner=oracle, found"),
        (
            [policy, "planner=dmpc", f"planner.dynamics={dynamics}", "scene=pusht_language"],
            "planner.goal: expected x, y and angle in a scene with several goals, found none",
        ),
    ):
        assert message in error_of(main, *words, f"out={tmp_path / 'out'}")
    assert np.all([not (tmp_path / "out").exists()])
