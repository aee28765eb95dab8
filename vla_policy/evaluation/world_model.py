"""What a world model knows of episodes it was not trained on: where things are, what comes next, and for how long."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table
from torch import Tensor

from vla_policy.data import LeRobotDataset
from vla_policy.evaluation.imagination import Imagined, fit_linear, imagine_episode
from vla_policy.evaluation.imagination_pictures import draw_strip, fit_decoder, plot_errors
from vla_policy.evaluation.open_loop import held_out_episodes
from vla_policy.evaluation.probes import Affine, Probe, Quantity, degrees, fit_mlp, millimetres, ridge, score
from vla_policy.evaluation.recordings import Recording, record
from vla_policy.evaluation.report import git_commit, interval, write_json
from vla_policy.evaluation.statistics import mean_interval
from vla_policy.interfaces import ENVIRONMENT_STATE, STATE, InputError
from vla_policy.world_model import WorldModel, latent_health

QUANTITIES = {
    "pusher": Quantity(slice(0, 2), "mm", millimetres),
    "block": Quantity(slice(2, 4), "mm", millimetres),
    "block angle": Quantity(slice(4, 6), "degrees", degrees),
}
Tick = Callable[[str, int], None]  # name of a piece of work, how much there is; called once for each part done


@dataclass
class WorldModelEvalConfig:
    """The keys of `conf/world_model_eval.yaml`, explained there."""

    episodes: list[int] | None = None
    horizon: int = 8
    fit_episodes: int = 200
    mlp_steps: int = 2000
    decoder_steps: int = 1500
    seed: int = 0
    device: str = "auto"
    threads: int | None = None
    out: str = "outputs/world_model"

    def __post_init__(self) -> None:
        for key, least in {"horizon": 1, "fit_episodes": 1, "mlp_steps": 1, "decoder_steps": 0}.items():
            if getattr(self, key) < least:
                raise InputError(f"{key}: expected at least {least}, found {getattr(self, key)}")


def evaluate_world_model(
    model: WorldModel,
    dataset: LeRobotDataset,
    config: WorldModelEvalConfig,
    out: Path,
    checkpoint: str,
    tick: Tick = lambda name, total: None,
) -> dict[str, Any]:
    """Measure, and leave world_model.json, imagination.png and, with a decoder, strip.png in `out`; the summary."""
    chosen = held_out_episodes(config.episodes, model.card, dataset)
    fit_on = fitting_episodes(model, dataset, chosen, config.fit_episodes)
    recordings = _record(model, dataset, fit_on, "encoding training episodes", tick)
    held_out = _record(model, dataset, chosen, "encoding held-out episodes", tick)
    linear, average = fit_linear(model, recordings), torch.cat([r.latents for r in recordings]).mean(0)
    imagined = [imagine_episode(model, r, config.horizon, linear, average) for r in held_out]
    found = [episode for episode in imagined if episode is not None]
    if not found:
        frames = (config.horizon + model.config.history - 1) * model.config.frame_skip
        raise InputError(f"horizon: expected an episode of more than {frames} frames, found none in {chosen}")
    probes = fit_probes(recordings, config, tick)
    summary = {
        "checkpoint": checkpoint,
        "dataset": str(dataset.root),
        "episodes": chosen,
        "fit_episodes": fit_on,
        "seconds_per_step": model.config.frame_skip / dataset.fps,
        "latents": summarize_latents(held_out),
        "prediction": summarize_errors(found),
        "probes": summarize_probes(probes, held_out),
        "imagined_state": summarize_imagined_state(probes.get("mlp"), found, held_out),
        "ci95_method": "bootstrap (BCa, 9999 resamples of the episodes)",
        "git_commit": git_commit(),
    }
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "world_model.json", summary)
    plot_errors(summary).savefig(out / "imagination.png", dpi=150)
    if config.decoder_steps:
        decoder = fit_decoder(model, recordings, config.decoder_steps, config.seed, tick)
        decoder.save(out / "decoder.safetensors")
        draw_strip(decoder, model, held_out, found).save(out / "strip.png")
    return summary


def fitting_episodes(model: WorldModel, dataset: LeRobotDataset, held_out: Sequence[int], most: int) -> list[int]:
    """At most so many of the other episodes, evenly spaced; those that the checkpoint held out are never among them."""
    hidden = set(held_out)
    if (model.card.get("data") or {}).get("held_out_episodes"):
        hidden |= set(held_out_episodes(None, model.card, dataset))
    others = [index for index in range(dataset.num_episodes) if index not in hidden]
    if not others:
        raise InputError(f"{dataset.root}: expected episodes beside the held-out ones, found {dataset.num_episodes}")
    rows = np.linspace(0, len(others) - 1, min(most, len(others))).round().astype(int)
    return [others[row] for row in rows]


def _record(
    model: WorldModel, dataset: LeRobotDataset, episodes: Sequence[int], name: str, tick: Tick
) -> list[Recording]:
    recordings = []
    for recording in record(model, dataset, episodes):
        recordings.append(recording)
        tick(name, len(episodes))
    return recordings


def summarize_latents(recordings: Sequence[Recording]) -> dict[str, Any]:
    """Whether the latents collapsed; `distance` from a Gaussian by principal direction, the widest first."""
    latents = torch.cat([recording.latents for recording in recordings])
    health = latent_health(latents)
    return {
        "n": len(latents),
        "dimensions": latents.shape[1],
        "collapsed": health.collapsed,
        "effective_rank": health.rank,
        "variance": health.variance,
        "distance_from_gaussian": health.distance,
        "distance_of_a_gaussian_sample": 1.05 / len(latents),
    }


def summarize_errors(imagined: Sequence[Imagined]) -> dict[str, Any]:
    """Mean squared errors of a latent's numbers by model step, averaged over episodes; and paired differences."""
    errors = {
        name: torch.stack([episode.errors[name] for episode in imagined]).double().numpy()
        for name in imagined[0].foretold
    }
    model = errors["model"]
    return {
        "n_episodes": len(imagined),
        "n_windows": sum(len(episode.frames) for episode in imagined),
        "error": {name: _by_step(found) for name, found in errors.items()},
        "model_minus": {name: _by_step(model - found) for name, found in errors.items() if name != "model"},
    }


