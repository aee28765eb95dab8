"""One evaluation from policy to files: rollouts, latency, summary, films."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sim import Disturbance, PushTConfig
from sim.disturbances import KINDS
from sim.instructions import named_goal
from vla_policy.evaluation.options import RolloutOptions
from vla_policy.evaluation.success.aftermath import watched_summary
from vla_policy.evaluation.success.films import choose, film
from vla_policy.evaluation.success.latency import KeepHistories, chunk_latency
from vla_policy.evaluation.success.report import refusal_rate, summarize, write_episodes
from vla_policy.evaluation.surprise.plot import plot_watched
from vla_policy.interfaces import InputError, Policy
from vla_policy.rollouts.results import EpisodeResult
from vla_policy.rollouts.rollout import Unreadable, rollout
from vla_policy.rollouts.watch import Watcher
from vla_policy.rollouts.workers import EnvFactory, PolicyFactory, RolloutError
from vla_policy.utils.files import write_json

# best.mp4, best_2.mp4, and .best.mp4.<process>.tmp where a film was interrupted
_FILMS = [("", ".mp4"), ("", "_[0-9]*.mp4"), (".", ".mp4.*.tmp"), (".", "_[0-9]*.mp4.*.tmp")]


@dataclass
class DisturbanceConfig:
    """A `sim.Disturbance`, or none without a kind."""

    kind: str | None = None
    """block_teleport | pusher_teleport | recolour | light | camera_shift | frozen_camera | dropped_frames |
    dropped_actions | biased_actions | stuck_block | slippery_block | heavy_block | occluder | unknown_object
    """
    magnitude: float | None = None  # null: the kind's default
    step: int | None = None  # of the episode; null: drawn from its seed, 20 to 60


@dataclass
class EvalConfig(RolloutOptions):
    """Rollouts in simulation."""

    env: str = "pybullet"  # pybullet (the arm) | gym_pusht
    n_episodes: int = 50  # decided before the run; .7 is told from .8 with 292 episodes each
    n_action_steps: int | None = None
    """control periods of a chunk that are played before the next one; null: as the policy says"""
    delay: int = 0  # control periods that a chunk takes; the one before is played on meanwhile
    baseline: str | None = None  # hold | expert: played on the same starts beside the checkpoint, or without one, alone
    videos: int = 2  # episodes to film: the best, the worst, the second best, ...
    latency_repeats: int = 100  # chunks timed, one observation at a time, after the rollouts
    update_card: bool = False  # write the result into the checkpoint's model card
    disturbance: DisturbanceConfig = field(default_factory=DisturbanceConfig)
    """happens once in every episode; kinds, units and defaults are in sim/effects.py"""
    monitor: str | None = None  # folder of a calibration (vla-calibrate): it holds the arm when it is surprised
    check_instruction: bool = True
    """episodes under an instruction that the policy cannot read are not begun, and count as failures"""
    scene: dict[str, Any] = field(default_factory=dict)  # what PushTConfig.from_mapping reads, see sim/config.py
    out: str = "outputs/eval/${now:%Y-%m-%d_%H-%M-%S}"  # folder of what is found

    def __post_init__(self) -> None:
        for key, least in {"n_episodes": 1, "seed": 0, "videos": 0, "latency_repeats": 1}.items():
            if getattr(self, key) < least:
                raise InputError(f"{key}: expected at least {least}, found {getattr(self, key)}")
        if self.update_card and (self.monitor is not None or self.disturbance.kind is not None):
            raise InputError("update_card: expected undisturbed episodes without a monitor, found one of them")
        if self.n_action_steps is not None and (self.monitor is not None or self.update_card):
            raise InputError(
                "n_action_steps: expected null where a monitor or the model card is of the policy as it is, found "
                f"{self.n_action_steps}"
            )
        _ = self.event  # a mistake is better met here than after the policy was loaded

    @property
    def event(self) -> Disturbance | None:
        """What is to happen in every episode."""
        asked = self.disturbance
        if asked.kind is not None:
            return Disturbance(asked.kind, asked.magnitude, asked.step)
        if asked != DisturbanceConfig():
            raise InputError(
                f"disturbance.kind: expected one beside magnitude or step, one of {list(KINDS)}, found none"
            )
        return None

    @property
    def pusht(self) -> PushTConfig:
        return PushTConfig.from_mapping(self.scene)

    @property
    def seeds(self) -> list[int]:
        return list(range(self.seed, self.seed + self.n_episodes))


def evaluate(
    policy: Policy,
    env_factory: EnvFactory,
    config: EvalConfig,
    out: Path,
    *,
    checkpoint: str,
    task: str,
    policy_factory: PolicyFactory | None = None,
    on_episode: Callable[[EpisodeResult], None] | None = None,
    on_steps: Callable[[int], None] | None = None,
    timing: dict[str, Any] | None = None,
    watcher: Watcher | None = None,
    unreadable: Unreadable | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Play `config.seeds` and leave summary.json, episodes.csv, films and a contact sheet in `out`; the summary.

    With `policy_factory` (a policy an episode, see `rollout`) no chunk is timed. `timing` describes the machine beside
    the measured latency, `watcher` may halt arms, `more` goes into the summary as it is. Episodes
    with an `unreadable` instruction are not begun and count as failures. If a worker is lost, episodes.csv has the
    finished episodes, there is no summary, and `RolloutError` is raised.
    """
    out.mkdir(parents=True, exist_ok=True)
    _remove_old_results(out)
    kept = KeepHistories(policy)
    begin = time.perf_counter()
    try:
        results = rollout(
            kept,
            env_factory,
            config.seeds,
            num_envs=config.num_envs,
            num_workers=config.num_workers,
            seed=config.policy_seed,
            delay=config.delay,
            policy_factory=policy_factory,
            watcher=watcher,
            unreadable=unreadable,
            on_episode=on_episode,
            on_steps=on_steps,
        )
    except RolloutError as error:
        write_episodes(out / "episodes.csv", error.finished)
        raise
    seconds = time.perf_counter() - begin
    write_episodes(out / "episodes.csv", results)
    chunk_ms = None
    if kept.histories:
        chunk_ms = {**chunk_latency(policy, kept.histories, config.latency_repeats), **(timing or {})}
    summary = summarize(
        results,
        env=config.env,
        task=task,
        seed=config.seed,
        checkpoint=checkpoint,
        chunk_ms=chunk_ms,
        policy_seed=config.policy_seed,
        delay=config.delay,
        num_envs=config.num_envs,
        num_workers=config.num_workers,
        rollout_seconds=seconds,
        disturbance=None if config.event is None else asdict(config.event),
        **_sentences(results, config.pusht),
        **watched_summary(results, config.monitor),
        **({} if unreadable is None else {"refusals": _refusals(results)}),
        **more,
    )
    write_json(out / "summary.json", summary)
    filmed = choose([result for result in results if not result.refused], config.videos)
    film(env_factory, filmed, out, policy.interface.fps, config.num_workers)
    if watcher is not None and filmed:
        plot_watched(filmed, policy.interface.fps, out / "surprise.png")
    return summary


def _sentences(results: Sequence[EpisodeResult], scene: PushTConfig) -> dict[str, Any]:
    """What kind of instructions were given where there are goals to name, and how many episodes' name none of them.

    `paraphrases` is None where all had one of the user's own.
    """
    if not scene.goals:
        return {}
    nameless = {text for text in {r.task for r in results} if named_goal(text, scene) is None}
    return {
        "paraphrases": scene.paraphrases if scene.instruction is None else None,
        "episodes_naming_no_goal": sum(r.task in nameless for r in results),
    }


def _refusals(results: Sequence[EpisodeResult]) -> dict[str, Any]:
    """How many episodes were refused, and under which instructions."""
    refused = Counter(r.task for r in results if r.refused)
    return {**refusal_rate([r.refused for r in results]), "instructions": dict(refused)}


def _remove_old_results(out: Path) -> None:
    """Nothing of an earlier run, nor what a kill left of its films, may lie beside the new numbers."""
    films = [f"{hidden}{end}{kind}" for end in ("best", "worst") for hidden, kind in _FILMS]
    for pattern in ("summary.json", "episodes.csv", "contact_sheet.png", "surprise.png", *films):
        for path in out.glob(pattern):
            path.unlink()
