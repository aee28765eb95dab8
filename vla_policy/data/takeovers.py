"""Recorded takeovers in training: somebody led in the policy's place, and before that the policy did something wrong.

Takeovers are what to learn from, and are sampled more often (as in IWR, Mandlekar et al. 2020); what the policy did
just before one is not to be imitated (as in Sirius, Liu et al. 2023).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vla_policy.data.dataset import LeRobotDataset
from vla_policy.interfaces import InputError
from vla_policy.utils.recordings import RECORDINGS


@dataclass(frozen=True)
class Takeovers:
    """`weight` is how many times as often a window that begins in a takeover is sampled as another one. No action of
    the policy in the last `drop_before` seconds before a takeover, rounded up to frames, is the target of a window;
    with `past` those before the window's moment are targets too, as of a policy with `predict_past`.
    """

    weight: float = 1.0
    drop_before: float = 0.0
    past: bool = True


def led_frames(dataset: LeRobotDataset, index: int) -> np.ndarray:
    """Whether somebody led in the policy's place, for each frame of an episode (T,).

    `InputError` for a takeover that the episode is too short for.
    """
    led = np.zeros(dataset.length(index), bool)
    for first, last in dataset.interventions.get(index, ()):
        if last > len(led):
            where = f"{dataset.root / RECORDINGS}, episode {index}"
            raise InputError(f"{where}: expected interventions within {len(led)} frames, found {first} to {last}")
        led[first:last] = True
    return led


def frames_before(led: np.ndarray, count: int) -> np.ndarray:
    """Of (T,) frames those up to `count` before a takeover, but for those that are in another one."""
    before = np.zeros_like(led)
    for first in np.flatnonzero(np.diff(led, prepend=False) & led):
        before[max(0, first - count) : first] = True
    alone: np.ndarray = before & ~led
    return alone


def any_within(flags: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Whether any of the flags (N,) between two rows, both included, is set, for M pairs of rows: (M,)."""
    counts = np.concatenate([[0], np.cumsum(flags)])
    found: np.ndarray = counts[last + 1] > counts[first]
    return found