def _by_step(values: np.ndarray) -> dict[str, Any]:
    """Means over episodes of values (episodes, H), with intervals, by step and over all steps."""
    return {
        "mean": values.mean(0).tolist(),
        "ci95": [mean_interval(column) for column in values.T],
        "over_all_steps": float(values.mean()),
        "over_all_steps_ci95": mean_interval(values.mean(1)),
    }


def state_values(recording: Recording) -> np.ndarray | None:
    """What probes read (T, 6): pusher x, y and block x, y, cos, sin; None for episodes without them."""
    vectors = recording.vectors
    shapes = {key: vectors[key].shape[1:] for key in (STATE, ENVIRONMENT_STATE) if key in vectors}
    if shapes != {STATE: (2,), ENVIRONMENT_STATE: (4,)}:
        return None
    return np.concatenate([vectors[STATE], vectors[ENVIRONMENT_STATE]], axis=1).astype(np.float32)


def fit_probes(recordings: Sequence[Recording], config: WorldModelEvalConfig, tick: Tick) -> dict[str, Probe]:
    """A straight line, a small network and, knowing nothing, the mean; none where there is nothing to read."""
    read = [state_values(recording) for recording in recordings]
    values = [some for some in read if some is not None]
    if len(values) < len(read):
        return {}
    x, y = torch.cat([r.latents for r in recordings]), torch.from_numpy(np.concatenate(values))
    mlp = fit_mlp(x, y, config.mlp_steps, config.seed, lambda: tick("fitting the MLP probe", config.mlp_steps))
    return {"linear": ridge(x, y), "mlp": mlp, "mean": Affine(torch.zeros(x.shape[1], y.shape[1]), y.mean(0))}


def summarize_probes(probes: Mapping[str, Probe], recordings: Sequence[Recording]) -> dict[str, Any] | None:
    """Errors by quantity and probe; None without probes."""
    if not probes:
        return None
    latents, values = [r.latents for r in recordings], [_values(r) for r in recordings]
    return {
        name: {kind: score(probe, latents, values, quantity) for kind, probe in probes.items()}
        for name, quantity in QUANTITIES.items()
    }


