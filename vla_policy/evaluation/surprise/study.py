"""The study of surprise: calibrate every detector on nominal episodes, then count false alarms and detections."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sim import Disturbance
from sim.disturbances import KINDS
from vla_policy.evaluation.options import RolloutOptions, SceneOptions
from vla_policy.evaluation.surprise.detection import (
    Scored,
    event_detection,
    failure_prediction,
    false_alarms,
    standardised,
    without_nan,
)
from vla_policy.evaluation.surprise.environments import study_env
from vla_policy.evaluation.surprise.traces import Trace, load_traces, record_traces, save_traces
from vla_policy.evaluation.surprise.watchers import IMAGINED
from vla_policy.interfaces import IMAGES, InputError, Observation
from vla_policy.models import DiffusionPolicy
from vla_policy.monitoring import (
    Calibration,
    CalibrationError,
    PredictionError,
    calibrate,
    false_alarm_counts,
    false_alarm_spread,
)
from vla_policy.planning.options import PlannerConfig, aimed, require_used
from vla_policy.planning.planners import planned
from vla_policy.rollouts.progress import Progress
from vla_policy.rollouts.scenes import with_scene
from vla_policy.utils.files import read_json, write_json
from vla_policy.utils.percentiles import percentiles
from vla_policy.utils.provenance import git_commit
from vla_policy.world_model import (
    NumpyWorldModel,
    RandomDistillation,
    WorldModel,
    binding,
    latent_health,
    latent_steps,
    nominal_whitening,
    prediction_errors,
    stillness,
)
from vla_policy.world_model.monitors import DETECTOR

RECORDED = "recorded.json"  # in a study's folder: the models and settings of its traces
CALIBRATION_TRACES = "traces/calibration.npz"
STRONGER = ("slippery_block@3", "heavy_block@20")  # at their defaults the block moves nearly as usual
STILL_COMMANDS = 40  # control steps; 30 to 60 predict failures of calibration episodes equally well


@dataclass
class SurpriseConfig(RolloutOptions, SceneOptions):
    """Detections and false alarms of the surprise monitor."""

    alpha: float = 0.05  # false-alarm rate per undisturbed successful episode, at most
    n_calibration: int = 400  # undisturbed episodes to calibrate on; the successful ones count
    calibration_seed: int = 60000  # of the first of them
    n_nominal: int = 200  # undisturbed held-out episodes
    n_events: int = 100  # held-out episodes of each event
    events: list[str] | None = None
    """some of the kinds that vla-eval rollout --help lists, or KIND@MAGNITUDE; null: all, two of them also at a
    larger magnitude
    """
    window: int = 30  # control steps after an event in which an alarm detects it
    planner: PlannerConfig = field(default_factory=PlannerConfig)
    """see planner=dmpc: who plays, and what it imagines is a score beside the others"""
    num_envs: int = 8  # environments whose chunks are computed in batches
    out: str = "outputs/surprise/${now:%Y-%m-%d_%H-%M-%S}"  # folder of the results

    def __post_init__(self) -> None:
        if self.planner.name not in ("none", "dmpc"):
            raise InputError(f"planner: expected none or dmpc, which imagines, found {self.planner.name!r}")
        require_used(self.planner)
        self.planner = aimed(self.planner, self.pusht.goals, self.pusht.goal_pose)
        for key in ("n_calibration", "n_nominal", "n_events", "window"):
            if getattr(self, key) < 1:
                raise InputError(f"{key}: expected at least 1, found {getattr(self, key)}")
        if set(self.calibration_seeds) & set(self.nominal_seeds):
            raise InputError("calibration_seed: expected seeds other than the held-out ones, found some of them")
        if self.n_events > self.n_nominal:
            raise InputError(
                f"n_events: expected at most n_nominal {self.n_nominal}, each is compared with the undisturbed episode "
                f"of its seed, found {self.n_events}"
            )
        if not self.disturbances:
            raise InputError(f"events: expected some of {list(KINDS)} or null for all, found none")

    @property
    def disturbances(self) -> dict[str, Disturbance]:
        """By the names that `Disturbance.parse` reads."""
        names = [*KINDS, *STRONGER] if self.events is None else self.events
        return {name: Disturbance.parse(name) for name in names}

    @property
    def calibration_seeds(self) -> range:
        return range(self.calibration_seed, self.calibration_seed + self.n_calibration)

    @property
    def nominal_seeds(self) -> range:
        return range(self.seed, self.seed + self.n_nominal)


def camera_names(policy: DiffusionPolicy, model: WorldModel) -> list[str]:
    """The cameras that the environment must have for both."""
    keys = dict.fromkeys([*policy.interface.cameras, *model.config.cameras])
    return [key.removeprefix(IMAGES) for key in keys]


@dataclass(frozen=True)
class Findings:
    """`summary` is surprise.json; `nominal` has the scored episodes by detector, `disturbed` by event and detector."""

    summary: dict[str, Any]
    nominal: dict[str, list[Scored]]
    disturbed: dict[str, dict[str, list[Scored]]]


def surprise_study(
    policy: DiffusionPolicy,
    policy_folder: str,
    world_model: str,
    config: SurpriseConfig,
    out: Path,
    progress: Progress,
) -> Findings:
    """Run the study of the policy in `policy_folder`, and write out/surprise.json.

    `InputError` if the world model's latents have collapsed, or if there are too few successes to calibrate on.
    """
    model = WorldModel.from_pretrained(world_model)
    _record_settings(out, config, binding(Path(policy_folder), Path(world_model), policy.interface))
    cameras, scene, player = camera_names(policy, model), config.pusht, planned(policy, config.planner)

    def traces(name: str, seeds: Sequence[int], disturbance: Disturbance | None = None) -> list[Trace]:
        path = out / "traces" / f"{name}.npz"
        if not path.exists():
            env = functools.partial(study_env, cameras, scene, disturbance, config.window)
            with progress(name, len(seeds)) as callbacks:
                save_traces(path, record_traces(player, env, world_model, seeds, config, callbacks))
        return load_traces(path)

    calibration = [t for t in traces("calibration", config.calibration_seeds) if t.success]
    check_latents(calibration)
    nominal, some = traces("nominal", config.nominal_seeds), config.nominal_seeds[: config.n_events]
    disturbed = {name: traces(name, some, event) for name, event in config.disturbances.items()}
    found = evaluate_detectors(make_detectors(model, calibration), nominal, disturbed, config)
    failing = evaluate_detectors(failure_detectors(calibration), nominal, {}, config).summary
    for part in ("nominal", "failure_prediction", "left_out"):
        found.summary[part] |= failing[part]
    found.summary["calibration"] = {"played": config.n_calibration, "successes": len(calibration)}
    found.summary["monitor_ms"] = monitor_ms(model)
    write_json(out / "surprise.json", found.summary)
    return found


@dataclass(frozen=True)
class Detector:
    """A score at each observation of a trace, and the nominal traces to calibrate it on."""

    score: Callable[[Trace], np.ndarray]
    calibration: Sequence[Trace]


def evaluate_detectors(
    detectors: Mapping[str, Detector],
    nominal: Sequence[Trace],
    disturbed: Mapping[str, Sequence[Trace]],
    config: SurpriseConfig,
) -> Findings:
    """Calibrate each detector, then evaluate it on held-out traces."""
    found = Findings(
        {
            "alpha": config.alpha,
            "window": config.window,
            "left_out": {},
            "nominal": {},
            "failure_prediction": {},
            "events": {name: {} for name in disturbed},
            "magnitudes": {name: Disturbance.parse(name).magnitude for name in disturbed},
            "git_commit": git_commit(),
        },
        {},
        {name: {} for name in disturbed},
    )
    for name, detector in detectors.items():
        try:
            scores = [without_nan(detector.score(t)) for t in detector.calibration]
            made = calibrate([s for s in scores if len(s)], config.alpha, name, {})
        except CalibrationError as error:
            if name == DETECTOR:
                raise
            found.summary["left_out"][name] = str(error)  # e.g. chunks that do not overlap have no inconsistency
            continue
        quiet = found.nominal[name] = [standardised(t, detector.score(t), made) for t in nominal]
        found.summary["nominal"][name] = false_alarms(quiet, made.threshold) | _promised(made, quiet)
        found.summary["failure_prediction"][name] = failure_prediction(quiet, made.threshold)
        for event, traces in disturbed.items():
            scored = found.disturbed[event][name] = [standardised(t, detector.score(t), made) for t in traces]
            found.summary["events"][event][name] = event_detection(scored, quiet, made.threshold, config.window)
    return found


def make_detectors(model: WorldModel, successes: Sequence[Trace]) -> dict[str, Detector]:
    """The world model's prediction error, whitened and not, and baselines: latent step, random network distillation
    (trained on a quarter of the episodes and calibrated on the others), pixel difference, chunk inconsistency; and the
    error of what a planner imagined, if one played.
    """
    whitening = nominal_whitening(model, [(t.latents, t.commands) for t in successes])
    distilled = RandomDistillation(np.concatenate([t.latents for t in successes[::4]]))
    others = [trace for index, trace in enumerate(successes) if index % 4]
    return {
        DETECTOR: Detector(lambda t: prediction_errors(model, t.latents, t.commands, whitening), successes),
        "prediction_error": Detector(lambda t: prediction_errors(model, t.latents, t.commands), successes),
        "latent_step": Detector(lambda t: latent_steps(model, t.latents), successes),
        "rnd": Detector(lambda t: distilled.score(t.latents), others),
        "pixels": Detector(lambda t: t.scores["pixel"], successes),
        "chunks": Detector(lambda t: t.scores["chunk"], successes),
        **({IMAGINED: Detector(lambda t: t.scores[IMAGINED], successes)} if IMAGINED in successes[0].scores else {}),
    }


def failure_detectors(successes: Sequence[Trace]) -> dict[str, Detector]:
    """Predictors of failure of an undisturbed policy: stillness of the latents and, without a world model, stillness of
    the commands and elapsed time. They are too slow to detect events.
    """
    return {
        "stillness": Detector(lambda t: stillness(t.latents), successes),
        "commands": Detector(lambda t: np.append(np.nan, stillness(t.commands, STILL_COMMANDS)), successes),
        "elapsed": Detector(lambda t: np.arange(t.steps + 1.0), successes),
    }


def check_latents(traces: Sequence[Trace]) -> None:
    """`InputError` if there are no traces to calibrate on, or the latents have collapsed."""
    if not traces:
        raise InputError("calibration: expected successful episodes, found none")
    health = latent_health(torch.from_numpy(np.concatenate([t.latents for t in traces])))
    if health.collapsed:
        raise InputError(
            f"world model: expected latents that differ between images, found collapsed ones ({health}); train it "
            "again with a larger world_model.sigreg_weight"
        )


def monitor_ms(model: WorldModel, repeats: int = 200) -> dict[str, float]:
    """Milliseconds of one streaming update of the whitened prediction error, on one thread."""
    whitening = np.stack([np.eye(model.config.latent, dtype=np.float32)] * model.config.history)
    score = PredictionError(NumpyWorldModel(model), whitening)
    rng, command, times = np.random.default_rng(0), np.zeros(model.interface.action.shape[0]), []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for step in range(repeats + 30):
        pictures = {
            key: rng.integers(0, 256, feature.shape, np.uint8) for key, feature in model.interface.observations.items()
        }
        begin = time.perf_counter()
        score.update(Observation(pictures, "", float(step)), command, None)
        times.append(1e3 * (time.perf_counter() - begin))
    torch.set_num_threads(threads)
    return {**percentiles(times[30:]), "threads": 1}


def _promised(calibration: Calibration, quiet: Sequence[Scored]) -> dict[str, Any]:
    """The false alarms that the calibration predicts."""
    expected, below = false_alarm_spread(calibration.episodes, calibration.alpha)
    n = sum(s.trace.success for s in quiet)
    return {
        "threshold": calibration.threshold,
        "expected_rate": expected,
        "rate_below_with_90_percent": below,
        "expected_count_ci95": false_alarm_counts(calibration.episodes, calibration.alpha, n),
        "calibration_episodes": calibration.episodes,
    }


def _record_settings(out: Path, config: SurpriseConfig, bound_to: Mapping[str, str]) -> None:
    """Write the models and settings of the traces to `out`; `InputError` if it has traces of others."""
    analysis = {"out", "alpha", "device", "threads", "events"}  # these do not affect the traces
    settings = {key: value for key, value in asdict(config).items() if key not in analysis} | dict(bound_to)
    settings["magnitudes"] = {kind: Disturbance(kind).magnitude for kind in KINDS}
    path = out / RECORDED
    if path.exists():
        for key, value in {"planner": asdict(PlannerConfig()), **with_scene(read_json(path))}.items():
            if settings.get(key) != value:
                raise InputError(f"{path}: expected {key} {value!r} to continue with, found {settings.get(key)!r}")
    write_json(path, settings)
