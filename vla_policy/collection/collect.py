"""Collect demonstrations of the scripted expert, or play, into a LeRobotDataset, resumable after a kill.

Starts are tried in the order of their seeds. `meta/collection.json` records the outcome of each; it is written just
before the episode itself, so that after a kill the entries beyond the last whole episode are dropped and tried again,
with the same outcome.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from sim import TASK, PushTConfig, make_env
from vla_policy.collection.demonstrator import BEHAVIOURS, Behaviour, Demonstration, demonstrations
from vla_policy.collection.learner import Learner, digest
from vla_policy.data import LeRobotWriter
from vla_policy.data.format.layout import COLLECTION
from vla_policy.evaluation.statistics import success_interval
from vla_policy.interfaces import EXECUTED, Failure, InputError
from vla_policy.robot.bags import SUCCESS
from vla_policy.rollouts.scenes import with_scene
from vla_policy.utils.files import read_json, write_json
from vla_policy.utils.provenance import git_commit
from vla_policy.utils.recordings import RECORDINGS

ROBOT_TYPES = {"pybullet": "xarm6", "gym_pusht": "pusht"}
MAX_FAILURES = 50  # in a row, after which collecting stops


@dataclass
class CollectConfig:
    """Demonstrations of the scripted expert, or play for a world model."""

    n_episodes: int = 200  # the expert's successful ones; failed starts are skipped and counted
    seed: int = 0  # of the first start; the others count up from it. Seeds from 100000 on are for evaluation
    env: str = "pybullet"  # pybullet (the arm) | gym_pusht
    cameras: list[str] = field(default_factory=lambda: ["top"])  # [] for none; pybullet also has oblique and video
    behaviour: str = "expert"
    """expert | noisy (the expert with noise) | random (pushes anywhere near the block); of the last two every
    episode is kept, and the executed target is recorded | dagger (the policy plays, and where it stalls the expert
    takes over and is recorded)
    """
    policy: str | None = None  # dagger: the checkpoint that plays
    patience: int = 50  # dagger: control steps without progress, or 0.1 s each, after which the expert takes over
    noise: float = 0.003
    """metres, standard deviation of the noise on every executed target; the recorded one is the expert's own"""
    after_success: int = 10
    """control steps that an episode continues after success, so that demonstrations go beyond its threshold rather
    than stop at it
    """
    num_workers: int | None = None  # processes; null: one a core, 0: all in this one
    codec: str = "h264"  # h264 | av1
    scene: dict[str, Any] = field(default_factory=dict)  # what PushTConfig.from_mapping reads, see sim/config.py

    def __post_init__(self) -> None:
        for key, least in {
            "n_episodes": 1,
            "seed": 0,
            "noise": 0,
            "after_success": 0,
            "patience": 1,
            "num_workers": 0,
        }.items():
            value = getattr(self, key)
            if value is not None and not value >= least:
                raise InputError(f"{key}: expected at least {least}, found {value}")
        if self.behaviour not in BEHAVIOURS:
            raise InputError(f"behaviour: expected one of {list(BEHAVIOURS)}, found {self.behaviour!r}")
        if (self.behaviour == "dagger") != (self.policy is not None):
            expected = "a checkpoint" if self.behaviour == "dagger" else "none"
            raise InputError(f"policy: expected {expected} with behaviour={self.behaviour}, found {self.policy}")

    @property
    def workers(self) -> int:
        """Processes to use: as many as asked for, or one a core."""
        return len(os.sched_getaffinity(0)) if self.num_workers is None else self.num_workers

    def identity(self) -> dict[str, Any]:
        """The settings that must match to continue a collection."""
        return {key: value for key, value in asdict(self).items() if key not in ("n_episodes", "num_workers")}