def summarize_imagined_state(
    probe: Probe | None, imagined: Sequence[Imagined], recordings: Sequence[Recording]
) -> dict[str, Any] | None:
    """What the probe reads from imagined latents, against the truth at that time; "seen": from the real latents."""
    if probe is None:
        return None
    by_episode = {recording.episode: _values(recording) for recording in recordings}
    found: dict[str, Any] = {}
    for name, quantity in QUANTITIES.items():
        errors: dict[str, list[np.ndarray]] = {}
        for episode in imagined:
            true = by_episode[episode.episode][episode.frames[:, 1:].numpy()][..., quantity.channels]
            for kind, latents in {**episode.foretold, "seen": episode.truth}.items():
                read = _read(probe, latents)[..., quantity.channels]
                errors.setdefault(kind, []).append(quantity.distance(read, true).mean(0))
        found[name] = {"unit": quantity.unit} | {kind: _by_step(np.stack(rows)) for kind, rows in errors.items()}
    return found


def _values(recording: Recording) -> np.ndarray:
    values = state_values(recording)
    if values is None:
        raise InputError(f"episode {recording.episode}: expected {STATE} (2,) and {ENVIRONMENT_STATE} (4,)")
    return values


@torch.inference_mode()
def _read(probe: Probe, latents: Tensor) -> np.ndarray:
    values: np.ndarray = probe(latents.flatten(0, 1)).unflatten(0, latents.shape[:2]).numpy()
    return values


def world_model_tables(summary: Mapping[str, Any]) -> list[Table]:
    """Latents and probes; what is imagined, step by step."""
    tables = [_latents_table(summary["latents"]), _errors_table(summary)]
    return [*tables, _probes_table(summary["probes"])] if summary["probes"] else tables


def _latents_table(latents: Mapping[str, Any]) -> Table:
    table = Table(title=f"Latents of {latents['n']} held-out frames", title_justify="left", show_header=False)
    distance = latents["distance_from_gaussian"]
    table.add_row("collapsed", "YES: it cannot tell pictures apart" if latents["collapsed"] else "no")
    table.add_row("effective rank", f"{latents['effective_rank']:.1f} of {latents['dimensions']}")
    table.add_row("variance, mean over dimensions", f"{latents['variance']:.3f}")
    spread = f"{np.median(distance):.4f} / {max(distance):.4f}"
    table.add_row("distance of a direction from a Gaussian, median / largest", spread)
    table.add_row("  of a Gaussian sample of independent frames", f"{latents['distance_of_a_gaussian_sample']:.4f}")
    return table


def _errors_table(summary: Mapping[str, Any]) -> Table:
    found = summary["prediction"]
    error, less = found["error"], found["model_minus"]
    title = f"Squared error of imagined latents, {found['n_episodes']} episodes, {found['n_windows']} windows"
    table = Table("seconds", "model  [95 %]", *[name for name in error if name != "model"], title=title)
    table.title_justify = "left"
    table.add_column("model - linear  [95 %]")
    for step, mean in enumerate(error["model"]["mean"]):
        others = [f"{by['mean'][step]:.3f}" for name, by in error.items() if name != "model"]
        own = f"{mean:.3f} {interval(error['model']['ci95'][step])}"
        gain = f"{less['linear']['mean'][step]:+.3f} {interval(less['linear']['ci95'][step])}"
        table.add_row(f"{(step + 1) * summary['seconds_per_step']:.1f}", own, *others, gain)
    return table


def _probes_table(probes: Mapping[str, Any]) -> Table:
    table = Table("", "probe", "median", "mean  [95 %]", "R2", title="Read from latents of held-out episodes")
    table.title_justify = "left"
    for name, by in probes.items():
        for kind, found in by.items():
            r2 = "-" if found["r2"] is None else f"{found['r2']:.3f}"
            mean = f"{found['mean']:.1f} {interval(found['mean_ci95'], digits=1)}"
            shown = f"{name}, {found['unit']}" if kind == next(iter(by)) else ""
            table.add_row(shown, kind, f"{found['median']:.1f}", mean, r2, end_section=kind == "mean")
    return table
