"""Calibration of the surprise monitor: its threshold, from nominal episodes that are run or were recorded."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vla_policy.data import LeRobotDataset
from vla_policy.data.format.layout import COLLECTION
from vla_policy.evaluation.latents import encode_frames
from vla_policy.evaluation.options import RolloutOptions, SceneOptions
from vla_policy.evaluation.surprise.detection import without_nan
from vla_policy.evaluation.surprise.environments import study_env
from vla_policy.evaluation.surprise.study import CALIBRATION_TRACES, RECORDED, camera_names, check_latents
from vla_policy.evaluation.surprise.traces import Trace, load_traces, record_traces
from vla_policy.interfaces import InputError
from vla_policy.models import DiffusionPolicy
from vla_policy.monitoring import Calibration, calibrate, false_alarm_spread, least_successes
from vla_policy.monitoring.conformal import check_alpha
from vla_policy.rollouts.progress import ProgressCallbacks
from vla_policy.utils.files import read_json
from vla_policy.world_model import WorldModel, nominal_whitening, save_calibration
from vla_policy.world_model.monitors import DETECTOR, EPISODE_SCORES


@dataclass
class CalibrateConfig(RolloutOptions, SceneOptions):
    """Calibration of the surprise monitor's threshold."""

    alpha: float = 0.05  # false-alarm rate per undisturbed successful episode, at most
    detector: str = DETECTOR
    """whitened_error: prediction error, whitened by that of nominal episodes; prediction_error: without whitening;
    stillness: nothing has moved for a while
    """
    dataset: str | None = None
    """folder of recorded successful episodes of this policy; null: run episodes in simulation"""
    study: str | None = None
    """folder of a vla-eval surprise, whose calibration episodes are used; null: run episodes in simulation"""
    n_episodes: int = 100  # to run; the successful ones count
    seed: int = 60000  # of the first start; the others count up from it. Seeds from 100000 on are for evaluation
    num_envs: int = 8  # environments whose chunks are computed in batches
    out: str = "outputs/calibrate/${now:%Y-%m-%d_%H-%M-%S}"  # folder of the results

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


def nominal_traces(
    policy: DiffusionPolicy, world_model: str, config: CalibrateConfig, callbacks: ProgressCallbacks
) -> list[Trace]:
    """Traces of episodes in simulation, successful or not."""
    cameras = camera_names(policy, WorldModel.from_pretrained(world_model))
    env = functools.partial(study_env, cameras, config.pusht)
    seeds = range(config.seed, config.seed + config.n_episodes)
    return record_traces(policy, env, world_model, seeds, config, callbacks)


def study_traces(study: str, bound_to: Mapping[str, str]) -> list[Trace]:
    """The calibration episodes of a `vla-eval surprise`; `InputError` unless they are of the same models."""
    recorded = read_json(Path(study) / RECORDED)
    for name, present in bound_to.items():
        if recorded.get(name) != present:
            raise InputError(f"study {study}: expected recordings of the {name} {present}, found {recorded.get(name)}")
    return load_traces(Path(study) / CALIBRATION_TRACES)


def recorded_traces(model: WorldModel, root: str) -> list[Trace]:
    """Traces of a dataset of the monitored policy; all episodes count as successful, and their actions as the commands.
    `InputError` for demonstrations, and for what the model was trained on, which surprises it less than what comes.
    """
    dataset = LeRobotDataset(root)
    if dataset.fingerprint() in (model.card.get("data") or {}).get("fingerprints", []):
        raise InputError(
            f"dataset {root}: expected episodes recorded after the world model was trained, in a folder of their own, "
            "found those of its training"
        )
    if (Path(root) / COLLECTION).exists():
        raise InputError(f"dataset {root}: expected recorded episodes of the policy, found those of vla-collect")
    model.interface.require(dataset.interface, "the world model", f"dataset {root}")
    return [_recorded_trace(model, dataset, index) for index in dataset.episodes]


def _recorded_trace(model: WorldModel, dataset: LeRobotDataset, index: int) -> Trace:
    frames = {key: dataset.frames(index, key) for key in model.config.cameras}
    commands = np.asarray(dataset.episode(index).executed, np.float32)[:-1]
    return Trace(index, True, encode_frames(model, frames).numpy(), commands, {})


def calibrate_monitor(
    traces: Sequence[Trace], bound_to: Mapping[str, str], world_model: str, config: CalibrateConfig
) -> dict[str, Any]:
    """Calibrate on the successful episodes and write the result to `config.out`; the false-alarm rates.

    An episode too short for a score cannot raise an alarm; ignoring it errs towards fewer alarms. `InputError` if the
    latents have collapsed, or if there are too few successful episodes: it states how many more are needed.
    """
    model = WorldModel.from_pretrained(world_model)
    successes = [trace for trace in traces if trace.success]
    check_latents(successes)
    whitening = None
    if config.detector == DETECTOR:
        whitening = nominal_whitening(model, [(t.latents, t.commands) for t in successes])
    score = EPISODE_SCORES[config.detector]
    scores = [without_nan(score(model, t.latents, t.commands, whitening)) for t in successes]
    calibration = calibrate([s for s in scores if len(s)], config.alpha, config.detector, bound_to)
    promises = {"played": len(traces), "successful": len(successes), **promised(calibration)}
    save_calibration(calibration, Path(config.out), Path(world_model), whitening, promises=promises)
    return promises


def promised(calibration: Calibration) -> dict[str, Any]:
    """False-alarm rates per successful episode, by name."""
    expected, below = false_alarm_spread(calibration.episodes, calibration.alpha)
    return {
        "guaranteed_rate": calibration.alpha,
        "expected_rate": expected,
        "rate_below_with_90_percent": below,
        "threshold": calibration.threshold,
        "threshold_episodes": calibration.episodes,
    }
