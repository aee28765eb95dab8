"""One evaluation of a policy: rollouts, latency, summary, videos, and their files."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sim import Disturbance, PushTConfig
from sim.disturbances import KINDS
from sim.language.instructions import named_goal
from vla_policy.evaluation.options import RolloutOptions, SceneOptions
from vla_policy.evaluation.statistics import success_interval
from vla_policy.evaluation.success.aftermath import watched_summary
from vla_policy.evaluation.success.films import choose, film
from vla_policy.evaluation.success.latency import KeepHistories, chunk_latency
from vla_policy.evaluation.success.report import refusal_rate, summarize, write_episodes
from vla_policy.evaluation.success.smoothness import smoothness
from vla_policy.evaluation.surprise.plot import plot_watched
from vla_policy.interfaces import Given, InputError, Policy
from vla_policy.planning.options import PlannerConfig, aimed, require_used
from vla_policy.rollouts.progress import ProgressCallbacks
from vla_policy.rollouts.results import EpisodeResult
from vla_policy.rollouts.rollout import Unreadable, rollout
from vla_policy.rollouts.watch import Watcher
from vla_policy.rollouts.workers import EnvFactory, PolicyFactory, RolloutError
from vla_policy.serving.options import ServerOptions, require_together
from vla_policy.utils.files import write_json

# best.mp4, best_2.mp4, and .best.mp4.<process>.tmp of an interrupted process
_FILMS = [("", ".mp4"), ("", "_[0-9]*.mp4"), (".", ".mp4.*.tmp"), (".", "_[0-9]*.mp4.*.tmp")]


@dataclass
class DisturbanceConfig:
    """A `sim.Disturbance`; none without a kind."""

    kind: str | None = None
    """block_teleport | pusher_teleport | recolour | light | camera_shift | frozen_camera | dropped_frames |
    dropped_actions | biased_actions | stuck_block | slippery_block | heavy_block | occluder | unknown_object
    """
    magnitude: float | None = None  # null: the kind's default
    step: int | None = None  # of the episode; null: drawn from its seed, 20 to 60


@dataclass
class EvalConfig(ServerOptions, RolloutOptions, SceneOptions):
    """Rollouts in simulation."""

    env: str = "pybullet"  # pybullet (the arm) | gym_pusht
    n_episodes: int = 50  # decided before the run; telling .7 from .8 takes 292 episodes each
    n_action_steps: int | None = None
    """control periods of a chunk that are executed before the next one; null: as in the checkpoint"""
    temperature: float | None = None
    """of a flow policy: standard deviation of the noise that a chunk is made of; null: as in the checkpoint"""
    draft: str | None = None
    """checkpoint of a smaller policy that drafts its action tokens, one chunk at a time: with num_envs=1"""
    delay: int = 0  # inference time in control periods
    chunking: str = "async"
    """what the arm does in that time: async (the previous chunk) | wait (it stands still) | ensemble (as async, with
    the mean of all chunks so far) | rtc (as async, with chunks that continue the previous one)
    """
    baseline: str | None = None  # hold | expert: run on the same starts, with or without a checkpoint
    videos: int = 2  # episodes to film: the best, the worst, the second best, ...
    latency_repeats: int = 100  # chunks timed, one observation at a time, after the rollouts
    update_card: bool = False  # write the result into the checkpoint's model card
    disturbance: DisturbanceConfig = field(default_factory=DisturbanceConfig)
    """happens once in every episode; kinds, units and defaults are in sim/effects.py"""
    monitor: str | None = None  # folder of a calibration (vla-calibrate); the monitor halts the arm
    planner: PlannerConfig = field(default_factory=PlannerConfig)  # see planner=dmpc, planner=oracle, planner=foresight
    check_instruction: bool = True
    """episodes whose instruction the policy cannot follow are not started, and count as failures"""
    out: str = "outputs/eval/${now:%Y-%m-%d_%H-%M-%S}"  # folder of the results

    def __post_init__(self) -> None:
        super().__post_init__()
        for key, least in {"n_episodes": 1, "seed": 0, "delay": 0, "videos": 0, "latency_repeats": 1}.items():
            if getattr(self, key) < least:
                raise InputError(f"{key}: expected at least {least}, found {getattr(self, key)}")
        require_together(self.server, self.draft, self.planner.name, self.chunking, self.monitor)
        if self.planner.name == "foresight" and not self.delay:
            raise InputError("delay: expected at least 1 with planner=foresight, which has nothing to foresee, found 0")
        if self.draft is not None and self.num_envs != 1:
            raise InputError(
                f"draft: expected num_envs=1, since a batch of chunks is not drafted, found {self.num_envs}"
            )
        if self.update_card and (self.monitor is not None or self.disturbance.kind is not None):
            raise InputError("update_card: expected undisturbed episodes without a monitor, found one of them")
        if self.update_card and (self.delay or self.chunking != "async"):
            raise InputError(f"update_card: expected chunks without delay, found {self.delay} and {self.chunking}")
        for name in ("n_action_steps", "temperature"):
            value = getattr(self, name)
            if value is not None and (self.monitor is not None or self.update_card or self.server):
                raise InputError(
                    f"{name}: expected null with a monitor, update_card or server, which are for the policy as it is, "
                    f"found {value}"
                )
        if self.planner.name != "none" and self.update_card:
            raise InputError(
                f"planner: expected none with update_card, which is for the policy, found {self.planner.name!r}"
            )
        if self.server and self.update_card:
            raise InputError(
                f"server: expected none with update_card, which needs the policy here, found {self.server}"
            )
        if self.temperature is not None and not 0 < self.temperature < math.inf:
            raise InputError(f"temperature: expected a number above 0, found {self.temperature}")
        require_used(self.planner, besides=["disc"])  # `_kept_out` counts who enters it
        self.planner = aimed(self.planner, self.pusht.goals, self.pusht.goal_pose)
        _ = self.event  # report a mistake before the policy is loaded

    @property
    def event(self) -> Disturbance | None:
        """The disturbance of every episode."""
        options = self.disturbance
        if options.kind is not None:
            return Disturbance(options.kind, options.magnitude, options.step)
        if options != DisturbanceConfig():
            raise InputError(f"disturbance.kind: expected one of {list(KINDS)} with magnitude or step, found none")
        return None

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
    callbacks: ProgressCallbacks = ProgressCallbacks(),  # noqa: B008, immutable
    timing: dict[str, Any] | None = None,
    watcher: Watcher | None = None,
    unreadable: Unreadable | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Run `config.seeds`, write summary.json, episodes.csv, videos and a contact sheet to `out`; the summary.

    With `policy_factory` (a policy per episode, see `rollout`) no latency is measured. `timing` describes the machine
    for the latency, `watcher` may halt arms, `more` is added to the summary. Episodes with an `unreadable` instruction
    are not started and count as failures. If a worker is lost, episodes.csv has the finished episodes, there is no
    summary, and `RolloutError` is raised.
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
            chunking=config.chunking,
            policy_factory=policy_factory,
            watcher=watcher,
            unreadable=unreadable,
            callbacks=callbacks,
        )
    except RolloutError as error:
        write_episodes(out / "episodes.csv", error.finished)
        raise
    seconds = time.perf_counter() - begin
    write_episodes(out / "episodes.csv", results)
    chunk_ms = None
    if kept.histories and config.planner.name != "oracle":  # which plans in the simulators, while it is asked to
        given = _given(policy, config) if config.chunking == "rtc" and config.delay else None
        chunk_ms = {**chunk_latency(policy, kept.histories, config.latency_repeats, given=given), **(timing or {})}
    summary = summarize(
        results,
        env=config.env,
        task=task,
        seed=config.seed,
        checkpoint=checkpoint,
        chunk_ms=chunk_ms,
        policy_seed=config.policy_seed,
        delay=config.delay,
        chunking=config.chunking,
        num_envs=config.num_envs,
        num_workers=config.num_workers,
        rollout_seconds=seconds,
        disturbance=None if config.event is None else asdict(config.event),
        **smoothness(results, policy.interface.fps),
        **_sentences(results, config.pusht),
        **_kept_out(results, config.planner),
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


def _given(policy: Policy, config: EvalConfig) -> Given:
    """As many rows to continue as there are in an episode; their values do not decide how long a chunk takes."""
    return Given(np.zeros((max(policy.n_action_steps, config.delay), *policy.interface.action.shape)), config.delay)


def _sentences(results: Sequence[EpisodeResult], scene: PushTConfig) -> dict[str, Any]:
    """In scenes with named goals, the kind of the instructions, and how many episodes' name no goal.

    `paraphrases` is None for an instruction of the user.
    """
    if not scene.goals:
        return {}
    nameless = {text for text in {r.task for r in results} if named_goal(text, scene) is None}
    return {
        "paraphrases": scene.paraphrases if scene.instruction is None else None,
        "episodes_naming_no_goal": sum(r.task in nameless for r in results),
    }


def _kept_out(results: Sequence[EpisodeResult], planner: PlannerConfig) -> dict[str, Any]:
    """In how many episodes the pusher's centre entered the disc that it was to keep out of."""
    if planner.disc is None:
        return {}
    x, y, radius = planner.disc
    entered = [bool((np.linalg.norm(r.path - [x, y], axis=-1) < radius).any()) for r in results]
    ci95 = success_interval(sum(entered), len(entered))
    return {"disc": list(planner.disc), "n_entered_disc": sum(entered), "entered_disc_ci95": ci95}


def _refusals(results: Sequence[EpisodeResult]) -> dict[str, Any]:
    """The rate of refused episodes, and their instructions."""
    refused = Counter(r.task for r in results if r.refused)
    return {**refusal_rate([r.refused for r in results]), "instructions": dict(refused)}


def _remove_old_results(out: Path) -> None:
    """Remove the results of an earlier run from `out`, and temporary files of a killed one."""
    films = [f"{hidden}{end}{kind}" for end in ("best", "worst") for hidden, kind in _FILMS]
    for pattern in ("summary.json", "episodes.csv", "contact_sheet.png", "surprise.png", *films):
        for path in out.glob(pattern):
            path.unlink()
