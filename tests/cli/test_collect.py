"""vla-collect: what it writes, how it goes on after a kill, what it refuses."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers.commands import error_of
from helpers.language import four_goals
from helpers.small_world_model import small_config
from helpers.tiny_policies import tiny_policy

from sim import PushTConfig, PushTEnv
from sim.geometry import WORKSPACE_HIGH, WORKSPACE_LOW, coverage
from sim.language.instructions import named_goal
from vla_policy.benchmarks.fidelity import replay_episode
from vla_policy.cli.collect import main
from vla_policy.collection.collect import CollectConfig, collect
from vla_policy.collection.demonstrator import Demonstration
from vla_policy.collection.learner import digest
from vla_policy.data import LeRobotDataset, LeRobotWriter
from vla_policy.data.editing import delete, merge, retask, split
from vla_policy.data.format.layout import COLLECTION
from vla_policy.interfaces import ACTION, ENVIRONMENT_STATE, EXECUTED, STATE, Failure, InputError
from vla_policy.models import DiffusionPolicy, PolicyConfig
from vla_policy.training import DataConfig, open_data
from vla_policy.utils.files import read_json, write_json
from vla_policy.utils.recordings import RECORDINGS

SEED = 201
QUICK = ["n_episodes=2", f"seed={SEED}", "num_workers=0", "noise=0.002"]


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("collected") / "episodes"
    main([str(root), *QUICK])
    return root


def attempts(root: Path) -> list[dict[str, object]]:
    return json.loads((root / COLLECTION).read_text())["attempts"]


def assert_same_film(one: np.ndarray, other: np.ndarray) -> None:
    """Alike but for the encoder: from pictures equal byte for byte x264 was seen to make another file now and then, a
    few macroblocks of one key frame being quantised otherwise.
    """
    difference = np.abs(np.asarray(one, int) - np.asarray(other, int))
    assert difference.max() <= 16
    assert difference.mean() < 0.05


def assert_same_episodes(one: Path, other: Path) -> None:
    a, b = LeRobotDataset(one), LeRobotDataset(other)
    assert a.num_episodes == b.num_episodes
    for i in range(a.num_episodes):
        mine, theirs = a.episode(i).columns, b.episode(i).columns
        for key in (STATE, ENVIRONMENT_STATE, ACTION):
            np.testing.assert_array_equal(mine[key], theirs[key])
        for camera in a.interface.cameras:
            assert_same_film(a.frames(i, camera), b.frames(i, camera))
    assert attempts(one) == attempts(other)


def test_dataset_and_summary(collected: Path) -> None:
    dataset = LeRobotDataset(collected)
    summary = json.loads((collected / COLLECTION).read_text())
    assert dataset.num_episodes == summary["successful"] == 2
    assert dataset.fps == 10
    assert set(dataset.interface.observations) == {STATE, ENVIRONMENT_STATE, "observation.images.top"}
    good = [a for a in summary["attempts"] if a["episode"] is not None]
    assert [a["seed"] for a in summary["attempts"]] == list(range(SEED, SEED + summary["attempted"]))
    assert [a["steps"] for a in good] == list(dataset.lengths)
    assert summary["failed_seeds"] == [a["seed"] for a in summary["attempts"] if a["episode"] is None]
    assert summary["success_ci95"][0] < summary["success_rate"] <= summary["success_ci95"][1]
    columns = dataset.episode(0).columns
    assert np.linalg.norm(columns[ACTION] - columns[STATE], axis=1).max() < 0.033  # the expert's, without noise
    assert len(dataset.frames(0, "observation.images.top")) == dataset.lengths[0]


def test_workers_give_the_same_episodes(collected: Path, tmp_path: Path) -> None:
    root = tmp_path / "workers"
    main([str(root), *QUICK, "num_workers=2"])
    assert_same_episodes(root, collected)


def test_killed_and_resumed_equals_uninterrupted(collected: Path, tmp_path: Path) -> None:
    root = tmp_path / "killed"
    command = [sys.executable, "-m", "vla_policy.cli.collect", str(root), *QUICK]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not (root / COLLECTION).exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)  # the first attempt is recorded, its episode is being written
    process.wait()
    assert LeRobotDataset(root).num_episodes < 2
    main([str(root), *QUICK])
    assert_same_episodes(root, collected)
    assert not list(root.rglob("*.tmp"))


def test_finished_collection_is_left_alone_and_can_grow(collected: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in (collected / "data").rglob("*.parquet")}
    main([str(collected), *QUICK])
    assert {path: path.stat().st_mtime_ns for path in (collected / "data").rglob("*.parquet")} == before
    assert "successful" in capsys.readouterr().out


def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "vla_policy.cli.collect", str(tmp_path / "c"), "n_episodes=50", "num_workers=1"]
    parent = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    children: list[int] = []
    deadline = time.monotonic() + 120
    while not children and time.monotonic() < deadline:
        time.sleep(0.1)
        listed = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
        children = [int(pid) for pid in listed if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()]
    parent.kill()
    parent.wait()
    assert children
    deadline = time.monotonic() + 60
    while any(_alive(pid) for pid in children) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(_alive(pid) for pid in children)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_every_episode_has_its_own_instruction(tmp_path: Path) -> None:
    root = tmp_path / "language"
    main([str(root), "scene=pusht_language", "n_episodes=3", "seed=50010", "num_workers=0", "cameras=[]"])
    dataset, found = LeRobotDataset(root), [a for a in attempts(root) if a["episode"] is not None]
    told = [dataset.episode(i).task for i in range(3)]
    assert told == [a["task"] for a in found]
    assert len(set(told)) == 3
    scene = four_goals()
    assert [named_goal(text, scene) for text in told] == [a["goal"] for a in found]
    for i, attempt in enumerate(found):  # and went where it says
        x, y, cos, sin = dataset.episode(i).columns[ENVIRONMENT_STATE][-1]
        goal = np.array(scene.goals[str(attempt["goal"])].pose)
        assert coverage(np.array([x, y, np.arctan2(sin, cos)]), goal) > 0.8


def test_failures_are_skipped_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def every_third_succeeds(env: object, seed: int, *how: object) -> Demonstration:
        good = seed % 3 == 2
        columns = {STATE: np.full((4, 2), seed), ENVIRONMENT_STATE: np.zeros((4, 4))}
        columns |= dict.fromkeys((ACTION, EXECUTED), np.zeros((4, 2)))
        return Demonstration(seed, good, 4 if good else 300, 0.5, columns if good else {}, {})

    monkeypatch.setattr("vla_policy.collection.demonstrator.demonstrate", every_third_succeeds)
    config = CollectConfig(n_episodes=2, cameras=[], num_workers=0)
    summary = collect(tmp_path / "c", config)
    assert (summary["attempted"], summary["successful"]) == (6, 2)
    assert summary["failed_seeds"] == [0, 1, 3, 4]
    stored = json.loads((tmp_path / "c" / COLLECTION).read_text())
    stored["config"]["task"] = stored["config"].pop("scene")  # as older collections have it
    (tmp_path / "c" / COLLECTION).write_text(json.dumps(stored))
    grown = collect(tmp_path / "c", CollectConfig(n_episodes=3, cameras=[], num_workers=0))
    assert (grown["attempted"], grown["successful"]) == (9, 3)
    assert [e[STATE][0, 0] for e in (LeRobotDataset(tmp_path / "c").episode(i).columns for i in range(3))] == [2, 5, 8]


def test_an_edited_collection_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def every_second_succeeds(env: object, seed: int, *how: object) -> Demonstration:
        columns = {STATE: np.full((4, 2), seed), ENVIRONMENT_STATE: np.zeros((4, 4))}
        columns |= dict.fromkeys((ACTION, EXECUTED), np.zeros((4, 2)))
        return Demonstration(seed, seed % 2 == 1, 4, 0.5, columns if seed % 2 else {}, {})

    def seeds(root: Path) -> list[float]:
        dataset = LeRobotDataset(root)
        return [dataset.episode(i).columns[STATE][0, 0] for i in dataset.episodes]

    monkeypatch.setattr("vla_policy.collection.demonstrator.demonstrate", every_second_succeeds)
    four = CollectConfig(n_episodes=4, cameras=[], num_workers=0)
    root = tmp_path / "c"
    collect(root, four)
    retask(root, "another one", episodes=[1])
    delete(root, [0, 3])
    about = json.loads((root / COLLECTION).read_text())
    assert (about["episodes"], about["frames"], about["successful"]) == (2, 8, 4)
    assert [a["episode"] for a in about["attempts"]] == [None, None, None, 0, None, 1, None, None]
    assert [a["seed"] for a in about["attempts"] if a.get("removed")] == [1, 7]
    assert [a["task"] for a in about["attempts"]].count("another one") == 1
    grown = collect(root, four)
    assert seeds(root) == [3, 5, 9, 11]
    assert (grown["attempted"], grown["successful"]) == (12, 6)
    assert grown["failed_seeds"] == [0, 2, 4, 6, 8, 10]
    split(root, tmp_path / "parts", {"a": [0, 1], "b": [2, 3]})
    merge([tmp_path / "parts" / name for name in "ba"], tmp_path / "merged")
    about = json.loads((tmp_path / "merged" / COLLECTION).read_text())
    assert seeds(tmp_path / "merged") == [9, 11, 3, 5]
    kept = [
        [(a["seed"], a["episode"]) for a in part["attempts"] if a["episode"] is not None] for part in about["parts"]
    ]
    assert kept == [[(9, 0), (11, 1)], [(3, 2), (5, 3)]]
    with pytest.raises(InputError, match="expected one collection to continue, found 2 merged into one"):
        collect(tmp_path / "merged", four)


def test_an_edit_after_a_kill_leaves_the_attempt_to_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def always_succeeds(env: object, seed: int, *how: object) -> Demonstration:
        columns = {STATE: np.full((4, 2), seed), ENVIRONMENT_STATE: np.zeros((4, 4))}
        columns |= dict.fromkeys((ACTION, EXECUTED), np.zeros((4, 2)))
        return Demonstration(seed, True, 4, 0.5, columns, {})

    monkeypatch.setattr("vla_policy.collection.demonstrator.demonstrate", always_succeeds)
    root, add_episode = tmp_path / "c", LeRobotWriter.add_episode

    def killed(writer: LeRobotWriter, *episode: object) -> int:
        if writer.num_episodes == 2:
            raise KeyboardInterrupt
        return add_episode(writer, *episode)

    monkeypatch.setattr(LeRobotWriter, "add_episode", killed)
    three = CollectConfig(n_episodes=3, cameras=[], num_workers=0)
    with pytest.raises(KeyboardInterrupt):
        collect(root, three)
    monkeypatch.setattr(LeRobotWriter, "add_episode", add_episode)
    assert len(json.loads((root / COLLECTION).read_text())["attempts"]) == 3
    delete(root, [0])
    about = json.loads((root / COLLECTION).read_text())
    assert [(a["seed"], a["episode"], a["removed"]) for a in about["attempts"]] == [(0, None, True), (1, 0, False)]
    assert "successful" not in about
    grown = collect(root, three)
    dataset = LeRobotDataset(root)
    assert [dataset.episode(i).columns[STATE][0, 0] for i in dataset.episodes] == [1, 2, 3]
    assert (grown["attempted"], grown["successful"]) == (4, 4)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("n_episodes=0", "n_episodes: expected at least 1"),
        ("noise=-1", "noise: expected at least 0"),
        ("env=mujoco", "expected 'pybullet' or 'gym_pusht', found 'mujoco'"),
        ("cameras=[left]", "cameras: expected some of"),
        ("colour=red", "colour"),
        ("scene.physics.no_such=1", "no_such"),
        ("behaviour=dagger", "policy: expected a checkpoint with behaviour=dagger, found None"),
        ("policy=somewhere", "policy: expected none with behaviour=expert, found somewhere"),
        ("policy=null behaviour=dagger", "policy: expected a checkpoint with behaviour=dagger, found None"),
    ],
)
def test_mistakes_are_one_line(override: str, message: str, tmp_path: Path) -> None:
    assert message in error_of(main, tmp_path / "c", *override.split())
    assert not (tmp_path / "c").exists()


def test_another_collection_is_not_continued(collected: Path) -> None:
    with pytest.raises(InputError, match=r"expected noise 0\.002 to continue, found 0\.004"):
        collect(collected, CollectConfig(n_episodes=3, seed=SEED, noise=0.004, num_workers=0))


def test_foreign_dataset_is_refused(collected: Path, tmp_path: Path) -> None:
    root = tmp_path / "foreign"
    (root / "meta").mkdir(parents=True)
    (root / "meta" / "info.json").write_text((collected / "meta" / "info.json").read_text())
    with pytest.raises(InputError, match="found another dataset"):
        collect(root, CollectConfig(n_episodes=1, num_workers=0))


@pytest.mark.parametrize("behaviour", ["noisy", "random"])
def test_play_keeps_every_episode_and_what_was_executed(behaviour: str, tmp_path: Path) -> None:
    root = tmp_path / behaviour
    quick = ["n_episodes=2", "num_workers=0", "cameras=[]", "noise=0.01", "scene.max_episode_steps=25"]
    main([str(root), f"behaviour={behaviour}", *quick])
    dataset, summary = LeRobotDataset(root), json.loads((root / COLLECTION).read_text())
    assert dataset.lengths.tolist() == [25, 25]  # nobody is done by then
    assert summary["episodes"] == 2
    assert "success_rate" not in summary
    scene = PushTEnv(PushTConfig(max_episode_steps=25), cameras=[])
    observation, _ = scene.reset(seed=0)
    for expected in zip(*(dataset.episode(0).columns[key] for key in (STATE, ACTION)), strict=True):
        np.testing.assert_allclose(observation[STATE], expected[0], atol=1e-6)
        observation, *_ = scene.step(expected[1])
    scene.close()


def test_play_pushes_the_block_about(tmp_path: Path) -> None:
    main([str(tmp_path / "play"), "behaviour=random", "n_episodes=3", "num_workers=0", "cameras=[]"])
    dataset = LeRobotDataset(tmp_path / "play")
    blocks = [dataset.episode(i).columns[ENVIRONMENT_STATE] for i in range(3)]
    assert min(np.ptp(block[:, :2], axis=0).max() for block in blocks) > 0.02
    assert max(np.abs(np.diff(block[:, :2], axis=0)).max() for block in blocks) < 0.05


@pytest.fixture(scope="module")
def novice(collected: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checkpoint that has learnt nothing."""
    folder = tmp_path_factory.mktemp("novice") / "policy"
    interface = LeRobotDataset(collected).interface
    tiny_policy(interface, WORKSPACE_LOW, WORKSPACE_HIGH, [STATE, ENVIRONMENT_STATE]).save_pretrained(folder)
    return str(folder)


