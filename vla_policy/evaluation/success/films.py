"""Videos of episodes with instruction, step and coverage overlaid, what a planner imagined, and a contact sheet.

Only the chosen episodes are rendered, after the run: their recorded commands are replayed from the same seed, which in
a deterministic simulation reproduces the episode.
"""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain
from multiprocessing import get_context
from pathlib import Path

import gymnasium
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vla_policy.data.format.video import encode
from vla_policy.evaluation.success.plans import draw_plan
from vla_policy.rollouts.results import EpisodeResult, Start
from vla_policy.rollouts.workers import EnvFactory
from vla_policy.utils.files import write_whole

SHEET_COLUMNS = 6
_THUMBNAIL = 256  # pixels, width
_ALARM = (200, 40, 40)
_GOOD, _NEUTRAL, _INK, _PAPER = (46, 139, 87), (70, 110, 190), (20, 20, 20), (255, 255, 255)


@dataclass(frozen=True)
class Frame:
    """A frame of a video and the values shown with it."""

    picture: np.ndarray  # (H, W, 3) uint8
    step: int
    coverage: float
    success: bool
    surprise: str = ""  # a monitor's score and threshold, and whether it halted the arm
    halted: bool = False


def rank(results: Sequence[EpisodeResult]) -> list[EpisodeResult]:
    """Best first: successes by their number of steps, then failures by their largest coverage."""
    return sorted(results, key=lambda r: (not r.success, r.steps if r.success else -r.max_coverage, r.seed))


def choose(results: Sequence[EpisodeResult], count: int) -> dict[str, EpisodeResult]:
    """Up to `count` episodes, half from either end of the ranking: `best`, `worst`, `best_2`, `worst_2` and so on."""
    ranked = rank(results)
    count = min(count, len(ranked))
    chosen = {}
    for k in range(count):
        place = k // 2
        name = ("worst" if k % 2 else "best") + (f"_{place + 1}" if place else "")
        chosen[name] = ranked[-1 - place] if k % 2 else ranked[place]
    return chosen


def film(
    env_factory: EnvFactory, episodes: dict[str, EpisodeResult], out: Path, fps: float, processes: int = 0
) -> list[Path]:
    """Write `<name>.mp4` for each episode and `contact_sheet.png` of all to `out`; the paths written."""
    if not episodes:
        return []
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / f"{name}.mp4" for name in episodes]
    jobs = [
        (env_factory, episode, path, name, fps) for (name, episode), path in zip(episodes.items(), paths, strict=True)
    ]
    if processes > 1 and len(jobs) > 1:
        with ProcessPoolExecutor(min(processes, len(jobs)), mp_context=get_context("spawn")) as pool:
            rows = list(pool.map(_film_one, *zip(*jobs, strict=True)))
    else:
        rows = [_film_one(*job) for job in jobs]
    titles = [describe(name, episode) for name, episode in episodes.items()]
    sheet = out / "contact_sheet.png"
    contact_sheet(rows, titles).save(sheet)
    return [*paths, sheet]


def describe(name: str, episode: EpisodeResult) -> str:
    end = f"success after {episode.steps} steps" if episode.success else f"no success in {episode.steps} steps"
    task = f', "{episode.task}"' if episode.task else ""
    return f"{name.replace('_', ' ')}: seed {episode.seed}, {end}, max coverage {episode.max_coverage:.3f}{task}"


def _film_one(env_factory: EnvFactory, episode: EpisodeResult, path: Path, name: str, fps: float) -> list[np.ndarray]:
    """Write the mp4; the frames for the contact sheet, evenly spaced in time."""
    wanted = set(np.linspace(0, episode.steps, SHEET_COLUMNS).round().astype(int).tolist())
    kept = []

    def frames() -> Iterator[np.ndarray]:
        most = 0.0
        for frame in replay(env_factory, episode):
            most = max(most, frame.coverage)
            frame = _watched(frame, episode)
            picture = annotate(frame, f"{name.replace('_', ' ')}, seed {episode.seed}", most, episode.task)
            if frame.step in wanted:
                kept.append(picture)
            yield picture

    pictures = frames()
    first = next(pictures)
    write_whole(path, lambda file: encode(file, chain([first], pictures), first.shape, round(fps), "h264"))
    return kept


