"""Results of a world model: latents, errors of imagination, probes; as numbers and as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from rich.table import Table
from torch import Tensor

from vla_policy.evaluation.formats import interval
from vla_policy.evaluation.imagination.encoded_episodes import EncodedEpisode
from vla_policy.evaluation.imagination.errors import Imagined
from vla_policy.evaluation.imagination.probes import Probe, Quantity, degrees, millimetres, score
from vla_policy.evaluation.statistics import mean_interval
from vla_policy.interfaces import ENVIRONMENT_STATE, STATE, InputError
from vla_policy.world_model import latent_health

QUANTITIES = {
    "pusher": Quantity(slice(0, 2), "mm", millimetres),
    "block": Quantity(slice(2, 4), "mm", millimetres),
    "block angle": Quantity(slice(4, 6), "degrees", degrees),
}


def summarize_latents(recordings: Sequence[EncodedEpisode]) -> dict[str, Any]:
    """Collapse of the latents; `distance` from a Gaussian by principal direction, in order of variance."""
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
    """Mean squared errors of latents by model step, averaged over episodes, and paired differences."""
    errors = {
        name: torch.stack([episode.errors[name] for episode in imagined]).double().numpy()
        for name in imagined[0].predicted
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


def state_values(recording: EncodedEpisode) -> np.ndarray | None:
    """Targets of the probes (T, 6): pusher x, y and block x, y, cos, sin; None for episodes without them."""
    vectors = recording.vectors
    shapes = {key: vectors[key].shape[1:] for key in (STATE, ENVIRONMENT_STATE) if key in vectors}
    if shapes != {STATE: (2,), ENVIRONMENT_STATE: (4,)}:
        return None
    return np.concatenate([vectors[STATE], vectors[ENVIRONMENT_STATE]], axis=1).astype(np.float32)


def summarize_probes(probes: Mapping[str, Probe], recordings: Sequence[EncodedEpisode]) -> dict[str, Any] | None:
    """Errors by quantity and probe; None without probes."""
    if not probes:
        return None
    latents, values = [r.latents for r in recordings], [_values(r) for r in recordings]
    return {
        name: {kind: score(probe, latents, values, quantity) for kind, probe in probes.items()}
        for name, quantity in QUANTITIES.items()
    }


def summarize_imagined_state(
    probe: Probe | None, imagined: Sequence[Imagined], recordings: Sequence[EncodedEpisode]
) -> dict[str, Any] | None:
    """Errors of the state that the probe predicts from imagined latents; "seen": from the real latents."""
    if probe is None:
        return None
    by_episode = {recording.episode: _values(recording) for recording in recordings}
    found: dict[str, Any] = {}
    for name, quantity in QUANTITIES.items():
        errors: dict[str, list[np.ndarray]] = {}
        for episode in imagined:
            true = by_episode[episode.episode][episode.frames[:, 1:].numpy()][..., quantity.channels]
            for kind, latents in {**episode.predicted, "seen": episode.truth}.items():
                read = _read(probe, latents)[..., quantity.channels]
                errors.setdefault(kind, []).append(quantity.distance(read, true).mean(0))
        found[name] = {"unit": quantity.unit} | {kind: _by_step(np.stack(rows)) for kind, rows in errors.items()}
    return found


def _values(recording: EncodedEpisode) -> np.ndarray:
    values = state_values(recording)
    if values is None:
        raise InputError(f"episode {recording.episode}: expected {STATE} (2,) and {ENVIRONMENT_STATE} (4,)")
    return values


@torch.inference_mode()
def _read(probe: Probe, latents: Tensor) -> np.ndarray:
    values: np.ndarray = probe(latents.flatten(0, 1)).unflatten(0, latents.shape[:2]).numpy()
    return values


def world_model_tables(summary: Mapping[str, Any]) -> list[Table]:
    """Tables of the latents, of the errors by model step, and of the probes."""
    tables = [_latents_table(summary["latents"]), _errors_table(summary)]
    return [*tables, _probes_table(summary["probes"])] if summary["probes"] else tables


def _latents_table(latents: Mapping[str, Any]) -> Table:
    table = Table(title=f"Latents of {latents['n']} held-out frames", title_justify="left", show_header=False)
    distance = latents["distance_from_gaussian"]
    table.add_row("collapsed", "YES: all images have nearly the same latent" if latents["collapsed"] else "no")
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
    table = Table("", "probe", "median", "mean  [95 %]", "R2", title="Probes on latents of held-out episodes")
    table.title_justify = "left"
    for name, by in probes.items():
        for kind, found in by.items():
            r2 = "-" if found["r2"] is None else f"{found['r2']:.3f}"
            mean = f"{found['mean']:.1f} {interval(found['mean_ci95'], digits=1)}"
            shown = f"{name}, {found['unit']}" if kind == next(iter(by)) else ""
            table.add_row(shown, kind, f"{found['median']:.1f}", mean, r2, end_section=kind == "mean")
    return table
