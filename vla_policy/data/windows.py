"""Training samples: windows of an episode around a time step, padded at its ends as in Diffusion Policy."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from vla_policy.data.dataset import LeRobotDataset
from vla_policy.data.format.findings import Finding, folded, listed
from vla_policy.data.frame_cache import open_cache
from vla_policy.data.quality import ColumnCheck
from vla_policy.data.takeovers import Takeovers, any_within, frames_before, led_frames
from vla_policy.data.video_frames import VideoFrames
from vla_policy.interfaces import ACTION, InputError

log = logging.getLogger(__name__)
REMAINING = "remaining"  # of a batch (B,) float32: frames that follow in the episode
LOGGED = 10  # kinds of warnings that are logged; `vla-dataset info` shows all
NO_CHANGE = Takeovers()


class WindowDataset(Dataset[dict[str, Any]]):
    """Windows [t - (n_obs_steps - 1), t - (n_obs_steps - 1) + horizon) of the moments t of episodes.

    A window extends at most n_obs_steps - 1 frames before its episode and `pad_after` after it, where the first or last
    frame is repeated. Diffusion Policy's pad_after is n_action_steps - 1, which omits an episode's last steps; with
    horizon - n_obs_steps none is omitted. With `whole`, only windows inside their episode are used. `keys` are the
    observations; `episodes` selects some of `dataset` (default: all); empty ones are skipped, and an `InputError` names
    all unreadable ones. Frames are decoded once into `cache_dir` (default `<root>/.cache`), or without `cache` from the
    videos on demand. Warnings about the data are logged and kept in `findings`; without `cache` images are not checked.
    `columns` has all values of each vector (N, D) float32, for fitting a normaliser. With `executed` the actions are
    what the robot was sent, where the dataset tells it from what was wanted. `takeovers` says how recorded ones are
    treated; `led` (len,) are the windows that begin in one, `dropped` counts those that were left out before one.

    A batch (`__getitems__`) is a dictionary: vectors float32 (B, n_obs_steps, D), images uint8
    (B, n_obs_steps, H, W, 3), `action` float32 (B, horizon, D) whose row 0 belongs to the first observation
    (beyond either end of the episode its first or last action is repeated), `remaining` float32 (B,), the frames that
    follow t in its episode, and `task`, a list of B sentences.
    """

    def __init__(
        self,
        dataset: LeRobotDataset,
        keys: Sequence[str],
        n_obs_steps: int,
        horizon: int,
        pad_after: int,
        episodes: Iterable[int] | None = None,
        cache_dir: str | Path | None = None,
        cache: bool = True,
        whole: bool = False,
        executed: bool = False,
        takeovers: Takeovers = NO_CHANGE,
    ) -> None:
        if not (n_obs_steps >= 1 and 0 <= pad_after <= horizon - n_obs_steps):
            raise InputError(
                "windows: expected n_obs_steps >= 1 and 0 <= pad_after <= horizon - n_obs_steps, "
                f"found n_obs_steps {n_obs_steps}, pad_after {pad_after}, horizon {horizon}"
            )
        self.dataset = dataset
        self.interface = dataset.interface.select(keys)
        self.episodes = list(dataset.episodes if episodes is None else episodes)
        self.n_obs_steps, self.horizon, self.pad_after = n_obs_steps, horizon, pad_after
        self.findings = [Finding(None, key, f"left out: {why}") for key, why in dataset.left_out.items()]
        self._skip_empty()
        self._read_columns(executed)
        self._open_frames(cache_dir, cache)
        self._index_windows(whole)
        self._treat_takeovers(takeovers)
        self._acting = np.arange(len(self))  # the window whose actions each window has: its own
        lines = folded(self.findings)
        for line in lines[:LOGGED]:
            log.warning("%s: %s", dataset.root, line)
        if len(lines) > LOGGED:
            log.warning("%s: and %d more kinds of warnings", dataset.root, len(lines) - LOGGED)

    def __len__(self) -> int:
        return len(self._moments)

    @property
    def probabilities(self) -> np.ndarray | None:
        """Of sampling each window (len,); None: every window occurs once per epoch."""
        return None if self.weights is None else self.weights / self.weights.sum()

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One sample: a batch of one without the batch axis."""
        return {key: value[0] for key, value in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int] | np.ndarray | torch.Tensor) -> dict[str, Any]:
        seen = self._frame_rows[self._rows(indices)[:, : self.n_obs_steps]]
        images = {key: torch.from_numpy(frames[seen]) for key, frames in self._frames.items()}
        return images | self.vectors(indices)

    def shuffle_actions(self, seed: int) -> None:
        """Permute the windows' actions, always alike: a control that can only be learnt by heart."""
        self._acting = np.random.default_rng(seed).permutation(len(self))

    def vectors(self, indices: Sequence[int] | np.ndarray | torch.Tensor) -> dict[str, Any]:
        """The batch without images."""
        seen, acting = self._rows(indices)[:, : self.n_obs_steps], self._rows(self._acting[np.asarray(indices)])
        batch: dict[str, Any] = {
            key: torch.from_numpy(values[acting if key == ACTION else seen]) for key, values in self.columns.items()
        }
        moments = self._moments[np.asarray(indices, np.int64)]
        batch[REMAINING] = torch.from_numpy((self._last[moments] - moments).astype(np.float32))
        batch["task"] = [self.dataset.tasks[task] for task in self._tasks[moments]]
        return batch

    @property
    def tasks(self) -> list[str]:
        """The sentences of the dataset's task table."""
        return [task for task in self.dataset.tasks if task]

    def window(self, index: int) -> tuple[int, int]:
        """Episode and time step t of a window."""
        moment = self._moments[index]
        episode = int(np.searchsorted(self._starts, moment, side="right")) - 1
        return self.episodes[episode], int(moment - self._first[moment])

    def _rows(self, indices: Sequence[int] | np.ndarray | torch.Tensor) -> np.ndarray:
        """Rows (B, horizon) of the columns; beyond either end of an episode its first or last one is repeated."""
        moments = self._moments[np.asarray(indices, np.int64), None]
        rows = moments + np.arange(self.horizon) - (self.n_obs_steps - 1)
        inside: np.ndarray = np.clip(rows, self._first[moments], self._last[moments])
        return inside

    def _read_columns(self, executed: bool) -> None:
        keys = [key for key, feature in self.interface.observations.items() if feature.dtype != "image"] + [ACTION]
        parts: dict[str, list[np.ndarray]] = {key: [] for key in [*keys, "task_index"]}
        check = ColumnCheck(self.dataset.fps)
        missing = self.dataset.missing_files(self.interface.cameras, self.episodes)
        bad = {finding.episode: str(finding) for finding in missing if finding.episode is not None}
        for index in self.episodes:
            try:
                episode = self.dataset.episode(index)
            except InputError as error:
                bad.setdefault(index, str(error))
                continue
            columns = {**episode.columns, ACTION: episode.executed} if executed else episode.columns
            check.add(index, {key: columns[key] for key in [*keys, "timestamp", "frame_index"]})
            for key, values in parts.items():
                values.append(columns[key])
        self._require_readable(bad)
        self.findings += check.findings()
        joined = {key: np.concatenate(values) for key, values in parts.items()} if self.episodes else {}
        self.columns = {key: np.ascontiguousarray(joined[key], np.float32) for key in keys if joined}
        self._tasks = joined.get("task_index", np.zeros(0, np.int64))

    def _skip_empty(self) -> None:
        empty = [index for index in self.dataset.episodes if self.dataset.length(index) == 0]
        self.findings += [Finding(index, "data", "no frames") for index in empty]
        self.episodes = [index for index in self.episodes if index not in empty]

    def _require_readable(self, bad: Mapping[int, str]) -> None:
        """`InputError` naming the bad episodes, if any."""
        if bad:
            hint = f"; data.exclude_episodes={sorted(bad)} leaves such episodes out"
            others = f" (bad episodes: {listed(bad)})" if len(bad) > 1 else ""
            raise InputError(next(iter(bad.values())) + others + (hint if len(bad) < len(self.episodes) else ""))

    def _open_frames(self, cache_dir: str | Path | None, cached: bool) -> None:
        self._frames: dict[str, np.ndarray | VideoFrames] = {}
        for key in self.interface.cameras:
            if not cached:
                next(self.dataset.iter_frames(self.episodes[0], key), None)  # fail early for images of another size
                self._frames[key] = VideoFrames(self.dataset, key)
                continue
            cache = open_cache(self.dataset, key, self.episodes, cache_dir)
            self._frames[key] = cache.frames
            self.findings += [finding for finding in cache.findings if finding.episode in self.episodes]

    def _index_windows(self, whole: bool) -> None:
        places = [self.dataset.rows(index) for index in self.episodes]
        lengths = np.array([place.stop - place.start for place in places], np.int64)
        self._starts = np.cumsum(lengths) - lengths
        self._first = np.repeat(self._starts, lengths)  # per row: first and last row of its episode
        self._last = np.repeat(self._starts + lengths - 1, lengths)
        shift = np.repeat(np.array([place.start for place in places], np.int64) - self._starts, lengths)
        self._frame_rows = np.arange(len(self._first)) + shift
        behind = self.horizon - self.n_obs_steps - self.pad_after  # frames that must follow a time step
        moments = np.arange(len(self._first))
        before = 0
        if whole:
            before, behind = self.n_obs_steps - 1, self.horizon - self.n_obs_steps
        self._moments = moments[(moments - before >= self._first) & (moments + behind <= self._last)]
        if len(self._moments) == 0:
            raise InputError(
                f"{self.dataset.root}: expected an episode of more than {before + behind} frames, "
                f"found {len(self.episodes)} episodes, the longest of {lengths.max(initial=0)}"
            )

    def _treat_takeovers(self, takeovers: Takeovers) -> None:
        """Leave out windows with actions of the policy before takeovers, and weigh those that begin in one."""
        led = [led_frames(self.dataset, index) for index in self.episodes]
        count = math.ceil(takeovers.drop_before * self.dataset.fps - 1e-6)
        before = np.concatenate([frames_before(frames, count) for frames in led])
        ends = np.minimum(self._moments + self.horizon - self.n_obs_steps, self._last[self._moments])
        past = self.n_obs_steps - 1 if takeovers.past else 0
        begins = np.maximum(self._moments - past, self._first[self._moments])
        kept = ~any_within(before, begins, ends)
        self.dropped = int((~kept).sum())
        self._moments = self._moments[kept]
        if not kept.any():
            seconds = f"{takeovers.drop_before:g} s"
            raise InputError(f"{self.dataset.root}: expected windows beyond {seconds} before takeovers, found none")
        self.led: np.ndarray = np.concatenate(led)[self._moments]
        self.weights = None if takeovers.weight == 1 else np.where(self.led, takeovers.weight, 1.0)