def replay(env_factory: EnvFactory, episode: EpisodeResult) -> Iterator[Frame]:
    """The episode's frames: the first one, and one after each step, with the plan that was played then."""
    env = env_factory()
    try:
        _, info = env.reset(seed=episode.seed, options=Start(episode.seed, episode.goal).options)
        yield _frame(env, 0, info, episode)
        for step, action in enumerate(episode.actions, start=1):
            _, _, _, _, info = env.step(action)
            yield _frame(env, step, info, episode)
    finally:
        env.close()
    if info["coverage"] != episode.final_coverage:
        warnings.warn(
            f"replay of seed {episode.seed}: expected the final coverage {episode.final_coverage:.4f}, "
            f"found {info['coverage']:.4f}; the video shows another episode",
            stacklevel=2,
        )


def _watched(frame: Frame, episode: EpisodeResult) -> Frame:
    """The frame with the monitor's score at its step, if there was a monitor."""
    if "surprise" not in episode.watched:
        return frame
    scores, threshold = episode.watched["surprise"][: frame.step + 1], float(episode.watched["threshold"])
    halted = bool((scores > threshold).any())
    score = "-" if np.isneginf(scores[-1]) else f"{scores[-1]:.1f}"
    text = f"surprise {score} (threshold {threshold:.1f}){', holding' if halted else ''}"
    return replace(frame, surprise=text, halted=halted)


def _frame(env: gymnasium.Env, step: int, info: dict, episode: EpisodeResult) -> Frame:
    picture = np.asarray(env.render(), np.uint8)
    if env.has_wrapper_attr("video") and (plan := episode.plan(step)):
        picture = draw_plan(picture, env.get_wrapper_attr("video"), plan)
    return Frame(picture, step, float(info["coverage"]), bool(info["is_success"]))


def annotate(frame: Frame, title: str, most: float, instruction: str = "") -> np.ndarray:
    """The image under a header: instruction (wrapped), title, step, surprise, coverage, its maximum and a bar of it."""
    height, width = frame.picture.shape[:2]
    size = max(8, width // 20)
    font = ImageFont.load_default(size)
    lines = _wrap(instruction, font, width - size)
    head = int(1.25 * size) * (len(lines) + bool(frame.surprise))
    strip = head + 3 * size + size // 2
    canvas = Image.new("RGB", (_even(width), _even(height + strip)), _PAPER)
    canvas.paste(Image.fromarray(frame.picture), (0, strip))
    draw = ImageDraw.Draw(canvas)
    colour = _GOOD if frame.success else _NEUTRAL
    coverage = f"coverage {frame.coverage:.3f} (max {most:.3f})"
    texts = [*((line, _INK) for line in lines), (f"{title}, step {frame.step}", _INK), (coverage, colour)]
    if frame.surprise:
        texts.insert(-1, (frame.surprise, _ALARM if frame.halted else _INK))
    for i, (text, ink) in enumerate(texts):
        draw.text((size // 2, size // 4 + i * int(1.25 * size)), text, ink, font)
    top = head + int(2.75 * size)
    draw.rectangle((size // 2, top, width - size // 2, top + size // 2), (225, 225, 225))
    filled = int((width - size) * min(max(frame.coverage, 0.0), 1.0))
    draw.rectangle((size // 2, top, size // 2 + filled, top + size // 2), colour)
    return np.asarray(canvas)


def _wrap(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    """Wrap to lines of at most `width` pixels; longer words are not broken."""
    columns = len(text)
    lines = textwrap.wrap(text, max(columns, 1), break_long_words=False)
    while columns > 1 and max(font.getlength(line) for line in lines) > width:
        columns -= 1
        lines = textwrap.wrap(text, columns, break_long_words=False)
    return lines


def contact_sheet(rows: Sequence[Sequence[np.ndarray]], titles: Sequence[str]) -> Image.Image:
    """Rows of images, each below its title."""
    thumbnails = [[_thumbnail(picture) for picture in row] for row in rows]
    height = max(picture.height for row in thumbnails for picture in row)
    columns = max(len(row) for row in thumbnails)
    margin, title = 6, 30
    width = columns * (_THUMBNAIL + margin) + margin
    sheet = Image.new("RGB", (width, len(rows) * (height + title + margin) + margin), _PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(20)
    for i, (row, text) in enumerate(zip(thumbnails, titles, strict=True)):
        top = margin + i * (height + title + margin)
        draw.text((margin, top), text, _INK, font)
        for j, picture in enumerate(row):
            sheet.paste(picture, (margin + j * (_THUMBNAIL + margin), top + title))
    return sheet


def _thumbnail(picture: np.ndarray) -> Image.Image:
    image = Image.fromarray(picture)
    return image.resize((_THUMBNAIL, round(image.height * _THUMBNAIL / image.width)), Image.Resampling.LANCZOS)


def _even(n: int) -> int:
    return n + n % 2  # yuv420p subsamples both axes
