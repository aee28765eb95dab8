"""A world model on held-out episodes: probes of the state, and errors of open-loop imagination."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vla_policy.data import LeRobotDataset
from vla_policy.evaluation.imagination.encoded_episodes import EncodedEpisode, encode_episodes
from vla_policy.evaluation.imagination.errors import fit_linear, imagine_episode
from vla_policy.evaluation.imagination.pictures import draw_strip, fit_decoder, plot_errors
from vla_policy.evaluation.imagination.probes import Affine, Probe, fit_mlp, ridge
from vla_policy.evaluation.imagination.report import (
    state_values,
    summarize_errors,
    summarize_imagined_state,
    summarize_latents,
    summarize_probes,
)
from vla_policy.evaluation.options import ComputeOptions
from vla_policy.evaluation.success.open_loop import held_out_episodes, stated_episodes
from vla_policy.interfaces import InputError
from vla_policy.utils.files import write_json
from vla_policy.utils.provenance import git_commit
from vla_policy.world_model import WorldModel

Advance = Callable[[str, int], None]  # called once per completed part with the name and the total of a task


@dataclass
class WorldModelEvalConfig(ComputeOptions):
    """Evaluation of a world model."""

    episodes: list[int] | None = None  # e.g. [0,3,7]; null: the held-out ones that the checkpoint states
    horizon: int = 8  # model steps imagined open loop
    fit_episodes: int = 200  # of the others, at most, to fit the linear model, the probes and the decoder
    mlp_steps: int = 2000  # gradient steps of the MLP probe
    decoder_steps: int = 1500  # of the decoder, a few minutes on one core; 0: no imagined images
    seed: int = 0  # of the probes and the decoder
    out: str = "outputs/world_model/${now:%Y-%m-%d_%H-%M-%S}"  # folder of the results

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
    advance: Advance = lambda name, total: None,
) -> dict[str, Any]:
    """Write world_model.json, imagination.png and, with a decoder, strip.png to `out`; the summary."""
    chosen = held_out_episodes(config.episodes, model.card, dataset)
    fit_on = fitting_episodes(model, dataset, chosen, config.fit_episodes)
    recordings = _encode_episodes(model, dataset, fit_on, "encoding training episodes", advance)
    held_out = _encode_episodes(model, dataset, chosen, "encoding held-out episodes", advance)
    linear, average = fit_linear(model, recordings), torch.cat([r.latents for r in recordings]).mean(0)
    imagined = [imagine_episode(model, r, config.horizon, linear, average) for r in held_out]
    found = [episode for episode in imagined if episode is not None]
    if not found:
        frames = (config.horizon + model.config.history - 1) * model.config.frame_skip
        raise InputError(f"horizon: expected an episode of more than {frames} frames, found none in {chosen}")
    probes = fit_probes(recordings, config, advance)
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
        decoder = fit_decoder(model, recordings, config.decoder_steps, config.seed, advance)
        decoder.save(out / "decoder.safetensors")
        draw_strip(decoder, model, held_out, found).save(out / "strip.png")
    return summary


def fitting_episodes(model: WorldModel, dataset: LeRobotDataset, held_out: Sequence[int], most: int) -> list[int]:
    """At most `most` of the other episodes, evenly spaced; those that the checkpoint held out are never among them."""
    hidden = set(held_out) | set(stated_episodes(model.card, dataset))
    others = [index for index in dataset.episodes if index not in hidden]
    if not others:
        raise InputError(f"{dataset.root}: expected episodes that are not held out, found {dataset.num_episodes}")
    rows = np.linspace(0, len(others) - 1, min(most, len(others))).round().astype(int)
    return [others[row] for row in rows]


def _encode_episodes(
    model: WorldModel, dataset: LeRobotDataset, episodes: Sequence[int], name: str, advance: Advance
) -> list[EncodedEpisode]:
    recordings = []
    for recording in encode_episodes(model, dataset, episodes):
        recordings.append(recording)
        advance(name, len(episodes))
    return recordings


def fit_probes(
    recordings: Sequence[EncodedEpisode], config: WorldModelEvalConfig, advance: Advance
) -> dict[str, Probe]:
    """A linear probe, an MLP and the mean as a baseline; none if the dataset has no state."""
    read = [state_values(recording) for recording in recordings]
    values = [some for some in read if some is not None]
    if len(values) < len(read):
        return {}
    x, y = torch.cat([r.latents for r in recordings]), torch.from_numpy(np.concatenate(values))
    mlp = fit_mlp(x, y, config.mlp_steps, config.seed, lambda: advance("fitting the MLP probe", config.mlp_steps))
    return {"linear": ridge(x, y), "mlp": mlp, "mean": Affine(torch.zeros(x.shape[1], y.shape[1]), y.mean(0))}
