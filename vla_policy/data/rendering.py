"""Rendering of recorded episodes for viewing: frames of all cameras side by side with a caption."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from itertools import chain, islice
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vla_policy.data.dataset import LeRobotDataset
from vla_policy.data.format.video import encode
from vla_policy.interfaces import IMAGES, InputError
from vla_policy.utils.files import write_whole

PAPER, INK = (255, 255, 255), (20, 20, 20)
MIN_HEIGHT = 288  # pixels; smaller images are enlarged by an integer factor
SHEET_FRAMES = 20
SHEET_COLUMNS = 5


def save_episode(dataset: LeRobotDataset, index: int, out: Path) -> None:
    """Render an episode to `out`: all of it as .mp4, or a contact sheet of evenly spaced frames as .png.

    `InputError` for other suffixes, unknown episodes and datasets without cameras.
    """
    cameras = _cameras(dataset)
    if out.suffix not in (".mp4", ".png"):
        raise InputError(f"{out}: expected a file name ending in .mp4 or .png, found {out.suffix!r}")
    episode = dataset.episode(index)
    name = f"{dataset.root.name}, episode {index}"
    several_tasks = len({*episode.tasks}) > 1
    views = zip(*(dataset.iter_frames(index, key) for key in cameras), strict=True)
    if out.suffix == ".png":
        wanted = set(np.linspace(0, episode.length - 1, SHEET_FRAMES).round().astype(int).tolist())
        shown = [
            caption(
                side_by_side(frames),
                f"frame {t}, {t / dataset.fps:.1f} s",
                *([episode.tasks[t]] if several_tasks else []),
            )
            for t, frames in enumerate(views)
            if t in wanted
        ]
        sheet = contact_sheet(shown, f"{name}: {episode.task}")
        write_whole(out, lambda temporary: sheet.save(temporary, format="png"))
    else:
        captioned = (
            caption(
                side_by_side(frames),
                f"{name}: {episode.tasks[t]}",
                f"frame {t} of {episode.length}, {t / dataset.fps:.1f} s",
            )
            for t, frames in enumerate(views)
        )
        save_video(captioned, out, round(dataset.fps))


def save_frame(dataset: LeRobotDataset, index: int, frame: int, folder: Path) -> list[Path]:
    """Save one frame of each camera as PNG in `folder`; returns the paths.

    `InputError` for unknown frames and episodes and datasets without cameras.
    """
    length = dataset.episode(index).length
    if not 0 <= frame < length:
        raise InputError(f"{dataset.root}: expected a frame of episode {index} from 0 to {length - 1}, found {frame}")
    paths = []
    for key in _cameras(dataset):
        pixels = next(islice(dataset.iter_frames(index, key), frame, None))
        paths.append(folder / f"{key.removeprefix(IMAGES)}.png")
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(paths[-1], partial(Image.fromarray(pixels).save, format="png"))
    return paths


def _cameras(dataset: LeRobotDataset) -> list[str]:
    cameras = dataset.interface.cameras
    if not cameras:
        raise InputError(f"{dataset.root}: expected cameras, found none in {sorted(dataset.features)}")
    return cameras


def save_video(images: Iterable[np.ndarray], out: Path, fps: int) -> None:
    """Write images (H, W, 3) uint8 of one size with even sides as an mp4."""
    images = iter(images)
    first = next(images)
    write_whole(out, lambda temporary: encode(temporary, chain([first], images), first.shape, fps, "h264"))


def side_by_side(frames: Sequence[np.ndarray]) -> np.ndarray:
    """Frames (H, W, 3) uint8 in one row, small ones enlarged by an integer factor."""
    factors = [max(1, round(MIN_HEIGHT / frame.shape[0])) for frame in frames]
    large = [frame.repeat(factor, 0).repeat(factor, 1) for frame, factor in zip(frames, factors, strict=True)]
    height = max(frame.shape[0] for frame in large)
    return np.concatenate([np.pad(frame, ((0, height - frame.shape[0]), (0, 0), (0, 0))) for frame in large], axis=1)


def caption(image: np.ndarray, *lines: str) -> np.ndarray:
    """The image below lines of text, with even height and width for video."""
    height, width = image.shape[:2]
    size = max(10, min(16, width // 24))
    strip = len(lines) * (size + 4) + 4
    canvas = Image.new("RGB", (width + width % 2, height + strip + (height + strip) % 2), PAPER)
    canvas.paste(Image.fromarray(image), (0, strip))
    draw = ImageDraw.Draw(canvas)
    for row, line in enumerate(lines):
        draw.text((6, 2 + row * (size + 4)), _fit(line, width - 12, size), INK, ImageFont.load_default(size))
    return np.asarray(canvas)


def contact_sheet(images: Sequence[np.ndarray], title: str) -> Image.Image:
    """Images of one size in rows of `SHEET_COLUMNS`, under a title."""
    margin = 6
    height, width = images[0].shape[0] + margin, images[0].shape[1] + margin
    columns = min(SHEET_COLUMNS, len(images))
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * width + margin, rows * height + 36), PAPER)
    text = _fit(title, sheet.width - 2 * margin, 20)
    ImageDraw.Draw(sheet).text((margin, margin), text, INK, ImageFont.load_default(20))
    for i, image in enumerate(images):
        row, column = divmod(i, columns)
        sheet.paste(Image.fromarray(image), (margin + column * width, 36 + row * height))
    return sheet


def _fit(text: str, width: int, size: int) -> str:
    """The text, shortened to `width` pixels."""
    font = ImageFont.load_default(size)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."
