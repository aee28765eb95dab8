"""vla-eval and vla-bench from the command line, with real environments and an untrained checkpoint."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from helpers.commands import error_of
from helpers.compiling import compiling
from helpers.tiny_policies import tiny_policy

from sim.geometry import WORKSPACE_HIGH, WORKSPACE_LOW
from sim.interface import pusht_interface
from vla_policy.cli import bench
from vla_policy.cli.eval import main
from vla_policy.interfaces import IMAGES, STATE
from vla_policy.models import ObjectiveConfig
from vla_policy.utils.files import read_json

TOP = IMAGES + "top"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny"
    card = {"data": {"demonstrations": 25}, "training": {"seed": 3, "steps": 10}}
    policy = tiny_policy(pusht_interface({"top": 96}), WORKSPACE_LOW, WORKSPACE_HIGH, [STATE, TOP], card)
    policy.save_pretrained(folder)
    return str(folder)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "episodes.csv").open() as file:
        return list(csv.DictReader(file))


def test_an_evaluation_leaves_numbers_and_pictures(
    checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["n_episodes=3", "seed=50000", "num_envs=2", "latency_repeats=3", "policy_seed=5"]
    first, second = tmp_path / "first", tmp_path / "second"
    main(
        [checkpoint, *small, "num_workers=2", "videos=1", "baseline=hold", "scene.max_episode_steps=20", f"out={first}"]
    )
    out = capsys.readouterr().out
    for words in ("exact 95 % interval", "mean max reward", "action chunk, p50 / p95 ms", "baseline hold"):
        assert words in out
    summary = read_json(first / "summary.json")
    assert summary["n_episodes"] == 3
    assert summary["seeds"] == [50000, 50001, 50002]
    assert summary["env"] == "pybullet"
    assert summary["checkpoint"] == checkpoint
    assert summary["chunk_ms"]["p95"] >= summary["chunk_ms"]["p50"] > 0
    assert (summary["data"]["demonstrations"], summary["training"]["seed"]) == (25, 3)
    assert {p.name for p in first.iterdir()} == {
        "summary.json", "episodes.csv", "config.yaml", "best.mp4", "contact_sheet.png", "baseline_hold"
    }  # fmt: skip
    assert read_json(first / "baseline_hold" / "summary.json")["n_episodes"] == 3

    # The same again repeats every number; the baseline had the same starts.
    main([checkpoint, *small, "num_workers=2", "videos=0", "scene.max_episode_steps=20", f"out={second}"])
    assert rows(first) == rows(second)
    starts = ("seed", "pusher_x", "pusher_y", "block_x", "block_y", "block_angle")
    held = rows(first / "baseline_hold")
    assert [[r[k] for k in starts] for r in rows(first)] == [[r[k] for k in starts] for r in held]

    # Playing less of each chunk is another policy, and said so.
    main([checkpoint, *small, "n_action_steps=2", "videos=0", "scene.max_episode_steps=20", f"out={second}"])
    assert (summary["n_action_steps"], read_json(second / "summary.json")["n_action_steps"]) == (8, 2)
    assert rows(first) != rows(second)

    main(["compare", str(first / "baseline_hold"), str(first)])
    assert read_json(first / "comparison.json")["n"] == 3
    assert "exact McNemar test" in capsys.readouterr().out


def test_the_expert_follows_the_instruction(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = ["baseline=expert", "seed=50000", "n_episodes=3", "num_workers=0", "num_envs=1"]
    main([*run, "scene=pusht_language", "videos=1", f"out={tmp_path / 'language'}"])
    shown = capsys.readouterr().out
    assert "success, " in shown
    assert "instruction" in shown
    summary = read_json(tmp_path / "language" / "summary.json")
    assert summary["n_success"] == 3
    assert (summary["paraphrases"], summary["episodes_naming_no_goal"]) == ("training", 0)
    assert "names no goal" not in shown
    found = rows(tmp_path / "language")
    assert {row["task"] for row in found} == set(summary["instructions"])
    assert {row["goal"] for row in found} == set(summary["by_goal"])
    assert len(summary["by_goal"]) > 1
    assert (tmp_path / "language" / "best.mp4").exists()

    short = ["baseline=hold", "videos=0", "scene.max_episode_steps=2", *run[1:]]
    main([*short, f"out={tmp_path / 'single'}"])
    main(["compare", str(tmp_path / "single"), str(tmp_path / "language")])  # the starts are the same
    assert read_json(tmp_path / "language" / "comparison.json")["only_b"] == 3
    assert "paraphrases" not in read_json(tmp_path / "single" / "summary.json")
    capsys.readouterr()
    main([*short, "scene=pusht_language", "scene.instruction='Schieb das T!'", f"out={tmp_path / 'other'}"])
    other = read_json(tmp_path / "other" / "summary.json")
    assert other["instructions"] == {"Schieb das T!": 3}
    assert (other["paraphrases"], other["episodes_naming_no_goal"]) == (None, 3)
    assert "in 3 episodes it names no goal" in " ".join(capsys.readouterr().out.split())
    message = error_of(main, *run, "scene=pusht_language", "scene.instruction='Schieb das T!'", f"out={tmp_path}")
    assert "expected one that names a goal of ['red', 'green', 'blue', 'yellow'], found 'Schieb das T!'" in message


def test_gym_pusht_has_the_same_starts_and_its_own_numbers(tmp_path: Path) -> None:
    common = ["baseline=hold", "n_episodes=2", "seed=50000", "num_workers=0", "videos=0", "scene.max_episode_steps=10"]
    for env in ("pybullet", "gym_pusht"):
        main([*common, f"env={env}", f"out={tmp_path / env}"])
    for ours, theirs in zip(rows(tmp_path / "pybullet"), rows(tmp_path / "gym_pusht"), strict=True):
        for key in ("pusher_x", "pusher_y", "block_x", "block_y", "block_angle"):
            assert float(ours[key]) == pytest.approx(float(theirs[key]), abs=2e-3)


def test_an_evaluation_under_a_disturbance(tmp_path: Path) -> None:
    run = ["baseline=hold", "n_episodes=2", "num_workers=0", "videos=1", "scene.max_episode_steps=4"]
    for name, chosen in {"without": [], "with": ["kind=block_teleport", "magnitude=0.05", "step=2"]}.items():
        main([*run, *(f"disturbance.{word}" for word in chosen), f"out={tmp_path / name}"])
    told = {name: read_json(tmp_path / name / "summary.json")["disturbance"] for name in ("without", "with")}
    assert told == {"without": None, "with": {"kind": "block_teleport", "magnitude": 0.05, "step": 2}}
    for before, after in zip(rows(tmp_path / "without"), rows(tmp_path / "with"), strict=True):
        assert before["block_x"] == after["block_x"]
        assert before["final_coverage"] != after["final_coverage"]
    for words, says in {
        ("kind=earthquake",): "disturbance.kind: expected one of ['block_teleport', ",
        ("step=3",): "disturbance.kind: expected one of",
        ("kind=light", "magnitude=-1"): "expected a number above 0 and up to 1.0",
        ("kind=light", "magnitude=nan"): "found nan",
        ("kind=light", "when=3"): "when",
    }.items():
        message = error_of(main, *run, *(f"disturbance.{word}" for word in words), f"out={tmp_path / 'x'}")
        assert says in message, message
    error = error_of(main, *run, "env=gym_pusht", "disturbance.kind=light", f"out={tmp_path / 'x'}")
    assert "where there is no PyBullet scene" in error


def test_mistakes_are_one_clear_line(checkpoint: str, tmp_path: Path) -> None:
    assert "expected a CHECKPOINT or baseline=hold|expert" in error_of(main)
    assert "nowhere" in error_of(main, tmp_path / "nowhere")
    assert "expected 'pybullet' or 'gym_pusht', found 'mujoco'" in error_of(main, checkpoint, "env=mujoco")
    assert "n_episode" in error_of(main, checkpoint, "n_episode=3")
    assert "n_episodes" in error_of(main, checkpoint, "n_episodes=many")
    assert "n_episodes: expected at least 1, found 0" in error_of(main, checkpoint, "n_episodes=0")
    assert "policy.n_action_steps: expected 1 to" in error_of(main, checkpoint, "n_action_steps=16")
    assert "expected null without a CHECKPOINT" in error_of(main, "baseline=hold", "n_action_steps=2")
    assert "update_card: expected chunks without delay" in error_of(main, checkpoint, "delay=2", "update_card=true")
    assert "null with a monitor, update_card or server" in error_of(
        main, checkpoint, "n_action_steps=2", "update_card=true"
    )
    assert "expected one of ['expert', 'hold']" in error_of(main, "baseline=magic")
    assert "expected key=value" in error_of(main, checkpoint, "fast")
    assert "table_grip" in error_of(main, checkpoint, "scene.physics.table_grip=1")
    assert "scene.instruction: expected some words" in error_of(main, checkpoint, "scene.instruction=''")
    assert "expected 'pybullet'" in error_of(main, checkpoint, "scene=pusht_language", "env=gym_pusht")
    assert "summary.json" in error_of(main, "compare", str(tmp_path), str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_for_other_cameras_is_refused(tmp_path: Path) -> None:
    wrist = pusht_interface({"wrist": 96})
    keys = [STATE, IMAGES + "wrist"]
    tiny_policy(wrist, WORKSPACE_LOW, WORKSPACE_HIGH, keys).save_pretrained(tmp_path / "wrist")
    assert "'wrist'" in error_of(main, str(tmp_path / "wrist"), f"out={tmp_path / 'out'}")
    small = pusht_interface({"top": 64})
    tiny_policy(small, WORKSPACE_LOW, WORKSPACE_HIGH, [STATE, TOP]).save_pretrained(tmp_path / "small")
    message = error_of(main, str(tmp_path / "small"), f"out={tmp_path / 'out'}")
    assert "observation.images.top: shape expected [64, 64, 3], found [96, 96, 3]" in message
    assert not (tmp_path / "out").exists()


def test_latency_is_measured_and_written(checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "latency.json"
    bench.main(["latency", checkpoint, "threads=1", "repeats=5", "warmup=2", f"out={out}"])
    found = read_json(out)
    assert 0 < found["prefix_ms"]["p50"] < found["p50"] <= found["p95"] <= found["p99"]
    assert (found["batch"], found["threads"], found["n"], len(found["warmup_ms"])) == (1, 1, 5, 2)
    assert found["inference_steps"] == 2
    assert "p99" in capsys.readouterr().out


@compiling
@pytest.mark.slow
def test_a_policy_is_compiled_before_its_latency_is_measured(
    checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "latency.json"
    bench.main(["latency", checkpoint, "device=cpu", "compile=true", "repeats=5", "warmup=2", f"out={out}"])
    found = read_json(out)
    assert found["compiled"]
    assert 1e3 * found["load_s"] > max(found["warmup_ms"])
    assert "inference steps, compiled" in " ".join(capsys.readouterr().out.split())


def test_demonstrations_become_a_table_and_a_plot(checkpoint: str, tmp_path: Path) -> None:
    run = ["n_episodes=2", "seed=50000", "num_workers=0", "videos=0", "latency_repeats=1", "scene.max_episode_steps=8"]
    main([checkpoint, *run, f"out={tmp_path / 'run'}"])
    main(["demonstrations", str(tmp_path / "run"), f"out={tmp_path / 'bench'}"])
    assert {p.name for p in (tmp_path / "bench").iterdir()} == {
        f"demonstrations.{kind}" for kind in ("csv", "json", "png")
    }
    (row,) = csv.DictReader((tmp_path / "bench" / "demonstrations.csv").open())
    assert (row["demonstrations"], row["training_seed"], row["n_episodes"]) == ("25", "3", "2")
    main(["baseline=hold", *run, f"out={tmp_path / 'hold'}"])
    error = error_of(main, "demonstrations", tmp_path / "run", tmp_path / "hold")
    assert "expected data.demonstrations" in error


def test_objectives_become_a_table(checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ddpm = ObjectiveConfig(name="ddpm", sampler="ddim", inference_steps=3)
    card = {"data": {"demonstrations": 25}, "training": {"seed": 3, "steps": 10}}
    policy = tiny_policy(pusht_interface({"top": 96}), WORKSPACE_LOW, WORKSPACE_HIGH, [STATE, TOP], card, ddpm)
    policy.save_pretrained(tmp_path / "tiny_ddpm")
    run = ["n_episodes=2", "seed=50000", "num_workers=0", "videos=0", "latency_repeats=1", "scene.max_episode_steps=8"]
    folders = [str(tmp_path / name) for name in ("flow", "ddpm")]
    for folder, source in zip(folders, (checkpoint, str(tmp_path / "tiny_ddpm")), strict=True):
        main([source, *run, f"out={folder}"])
    main(["objectives", *folders, f"out={tmp_path / 'bench'}"])
    assert "ddim" in capsys.readouterr().out
    found = read_json(tmp_path / "bench" / "objectives.json")
    assert [row["objective"]["passes"] for row in found["runs"]] == [2, 3]
    assert found["runs"][1]["parameters"] == sum(value.numel() for value in policy.parameters())
    main(["baseline=hold", *run, f"out={tmp_path / 'hold'}"])
    error = error_of(main, "objectives", folders[0], tmp_path / "hold")
    assert "expected 'objective', as vla-eval writes of a checkpoint, found none" in error
