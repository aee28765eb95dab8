"""A world model as the monitor's `LatentModel`: numpy in, numpy out, one observation at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from vla_policy.interfaces import Observation
from vla_policy.world_model.model import WorldModel


class NumpyWorldModel:
    """A `monitoring.LatentModel`; several scores may share one, each observation is encoded once.

    `encode_all` encodes the observations of many arms in one batch, for `encode` to look up.
    """

    def __init__(self, model: WorldModel) -> None:
        self.model = model.eval()
        self.cameras = list(model.config.cameras)
        self.history, self.frame_skip = model.config.history, model.config.frame_skip
        self._encoded: dict[int, tuple[Observation, np.ndarray]] = {}  # by id, which the stored observation keeps alive

    def encode(self, observation: Observation) -> np.ndarray:
        """The latent (D,); `InputError` for images that do not fit the model's interface."""
        if id(observation) not in self._encoded:
            self.encode_all([observation])
        return self._encoded[id(observation)][1]

    def encode_all(self, observations: Sequence[Observation]) -> np.ndarray:
        """The latents (N, D); they are kept until others are encoded."""
        for observation in observations:
            observation.check(self.model.interface)
        images = {
            key: torch.from_numpy(np.stack([observation.values[key] for observation in observations]))
            for key in self.cameras
        }
        with torch.inference_mode():
            latents: np.ndarray = self.model.encode(images).cpu().numpy()
        self._encoded = {
            id(observation): (observation, latent) for observation, latent in zip(observations, latents, strict=True)
        }
        return latents

    def predict(self, latents: np.ndarray, commands: np.ndarray) -> np.ndarray:
        """The latent (D,) after latents (T, D) and commands (T, frame_skip, A)."""
        with torch.inference_mode():
            past = torch.from_numpy(latents).to(self.model.device)[None]
            given = torch.from_numpy(np.asarray(commands, np.float32)).to(self.model.device)[None]
            following: np.ndarray = self.model.predict(past, given)[0, -1].cpu().numpy()
        return following
