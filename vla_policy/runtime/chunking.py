"""What a policy that takes time is asked, and what is made of its chunks; the same in evaluations and on a robot."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import cast

import numpy as np

from vla_policy.interfaces import ActionChunk, ContinuingPolicy, Given, InputError, Observation, Policy
from vla_policy.runtime.timeline import STEP_ROUNDING, Timeline, row_at

CHUNKINGS = ("async", "wait", "ensemble", "rtc")
DELAYS = 10  # latest chunks, whose largest delay is expected of the next one
FORGETTING = 0.01  # per chunk, of an ensemble's weights (ACT's m)
JITTER = 1e-3  # seconds; cameras stamp a period apart to within microseconds


class Chunking:
    """Decides when the next chunk is asked for, what it continues, and what is played of it.

    - "async": the previous chunk is played until the next one comes, which is entered at the row that is due by then.
    - "wait": the arm stands still meanwhile, and the chunk begins with its first row when it comes: rows before that
      are repetitions of it, so that the chunk is still as old as its observation.
    - "ensemble": "async", with the mean of what all chunks say of a time, where the older ones weigh more (temporal
      ensembling, ACT, Zhao et al. 2023, arXiv 2304.13705).
    - "rtc": "async", with chunks that continue what is being executed (real-time chunking, Black et al. 2025,
      arXiv 2506.07339).

    The delay of a chunk is counted in control periods, on the clock of the stamps: the row at which it is entered.
    A chunk is asked for every `n_action_steps` control periods of `dt` seconds, or less often: one at a time.
    """

    def __init__(self, name: str, n_action_steps: int, dt: float) -> None:
        if name not in CHUNKINGS:
            raise InputError(f"chunking: expected one of {list(CHUNKINGS)}, found {name!r}")
        self.name = name
        self._n_action_steps, self._period = n_action_steps, n_action_steps * dt
        self._delays: deque[int] = deque(maxlen=DELAYS)  # kept by a reset: it is the same computer
        self._timeline = Timeline()
        self.reset()

    def reset(self) -> None:
        """Forget what is played and what was asked: the arm begins anew."""
        self._timeline.clear()
        self._chunks: list[ActionChunk] = []  # as predicted, oldest first, to average
        self._asked, self._next = False, -math.inf
        self._agrees = True  # what is played is for the task that chunks are asked for

    def forget(self) -> None:
        """Let nothing that was predicted for another task decide later chunks; what is played goes on."""
        self._chunks, self._agrees = [], False
        if self._asked:  # the answer would be for the other task
            self._asked, self._next = False, -math.inf

    @property
    def delay(self) -> int:
        """The delay to expect of the next chunk, in control periods: the largest of the latest ones."""
        return max(self._delays, default=0)

    def wanted(self, t: float) -> bool:
        """Whether a chunk should be asked for, from an observation at `t`, if none is being computed."""
        return t >= self._next - JITTER

    def ask(self, t: float) -> None:
        """Note that a chunk was asked for, from an observation at `t`."""
        self._asked, self._next = True, t + self._period

    def given(self, t: float) -> Given | None:
        """What a chunk from an observation at `t` should continue; None if it is free, as it is without a delay.

        Of what is played for another task it is what will have been executed by then.
        """
        if self.name != "rtc" or self.delay == 0:
            return None
        rows = self._timeline.ahead(t)
        frozen = min(self.delay, len(rows))
        return Given(rows if self._agrees else rows[:frozen], frozen) if len(rows) else None

    def answer(self, chunk: ActionChunk, now: float) -> ActionChunk | None:
        """What is to be played of the policy's chunk from `now` on.

        None if it was asked for before a reset or for another task.
        """
        if not self._asked:
            return None
        self._asked, delay = False, max(0, row_at(chunk, now))
        if self.name == "wait":
            chunk = self._waited(chunk, now)
            self._next = chunk.t_obs + len(chunk.actions) * chunk.dt
        elif self.name == "ensemble":
            chunk = self._mean(chunk)
        if self._timeline.offer(chunk, now):  # one that is over when it comes says nothing of the next one's delay
            self._delays.append(delay)
            self._agrees = True
        return chunk

    def _waited(self, chunk: ActionChunk, now: float) -> ActionChunk:
        """The chunk's first rows, due from the first whole step after `now` on."""
        late = max(0, math.ceil((now - chunk.t_obs) / chunk.dt - STEP_ROUNDING))
        rows = chunk.actions[: self._n_action_steps]
        return ActionChunk(np.concatenate([np.repeat(rows[:1], late, axis=0), rows]), chunk.t_obs, chunk.dt)

    def _mean(self, newest: ActionChunk) -> ActionChunk:
        """The newest chunk, averaged with what the earlier ones say of the times of its rows."""
        self._chunks = [c for c in self._chunks if row_at(c, newest.t_obs) < len(c.actions)] + [newest]
        total, weights = np.zeros_like(newest.actions), np.zeros((len(newest.actions), 1))
        for age, chunk in enumerate(self._chunks):  # ACT's w_i = exp(-m i), i = 0 for the oldest
            rows = chunk.actions[row_at(chunk, newest.t_obs) :][: len(total)]
            total[: len(rows)] += math.exp(-FORGETTING * age) * rows
            weights[: len(rows)] += math.exp(-FORGETTING * age)
        return ActionChunk(total / weights, newest.t_obs, newest.dt)


def predicted(
    policy: Policy,
    windows: Sequence[list[Observation]],
    given: Sequence[Given | None],
    generator: np.random.Generator,
) -> list[ActionChunk]:
    """A chunk for each window, which continues what is `given` with it."""
    if any(entry is not None for entry in given):
        return cast(ContinuingPolicy, policy).predict(windows, generator, given)
    return policy.predict(windows, generator)