def test_the_expert_takes_over_where_a_policy_stalls(novice: str, tmp_path: Path) -> None:
    quick = ["behaviour=dagger", f"policy={novice}", "patience=15", "n_episodes=1", f"seed={SEED}", "num_workers=0"]
    main([str(tmp_path / "c"), *quick, "cameras=[]"])
    (attempt,), dataset = attempts(tmp_path / "c"), LeRobotDataset(tmp_path / "c")
    assert attempt["alone"] == 15
    assert attempt["steps"] == dataset.lengths[0]
    columns = dataset.episode(0).columns
    scene = PushTEnv(cameras=[])
    observation, _ = scene.reset(seed=SEED)
    scene.close()
    assert np.linalg.norm(columns[STATE][0] - observation[STATE]) > 0.005  # what it had done is not recorded
    assert np.linalg.norm(columns[ACTION] - columns[STATE], axis=1).max() < 0.033  # the expert's targets
    x, y, cos, sin = columns[ENVIRONMENT_STATE][-1]
    assert coverage(np.array([x, y, np.arctan2(sin, cos)])) > 0.9
    assert dataset.interventions == {0: [(0, attempt["steps"])]}
    (tmp_path / "c" / RECORDINGS).unlink()  # as it was in older collections
    main([str(tmp_path / "c"), *quick, "cameras=[]"])  # nothing is left to do
    assert attempts(tmp_path / "c") == [attempt]
    assert LeRobotDataset(tmp_path / "c").interventions == dataset.interventions


