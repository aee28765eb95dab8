"""Calibrating the surprise monitor: nominal episodes played or recorded, and the threshold that they give."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sim import PushTConfig
from vla_policy.data import LeRobotDataset
from vla_policy.data.layout import COLLECTION
from vla_policy.evaluation.latents import encode_frames
from vla_policy.evaluation.options import RolloutOptions
from vla_policy.evaluation.surprise.detection import clean
from vla_policy.evaluation.surprise.episodes import env_with
from vla_policy.evaluation.surprise.study import CALIBRATION_TRACES, RECORDED, camera_names, check_latents
from vla_policy.evaluation.surprise.traces import Hear, Trace, load_traces, record
from vla_policy.interfaces import ACTION, InputError
from vla_policy.models import DiffusionPolicy
from vla_policy.monitoring import Calibration, calibrate, false_alarm_spread, least_successes
from vla_policy.monitoring.conformal import check_alpha
from vla_policy.utils.files import read_json
from vla_policy.world_model import WorldModel, nominal_whitening, save_calibration
from vla_policy.world_model.monitors import DETECTOR, EPISODE_SCORES


@dataclass
class CalibrateConfig(RolloutOptions):
    """A threshold for the surprise monitor."""

    alpha: float = 0.05  # false alarms an undisturbed successful episode, at most
    detector: str = DETECTOR
    """whitened_error: the world is not as expected; prediction_error: the same, with every direction of the
    latent counting alike; stillness: nothing has moved for long
    """
    dataset: str | None = None
    """a folder of recorded successful episodes in which this policy acted; null: play in simulation"""
    study: str | None = None
    """a folder of vla-eval surprise, whose calibration episodes are taken; null: play in simulation"""
    n_episodes: int = 100  # to play; the successful ones count
    seed: int = 60000  # of the first start; the others count up from it. Seeds from 100000 on are for evaluation
    num_envs: int = 8  # environments whose chunks are computed in batches
    scene: dict[str, Any] = field(default_factory=dict)  # what PushTConfig.from_mapping reads, see sim/config.py
    out: str = "outputs/calibrate/${now:%Y-%m-%d_%H-%M-%S}"  # folder of what is found

    def __post_init__(self) -> None:
        check_alpha(self.alpha)
        if self.detector not in EPISODE_SCORES:
            raise InputError(f"detector: expected one of {list(EPISODE_SCORES)}, found {self.detector!r}")
        if self.dataset is not None and self.study is not None:
            raise InputError("dataset, study: expected one of them at most, found both")
        least = least_successes(self.alpha)
        if self.dataset is None and self.study is None and self.n_episodes < least:
            raise InputError(
                f"n_episodes: expected at least the {least} successful episodes that alpha {self.alpha:g} needs, "
                f"found {self.n_episodes}"
            )


def nominal_traces(policy: DiffusionPolicy, world_model: str, config: CalibrateConfig, hear: Hear) -> list[Trace]:
    """Episodes of the policy in simulation, successful or not."""
    cameras = camera_names(policy, WorldModel.from_pretrained(world_model))
    env = functools.partial(env_with, cameras, PushTConfig.from_mapping(config.scene))
    seeds = range(config.seed, config.seed + config.n_episodes)
    return record(
        policy,
        env,
        world_model,
        seeds,
        num_envs=config.num_envs,
        num_workers=config.num_workers,
        seed=config.policy_seed,
        on_episode=hear[0],
        on_steps=hear[1],
    )


def study_traces(study: str, bound_to: Mapping[str, str]) -> list[Trace]:
    """The calibration episodes of a `vla-eval surprise`; `InputError` if they were recorded of something else."""
    recorded = read_json(Path(study) / RECORDED)
    for name, present in bound_to.items():
        if recorded.get(name) != present:
            raise InputError(f"study {study}: expected recordings of the {name} {present}, found {recorded.get(name)}")
    return load_traces(Path(study) / CALIBRATION_TRACES)


def recorded_traces(model: WorldModel, root: str) -> list[Trace]:
    """The episodes of a dataset in which the watched policy acted; all of them count as successful, and their actions
    as the commands that were given. `InputError` for demonstrations, which are neither.
    """
    dataset = LeRobotDataset(root)
    if (Path(root) / COLLECTION).exists():
        raise InputError(f"dataset {root}: expected recorded episodes of the policy, found those of vla-collect")
    model.interface.require(dataset.interface, "the world model", f"dataset {root}")
    return [_recorded(model, dataset, index) for index in dataset.episodes]


def _recorded(model: WorldModel, dataset: LeRobotDataset, index: int) -> Trace:
    frames = {key: dataset.frames(index, key) for key in model.config.cameras}
    commands = np.asarray(dataset.episode(index).columns[ACTION], np.float32)[:-1]
    return Trace(index, True, encode_frames(model, frames).numpy(), commands, {})


def calibrate_monitor(
    traces: Sequence[Trace], bound_to: Mapping[str, str], world_model: str, config: CalibrateConfig
) -> dict[str, Any]:
    """Write the calibration of the successful episodes into `config.out`; what it promises.

    An episode too short for a score cannot raise an alarm; leaving it out errs towards fewer alarms. `InputError` if
    the latents have collapsed, or if there are too few successful episodes: it says how many more.
    """
    model = WorldModel.from_pretrained(world_model)
    successes = [trace for trace in traces if trace.success]
    check_latents(successes)
    whitening = None
    if config.detector == DETECTOR:
        whitening = nominal_whitening(model, [(t.latents, t.commands) for t in successes])
    score = EPISODE_SCORES[config.detector]
    scores = [clean(score(model, t.latents, t.commands, whitening)) for t in successes]
    calibration = calibrate([s for s in scores if len(s)], config.alpha, config.detector, bound_to)
    promises = {"played": len(traces), "successful": len(successes), **promised(calibration)}
    save_calibration(calibration, Path(config.out), Path(world_model), whitening, promises=promises)
    return promises


def promised(calibration: Calibration) -> dict[str, Any]:
    """The rates of false alarms a successful episode, by name."""
    expected, below = false_alarm_spread(calibration.episodes, calibration.alpha)
    return {
        "guaranteed_rate": calibration.alpha,
        "expected_rate": expected,
        "rate_below_with_90_percent": below,
        "threshold": calibration.threshold,
        "threshold_episodes": calibration.episodes,
    }