@dataclass(frozen=True)
class Attempt:
    """The outcome of one start; `episode` is its index in the dataset, None if it was not kept."""

    seed: int
    steps: int
    max_coverage: float
    episode: int | None
    task: str = TASK
    goal: str = ""
    alone: int = 0  # dagger: control steps before the expert took over, or until the policy succeeded without it
    removed: bool = False  # recorded, but its episode was later removed from the dataset by an edit

    @property
    def recorded(self) -> bool:
        """Whether it was good enough for an episode."""
        return self.episode is not None or self.removed

    @property
    def unaided(self) -> bool:
        """Whether a policy succeeded without the expert."""
        return self.alone > 0 and self.steps == 0


def collect(
    root: Path, config: CollectConfig, on_attempt: Callable[[Attempt, list[Attempt]], None] | None = None
) -> dict[str, Any]:
    """Fill the dataset at `root` up to `config.n_episodes` successful episodes; the summary, also in COLLECTION.

    `on_attempt(attempt, attempts)` is called after every start, with all attempts so far, including those of an
    interrupted run. `InputError` if `root` contains anything but a collection of the same configuration and policy.
    """
    scene = PushTConfig.from_mapping(config.scene)
    alone = scene.max_episode_steps if config.behaviour == "dagger" else 0
    scene = replace(scene, max_episode_steps=scene.max_episode_steps + alone)  # as long again for the expert
    env_factory = functools.partial(make_env, config.env, tuple(config.cameras), scene)
    probe = env_factory()
    interface = probe.interface
    probe.close()
    policy = None
    if config.policy is not None:
        policy = digest(config.policy)
        Learner(config.policy).require(interface)  # here, rather than in every worker
    attempts = _earlier_attempts(root, config, policy)
    executed = _records_both(root, config)
    with LeRobotWriter(root, interface, ROBOT_TYPES[config.env], config.codec, executed) as writer:
        attempts = attempts[: _complete(attempts, writer.num_episodes, root)]
        seeds = itertools.count(config.seed + len(attempts))
        if writer.num_episodes < config.n_episodes:
            behaviour = Behaviour(
                config.behaviour, config.noise, config.after_success, config.policy, config.patience, alone
            )
            with demonstrations(env_factory, seeds, behaviour, config.workers) as recorded:
                for demonstration in recorded:
                    attempts.append(_store(writer, demonstration, attempts, config, policy))
                    if on_attempt is not None:
                        on_attempt(attempts[-1], attempts)
                    if writer.num_episodes >= config.n_episodes:
                        break
                    _require_progress(attempts)
        summary = _summary(attempts, config, policy)
        _write_about(root, attempts, config, policy)
    return summary


def _earlier_attempts(root: Path, config: CollectConfig, policy: str | None) -> list[Attempt]:
    path = root / COLLECTION
    if not path.exists():
        if (root / "meta" / "info.json").exists():
            raise InputError(f"{root}: expected a new folder or a collection to continue, found another dataset")
        return []
    found = read_json(path)
    if "parts" in found:
        raise InputError(f"{path}: expected one collection to continue, found {len(found['parts'])} merged into one")
    stored = with_scene(found["config"])
    for key, value in config.identity().items():
        if key == "behaviour" and key not in stored and value == "expert":
            continue  # stored before there were others
        if key == "after_success" and stored.get(key, 0) == value:
            continue  # stored before it could be chosen
        if key in ("policy", "patience") and key not in stored:
            continue  # stored before there was dagger
        if key == "scene" and PushTConfig.from_mapping(stored.get(key, {})) == PushTConfig.from_mapping(value):
            continue  # equal scenes, whether defaults were stored or not
        if stored.get(key) != value:
            raise InputError(f"{path}: expected {key} {stored.get(key)!r} to continue, found {value!r}")
    known = found.get("policy_digest", policy)  # stored since a policy that plays is told by more than its name
    if known != policy:
        raise InputError(
            f"{path}: expected the policy that has played so far to continue, of digest {known}, found another one in "
            f"{config.policy}, of {policy}"
        )
    return [Attempt(**attempt) for attempt in found["attempts"]]


