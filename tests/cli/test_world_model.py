"""vla-eval world_model and plan from the command line, on a small recording of the simulator."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.commands import error_of
from helpers.small_world_model import TOP, make_walks, small_config, small_world_model
from PIL import Image

from sim import PushTEnv
from sim.interface import pusht_interface
from vla_policy.cli.eval import main
from vla_policy.data import LeRobotDataset, LeRobotWriter
from vla_policy.evaluation.planning.tasks import Replayed, draw_tasks, run_task
from vla_policy.interfaces import ACTION, ENVIRONMENT_STATE, STATE
from vla_policy.utils.files import read_json
from vla_policy.world_model import WorldModel, fit_actions
from vla_policy.world_model.decoder import Decoder

LENGTH = 24


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four episodes of a pusher that wanders about."""
    root, env = tmp_path_factory.mktemp("datasets") / "wander", PushTEnv()
    draws = np.random.default_rng(0)
    with LeRobotWriter(root, pusht_interface({"top": 96})) as writer:
        for seed in range(4):
            rows, (seen, _) = [], env.reset(seed=seed)
            for _ in range(LENGTH):
                action = (seen[STATE] + draws.uniform(-0.03, 0.03, 2)).astype(np.float32)
                rows.append({**seen, ACTION: action})
                seen = env.step(action)[0]
            columns = {key: np.stack([row[key] for row in rows]) for key in (STATE, ENVIRONMENT_STATE, ACTION, TOP)}
            writer.add_episode(columns, {TOP: columns.pop(TOP)}, "push")
    env.close()
    return root


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, dataset: Path) -> str:
    torch.manual_seed(0)
    recorded = LeRobotDataset(dataset)
    actions = np.concatenate([recorded.episode(i).columns[ACTION] for i in range(4)])
    card = {"data": {"held_out_episodes": {"wander": [1, 3]}}}
    model = WorldModel(small_config(), recorded.interface, fit_actions({ACTION: actions}), card)
    folder = tmp_path_factory.mktemp("checkpoints") / "small"
    model.save_pretrained(folder)
    return str(folder)


def test_a_world_model_is_measured_and_drawn(
    checkpoint: str, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    main(["world-model", checkpoint, str(dataset), "horizon=3", "mlp_steps=5", "decoder_steps=3", f"out={out}"])
    shown = capsys.readouterr().out
    for words in ("effective rank", "copy last", "block angle, degrees", "training the decoder"):
        assert words in shown
    found = read_json(out / "world_model.json")
    assert (found["episodes"], found["fit_episodes"]) == ([1, 3], [0, 2])
    assert found["latents"]["n"] == 2 * LENGTH
    assert found["prediction"]["n_windows"] == 2 * (LENGTH - 4 - 6)
    assert set(found["prediction"]["error"]) == {"model", "linear", "copy last", "mean"}
    assert len(found["prediction"]["error"]["model"]["ci95"]) == 3
    assert found["probes"]["block"]["mean"]["unit"] == "mm"
    assert set(found["imagined_state"]["pusher"]) >= {"model", "seen", "unit"}
    assert Image.open(out / "imagination.png").width > 1000
    assert Image.open(out / "strip.png").height > 3 * 3 * 32
    assert Decoder.load(out / "decoder.safetensors").config.latent == 16


def test_without_an_environment_state_there_are_no_probes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_walks(tmp_path / "walks", episodes=3)
    small_world_model().save_pretrained(tmp_path / "model")
    where = [str(tmp_path / "model"), str(tmp_path / "walks")]
    run = ["world-model", *where, "horizon=2", f"out={tmp_path / 'out'}"]
    assert "states no held-out episodes" in error_of(main, *run)
    main([*run, "episodes=[2]", "decoder_steps=0"])
    assert "no probes: the dataset has no observation.environment_state" in capsys.readouterr().out
    assert read_json(tmp_path / "out" / "world_model.json")["probes"] is None
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"world_model.json", "imagination.png", "config.yaml"}
    assert "more than 42 frames, found none in [2]" in error_of(main, *run, "episodes=[2]", "horizon=19")
    assert "horizon: expected at least 1, found 0" in error_of(main, *run, "horizon=0")
    assert "observation.environment_state" in error_of(main, "plan", *where, "episodes=[2]")


def test_plans_are_played_beside_the_baselines(
    checkpoint: str, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["n_starts=2", "seed=3", "ahead=6", "budget=6", "plan.samples=4", "plan.elites=2", "plan.iterations=2"]
    run = ["plan", checkpoint, str(dataset), *small, "plan.horizon=2", "plan.execute=1"]
    main([*run, f"out={tmp_path / 'first'}"])
    shown = capsys.readouterr().out
    for words in ("planner - hold", "random plans", "a plan: p50"):
        assert words in shown
    found = read_json(tmp_path / "first" / "plan.json")
    assert set(found["policies"]) == {"planner", "random plans", "hold", "recorded"}
    assert found["plan_ms"]["n"] == 2 * 3  # every model step, of two frames
    assert found["planner_minus"]["hold"]["n"] == 2
    main([*run, f"out={tmp_path / 'again'}"])
    first, again = ((tmp_path / name / "episodes.csv").read_text() for name in ("first", "again"))
    assert first == again
    rows = list(csv.DictReader((tmp_path / "first" / "episodes.csv").open()))
    assert {row["episode"] for row in rows} <= {"1", "3"}
    assert "plan.solver: expected one of ['cem', 'mppi'], found 'sgd'" in error_of(main, *run, "plan.solver=sgd")
    assert "plan: expected keys out of" in error_of(main, *run, "+plan.elite=3")
    assert "n_starts: expected at most 36 in these episodes, found 37" in error_of(main, *run, "n_starts=37")


def test_recorded_commands_lead_from_the_start_to_the_goal(dataset: Path) -> None:
    tasks = draw_tasks(LeRobotDataset(dataset), [0, 2], [TOP], n_starts=3, ahead=8, seed=0)
    assert len({(task.episode, task.frame) for task in tasks}) == 3
    env = PushTEnv(cameras=())
    for task in tasks:
        columns = LeRobotDataset(dataset).episode(task.episode).columns
        np.testing.assert_array_equal(task.pusher, columns[STATE][task.frame])
        np.testing.assert_array_equal(task.goal_pusher, columns[STATE][task.frame + 8])
        found = run_task(env, task, Replayed(task, 8), 8, np.random.default_rng(0))
        assert found.success
        assert found.pusher_distance < 0.01
    env.close()
