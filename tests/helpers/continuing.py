"""A policy whose chunks continue what the robot does meanwhile."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vla_policy.interfaces import ActionChunk, Given, Observation

DT = 0.1


class Continuing:
    """Its chunks begin with the rows that it is given, which it keeps, None for a chunk that was free; `rows` are its
    own.
    """

    def __init__(self) -> None:
        self.given: list[Given | None] = []

    def rows(self, history: Sequence[Observation], generator: np.random.Generator) -> np.ndarray:
        """What it would do (T, D) if nothing was given."""
        raise NotImplementedError

    def predict(
        self,
        histories: Sequence[Sequence[Observation]],
        generator: np.random.Generator,
        given: Sequence[Given | None] = (),
    ) -> list[ActionChunk]:
        return [
            self._chunk(history, entry, generator)
            for history, entry in zip(histories, given or [None] * len(histories), strict=True)
        ]

    def _chunk(
        self, history: Sequence[Observation], entry: Given | None, generator: np.random.Generator
    ) -> ActionChunk:
        rows = self.rows(history, generator)
        if entry is not None:
            rows[: entry.frozen] = entry.rows[: entry.frozen]
        self.given.append(entry)
        return ActionChunk(rows, history[-1].t, DT)
