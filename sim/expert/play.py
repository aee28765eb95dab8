"""Play: pushes in any direction near the block, for a world model that has to know what comes of bad ones, too."""

from __future__ import annotations

import numpy as np

from sim.geometry import T_SHAPE, WORKSPACE_HIGH, WORKSPACE_LOW, transform

AROUND = 0.08  # metres from the middle of the block within which a push ends
FASTEST = 0.03  # metres the target is ahead of the pusher at most, as the expert's is
LONGEST = 15  # steps before another place is chosen

_MIDDLE = np.array([T_SHAPE.centroid.coords[0]])


class RandomPushes:
    """Goes from one place near the block to the next, through the block where it lies in between."""

    def __init__(self, generator: np.random.Generator) -> None:
        self._generator = generator
        self._left = 0  # steps until another place is chosen

    def act(self, pusher: np.ndarray, block_pose: np.ndarray) -> np.ndarray:
        """The next target (2,) of the pusher in metres, from its position (2,) and the block's pose (3,)."""
        if self._left == 0:
            self._choose(block_pose)
        self._left -= 1
        way = self._place - pusher
        distance = float(np.linalg.norm(way))
        if distance < 0.5 * self._speed:
            self._left = 0
        return np.clip(pusher + way * min(1.0, self._speed / max(distance, 1e-9)), WORKSPACE_LOW, WORKSPACE_HIGH)

    def _choose(self, block_pose: np.ndarray) -> None:
        """Uniform in the disc around the block; one in five stays where it is for a while, as policies do."""
        middle = transform(_MIDDLE, block_pose)[0]
        angle, radius = self._generator.uniform(-np.pi, np.pi), AROUND * np.sqrt(self._generator.uniform())
        self._place = middle + radius * np.array([np.cos(angle), np.sin(angle)])
        self._speed = 0.0 if self._generator.uniform() < 0.2 else self._generator.uniform(0.2, 1.0) * FASTEST
        self._left = int(self._generator.integers(3, LONGEST + 1))
