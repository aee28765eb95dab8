"""Figures of imagination: the error over the horizon, and decoded frames beside real ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from vla_policy.data.rendering import INK, PAPER
from vla_policy.evaluation.imagination.encoded_episodes import EncodedEpisode
from vla_policy.evaluation.imagination.errors import Imagined
from vla_policy.world_model import WorldModel
from vla_policy.world_model.decoder import Decoder, DecoderConfig, train_decoder

COLOURS = {"model": "#1f5fa8", "linear": "#d17a22", "copy last": "#8a8a8a", "mean": "#c8c8c8", "seen": "#3a9a5b"}
BATCH = 24  # images per gradient step of the decoder
# Windows in the strip, by the quantile of their error.
SHOWN = {"small error": 0.1, "median error": 0.5, "large error": 0.9}


def plot_errors(summary: Mapping[str, Any]) -> Figure:
    """Latent error over the horizon and, with probes, the error of the imagined state."""
    panels = {"latent: mean squared error": summary["prediction"]["error"]}
    for name, by in (summary["imagined_state"] or {}).items():
        panels[f"{name}, probed: error, {by['unit']}"] = {k: v for k, v in by.items() if k != "unit"}
    figure = Figure((max(3.4 * len(panels), 6), 3.6), layout="constrained")
    for axes, (label, curves) in zip(np.ravel(figure.subplots(1, len(panels))), panels.items(), strict=True):
        _curves(axes, curves, summary["seconds_per_step"])
        axes.set_title(label, fontsize=10)
        axes.set(xlabel="seconds imagined", ylim=(0, None))
    curves = {line.get_label(): line for axes in figure.axes for line in axes.get_lines()}
    figure.legend(curves.values(), curves.keys(), loc="outside lower center", ncols=len(curves), frameon=False)
    count = summary["prediction"]["n_episodes"]
    figure.suptitle(
        f"Open-loop imagination, {count} held-out episodes (bands: 95 %); seen: from the real images", fontsize=10
    )
    return figure


def _curves(axes: Axes, curves: Mapping[str, Any], seconds: float) -> None:
    for name, curve in curves.items():
        times = seconds * np.arange(1, len(curve["mean"]) + 1)
        low, high = np.array(curve["ci95"], float).T
        axes.plot(times, curve["mean"], "o-", markersize=3, color=COLOURS[name], label=name)
        axes.fill_between(times, low, high, color=COLOURS[name], alpha=0.15, linewidth=0)


def fit_decoder(
    model: WorldModel, recordings: Sequence[EncodedEpisode], steps: int, seed: int, tick: Callable[[str, int], None]
) -> Decoder:
    """A decoder trained on the latents of the recordings; the world model is frozen."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    latents = torch.cat([recording.latents for recording in recordings])
    place = [(number, frame) for number, r in enumerate(recordings) for frame in range(len(r.latents))]

    def batch(size: int = BATCH) -> tuple[Tensor, Tensor]:
        rows = torch.randint(len(place), (size,), generator=generator)
        seen = [real_pictures(model, recordings[place[row][0]], [place[row][1]]) for row in rows.tolist()]
        return latents[rows], torch.cat(seen)

    background = batch(min(512, len(place)))[1].float().mean(0) / 255
    config = DecoderConfig(latents.shape[1], model.config.vision.image_size, len(model.config.cameras))
    decoder = Decoder(config, background)
    return train_decoder(decoder, batch, steps, on_step=lambda _: tick("training the decoder", steps))


def real_pictures(model: WorldModel, recording: EncodedEpisode, frames: Sequence[int]) -> Tensor:
    """The encoder's input at these frames: (B, cameras, S, S, 3) uint8."""
    size = (model.config.vision.image_size,) * 2
    seen = []
    for key in model.config.cameras:
        pictures = torch.from_numpy(recording.pictures[key][list(frames)])
        if pictures.shape[1:3] != size:
            channels_first = pictures.movedim(-1, 1).float()
            small = F.interpolate(channels_first, size, mode="bilinear", antialias=True, align_corners=False)
            pictures = small.round().to(torch.uint8).movedim(1, -1)
        seen.append(pictures)
    return torch.stack(seen, dim=1)


def draw_strip(
    decoder: Decoder, model: WorldModel, recordings: Sequence[EncodedEpisode], imagined: Sequence[Imagined]
) -> Image.Image:
    """For windows of small, median and large error: real frames, their reconstructions, and imagined frames.

    The second row is the best that the decoder can do; differences between it and the third are errors of imagination.
    """
    by_episode = {recording.episode: recording for recording in recordings}
    windows = [(episode, row) for episode in imagined for row in range(len(episode.frames))]
    errors = [float((e.predicted["model"][row] - e.truth[row]).square().mean()) for e, row in windows]
    order = np.argsort(errors)
    strips = []
    for name, rank in SHOWN.items():
        number = int(order[round(rank * (len(order) - 1))])
        episode, row = windows[number]
        recording, frames = by_episode[episode.episode], episode.frames[row].tolist()
        title = f"{name}: {errors[number]:.3f}, episode {episode.episode}, frame {frames[0]}"
        rows = {
            "real": real_pictures(model, recording, frames),
            "decoded": decoder.pictures(recording.latents[frames]),
            "imagined": decoder.pictures(torch.cat([recording.latents[frames[:1]], episode.predicted["model"][row]])),
        }
        strips.append(_strip(title, rows, model.config.frame_skip / model.interface.fps))
    canvas = Image.new("RGB", (strips[0].width, sum(strip.height for strip in strips)), PAPER)
    for number, strip in enumerate(strips):
        canvas.paste(strip, (0, number * strip.height))
    return canvas


def _strip(title: str, rows: Mapping[str, Tensor], seconds: float) -> Image.Image:
    """Rows of images (H + 1, cameras, S, S, 3), cameras stacked vertically, with a title and the time."""
    pictures = {name: row.transpose(0, 1).transpose(1, 2).flatten(0, 1).flatten(1, 2) for name, row in rows.items()}
    height, width = next(iter(pictures.values())).shape[:2]
    count = len(next(iter(rows.values())))
    left, top = 72, 42
    canvas = Image.new("RGB", (left + width, top + len(rows) * (height + 4) + 8), PAPER)
    draw = ImageDraw.Draw(canvas)
    draw.text((6, 4), title, INK, ImageFont.load_default(14))
    for step in range(count):
        draw.text((left + step * width // count + 4, 24), f"{step * seconds:.1f} s", INK, ImageFont.load_default(12))
    for number, (name, picture) in enumerate(pictures.items()):
        canvas.paste(Image.fromarray(picture.numpy()), (left, top + number * (height + 4)))
        draw.text((6, top + number * (height + 4) + height // 2), name, INK, ImageFont.load_default(12))
    return canvas
