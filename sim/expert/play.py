"""Play data: random pushes near the block, so that a world model also learns the outcome of bad actions."""

from __future__ import annotations

import numpy as np

from sim.geometry import T_SHAPE, WORKSPACE_HIGH, WORKSPACE_LOW, transform

AROUND = 0.08  # metres from the block's centre within which a push ends
FASTEST = 0.03  # largest lead of the target over the pusher, metres, as the expert's
LONGEST = 15  # steps before another target is sampled

_MIDDLE = np.array([T_SHAPE.centroid.coords[0]])


class RandomPushes:
    """Moves between random points near the block, pushing it when it is in between."""

    def __init__(self, generator: np.random.Generator) -> None:
        self._generator = generator
        self._left = 0  # steps until another target is sampled

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
        """Sample uniformly in the disc around the block; one in five stays in place, as policies sometimes do."""
        middle = transform(_MIDDLE, block_pose)[0]
        angle, radius = self._generator.uniform(-np.pi, np.pi), AROUND * np.sqrt(self._generator.uniform())
        self._place = middle + radius * np.array([np.cos(angle), np.sin(angle)])
        self._speed = 0.0 if self._generator.uniform() < 0.2 else self._generator.uniform(0.2, 1.0) * FASTEST
        self._left = int(self._generator.integers(3, LONGEST + 1))