def _records_both(root: Path, config: CollectConfig) -> bool:
    """Whether executed actions are recorded beside those that were wanted: where they differ, unless an older
    collection without them is continued.
    """
    info = root / "meta" / "info.json"
    older = info.exists() and EXECUTED not in read_json(info)["features"]
    return Behaviour(config.behaviour).successes_only and not older


def _complete(attempts: list[Attempt], num_episodes: int, root: Path) -> int:
    """How many attempts end with the last whole episode, or with one that was removed."""
    episodes = [attempt.episode for attempt in attempts]
    if num_episodes > 0 and num_episodes - 1 not in episodes:
        count = sum(episode is not None for episode in episodes)
        raise InputError(f"{root / COLLECTION}: expected {num_episodes} episodes, as the dataset has, found {count}")
    done = [attempt.removed or attempt.episode in range(num_episodes) for attempt in attempts]
    return max((place + 1 for place, whole in enumerate(done) if whole), default=0)


def _store(
    writer: LeRobotWriter, new: Demonstration, attempts: list[Attempt], config: CollectConfig, policy: str | None
) -> Attempt:
    episode = writer.num_episodes if new.kept else None
    attempt = Attempt(new.seed, new.steps, new.max_coverage, episode, new.task, new.goal, new.alone)
    _write_about(writer.root, [*attempts, attempt], config, policy)
    if new.kept:
        known = {key: values for key, values in new.columns.items() if key != EXECUTED or key in writer.actions}
        writer.add_episode(known, new.images, new.task)
    return attempt


def _write_about(root: Path, attempts: list[Attempt], config: CollectConfig, policy: str | None) -> None:
    """Write the summary and, of corrections, that the expert leads in all their frames."""
    write_json(root / COLLECTION, _summary(attempts, config, policy))
    if config.behaviour == "dagger":
        kept = [attempt for attempt in attempts if attempt.episode is not None]
        entries = [{"episode": one.episode, "result": SUCCESS, "interventions": [[0, one.steps]]} for one in kept]
        write_json(root / RECORDINGS, entries)


def _require_progress(attempts: list[Attempt]) -> None:
    if len(attempts) >= MAX_FAILURES and not any(attempt.recorded for attempt in attempts[-MAX_FAILURES:]):
        if all(attempt.unaided for attempt in attempts[-MAX_FAILURES:]):
            raise Failure(f"policy: expected starts where it stalls, found {MAX_FAILURES} successes in a row")
        raise Failure(f"expert: expected successes, found {MAX_FAILURES} failures in a row")


def _summary(attempts: list[Attempt], config: CollectConfig, policy: str | None) -> dict[str, Any]:
    good = [attempt for attempt in attempts if attempt.episode is not None]
    recorded = sum(attempt.recorded for attempt in attempts)
    succeeded: dict[str, Any] = {}  # success is defined for the expert and for a policy alone
    if config.behaviour == "dagger":
        succeeded = {"unaided": sum(attempt.unaided for attempt in attempts), "policy_digest": policy}
    if config.behaviour == "expert":
        succeeded = {
            "successful": recorded,
            "success_rate": recorded / len(attempts) if attempts else None,
            "success_ci95": success_interval(recorded, len(attempts)) if attempts else None,
        }
    return {
        "attempted": len(attempts),
        "episodes": len(good),
        **succeeded,
        "median_steps": float(np.median([attempt.steps for attempt in good])) if good else None,
        "frames": sum(attempt.steps for attempt in good),
        "first_seed": config.seed,
        "last_seed": config.seed + len(attempts) - 1,
        "failed_seeds": [attempt.seed for attempt in attempts if not (attempt.recorded or attempt.unaided)],
        "git_commit": git_commit(),
        "config": asdict(config),
        "attempts": [asdict(attempt) for attempt in attempts],
    }