def test_corrections_are_of_one_policy(novice: str, tmp_path: Path) -> None:
    policy, words = tmp_path / "policy", ["patience=5", "num_workers=0", "cameras=[]", "behaviour=dagger"]
    shutil.copytree(novice, policy)
    main([str(tmp_path / "c"), *words, f"policy={policy}", "n_episodes=1"])
    learnt = DiffusionPolicy.from_pretrained(policy)
    for value in learnt.parameters():
        value.data += 0.01
    learnt.save_pretrained(policy)
    message = error_of(main, tmp_path / "c", *words, f"policy={policy}", "n_episodes=2")
    assert "expected the policy that has played so far to continue, of digest" in message
    about = read_json(tmp_path / "c" / COLLECTION)
    del about["policy_digest"]  # as it was in older collections
    write_json(tmp_path / "c" / COLLECTION, about)
    main([str(tmp_path / "c"), *words, f"policy={policy}", "n_episodes=1"])
    assert read_json(tmp_path / "c" / COLLECTION)["policy_digest"] == digest(str(policy))


def test_a_policy_that_needs_no_help_gives_nothing(
    novice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def perfect(self: object, env: object, observation: object, info: dict[str, object], *how: object) -> object:
        return observation, info, 90, True

    monkeypatch.setattr("vla_policy.collection.learner.Learner.play", perfect)
    with pytest.raises(Failure, match="policy: expected starts where it stalls, found 50 successes in a row"):
        collect(tmp_path / "c", CollectConfig(behaviour="dagger", policy=novice, num_workers=0, cameras=[]))
    assert all(a["steps"] == 0 and a["episode"] is None for a in attempts(tmp_path / "c"))


def test_a_policy_sees_what_the_cameras_show(tmp_path: Path, collected: Path) -> None:
    interface = LeRobotDataset(collected).interface
    tiny_policy(interface, WORKSPACE_LOW, WORKSPACE_HIGH, list(interface.observations)).save_pretrained(tmp_path / "p")
    message = error_of(
        main, tmp_path / "c", "behaviour=dagger", f"policy={tmp_path / 'p'}", "num_workers=0", "cameras=[]"
    )
    assert message.count("observation.images.top") == 1


def test_what_the_arm_was_sent_is_recorded_beside_what_the_expert_wanted(collected: Path) -> None:
    dataset = LeRobotDataset(collected)
    episode = dataset.episode(0)
    noise = episode.executed - episode.columns[ACTION]
    assert noise.std() == pytest.approx(0.002, rel=0.2)
    scene = PushTEnv(cameras=[])
    played = replay_episode(dataset, 0, scene)
    scene.close()
    assert played.position_error.max() < 0.005  # it happens again, but for what contacts make of float32
    assert played.success
    model = small_config(cameras=["observation.images.top"])
    windows = open_data(DataConfig(str(collected), val_episodes=0), model)[0]
    assert np.isin(windows.columns[ACTION], np.concatenate([dataset.episode(k).executed for k in range(2)])).all()
    policy = open_data(DataConfig(str(collected), val_episodes=0), PolicyConfig())[0]
    np.testing.assert_array_equal(policy.columns[ACTION][: len(noise)], episode.columns[ACTION])


def test_an_older_collection_goes_on_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [str(tmp_path / "c"), "cameras=[]", f"seed={SEED}", "num_workers=0"]
    with monkeypatch.context() as patched:
        patched.setattr("vla_policy.collection.collect._records_both", lambda *_: False)
        main([*words, "n_episodes=1"])
    main([*words, "n_episodes=2"])
    dataset = LeRobotDataset(tmp_path / "c")
    assert dataset.num_episodes == 2
    assert EXECUTED not in dataset.episode(1).columns
    np.testing.assert_array_equal(dataset.episode(1).executed, dataset.episode(1).columns[ACTION])
