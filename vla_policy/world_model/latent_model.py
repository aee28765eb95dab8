"""A world model as the monitor's `LatentModel`: numpy in, numpy out, one observation at a time."""

from __future__ import annotations

import numpy as np
import torch

from vla_policy.interfaces import Observation
from vla_policy.world_model.model import WorldModel


class NumpyWorldModel:
    """A `monitoring.LatentModel` that encodes each observation once, even if several scores share it."""

    def __init__(self, model: WorldModel) -> None:
        self.model = model.eval()
        self.cameras = list(model.config.cameras)
        self.history, self.frame_skip = model.config.history, model.config.frame_skip
        self._last: tuple[Observation, np.ndarray] | None = None

    def encode(self, observation: Observation) -> np.ndarray:
        """The latent (D,); `InputError` for images that do not match the model's interface."""
        if self._last is None or self._last[0] is not observation:
            observation.check(self.model.interface)
            pictures = {
                key: torch.from_numpy(np.ascontiguousarray(observation.values[key]))[None].to(self.model.device)
                for key in self.cameras
            }
            with torch.inference_mode():
                self._last = observation, self.model.encode(pictures)[0].cpu().numpy()
        return self._last[1]

    def predict(self, latents: np.ndarray, commands: np.ndarray) -> np.ndarray:
        """The latent (D,) after latents (T, D) and commands (T, frame_skip, A)."""
        with torch.inference_mode():
            past = torch.from_numpy(latents).to(self.model.device)[None]
            given = torch.from_numpy(np.asarray(commands, np.float32)).to(self.model.device)[None]
            following: np.ndarray = self.model.predict(past, given)[0, -1].cpu().numpy()
        return following
