"""LeWorldModel (arXiv 2603.19312): an encoder and a predictor trained end to end, from pixels, with one regulariser.

Loss: mean squared error of predicted latents + lambda * SIGReg. No stop-gradient, no averaged target, no decoder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla_policy.conf.world_model_config import WorldModelConfig
from vla_policy.data import Normalizer
from vla_policy.interfaces import ACTION, Interface
from vla_policy.models.checkpoint import load_weights, parse_config, read_checkpoint, restored, write_checkpoint
from vla_policy.models.encoder import module_name
from vla_policy.models.trainable import TrainableModel
from vla_policy.world_model.card import world_model_card
from vla_policy.world_model.predictor import Predictor, projector
from vla_policy.world_model.sigreg import sigreg
from vla_policy.world_model.vision import make_vision

KIND = "world_model"


class WorldModel(TrainableModel):
    """Encodes camera images and predicts the latents that follow from actions.

    `interface` has the cameras of `config.cameras`; the features of `config.auxiliary_keys` exist in training data
    only. A step of the model is `config.frame_skip` frames; the action of a step is that many consecutive commands.
    `card` is the content of the model card.
    """

    def __init__(
        self,
        config: WorldModelConfig,
        interface: Interface,
        normalizer: Normalizer,
        card: Mapping[str, Any] | None = None,
        visions: Sequence[nn.Module] | None = None,
    ) -> None:
        """`visions`, one per camera, are built from `config.vision` unless given."""
        super().__init__()
        self.config, self.normalizer = config, normalizer
        self.interface = interface.select(config.cameras)
        self.full_interface = interface.select([*config.cameras, *config.auxiliary_keys])
        sizes = {key: self.full_interface.observations[key].shape[0] for key in config.auxiliary_keys}
        normalizer.require({ACTION: self.interface.action.shape[0], **sizes})
        self.card = dict(card or {})
        self.visions = nn.ModuleList(visions or (make_vision(config.vision) for _ in config.cameras))
        features = sum(vision.features for vision in self.visions)  # type: ignore[misc]
        self.projector = projector(features, config.latent, config.projector)
        action = config.frame_skip * self.interface.action.shape[0]
        self.predictor = Predictor(config.latent, action, config.history, config.projector, config.predictor)
        self.readouts = nn.ModuleDict({module_name(key): nn.Linear(config.latent, sizes[key]) for key in sizes})
        self._frozen = {name for name, value in self.named_parameters() if not value.requires_grad}

    @property
    def device(self) -> torch.device:
        return self.predictor.position.device

    def encode(self, images: Mapping[str, Tensor]) -> Tensor:
        """Latents (..., D) of the cameras' images (..., H, W, 3) uint8 by key."""
        features, shape = [], None
        for key, vision in zip(self.config.cameras, self.visions, strict=True):
            frames = images[key].to(self.device)
            shape = frames.shape[:-3]
            features.append(vision(self._resized(frames.flatten(0, -4))))
        assert shape is not None
        latents: Tensor = self.projector(torch.cat(features, dim=-1)).float()
        return latents.unflatten(0, shape)

    def predict(self, latents: Tensor, actions: Tensor) -> Tensor:
        """The next latent after each of up to `history` latents (B, T, D), given commands (B, T, frame_skip, A)."""
        blocks = self.normalizer.normalize(ACTION, actions.to(self.device)).flatten(2)
        predicted: Tensor = self.predictor(latents, blocks).float()
        return predicted

    def imagine(self, latents: Tensor, past: Tensor, actions: Tensor) -> Tensor:
        """Latents (B, H, D) that follow from commands (B, H, frame_skip, A), predicted open loop.

        `latents` (B, T, D) are the last observed ones, oldest first, and `past` (B, T - 1, frame_skip, A) the commands
        between them. Each prediction is appended to the history of the next.
        """
        seen, commands, imagined = latents, past, []
        for step in range(actions.shape[1]):
            commands = torch.cat([commands, actions[:, step : step + 1]], dim=1)[:, -self.config.history :]
            seen = seen[:, -self.config.history :]
            following = self.predict(seen, commands)[:, -1:]
            imagined.append(following)
            seen = torch.cat([seen, following], dim=1)
        return torch.cat(imagined, dim=1)

    def loss(self, batch: Mapping[str, Any], generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The terms of a batch of whole windows: a scalar, and its parts by name."""
        latents, actions = self.encode_windows(batch)
        error = F.mse_loss(self.predict(latents[:, :-1], actions), latents[:, 1:])
        regulariser = sigreg(latents.transpose(0, 1), generator, self.config.sigreg_directions)
        loss = error + self.config.sigreg_weight * regulariser
        parts = {"prediction": error, "sigreg": regulariser, "copy_last": F.mse_loss(latents[:, :-1], latents[:, 1:])}
        if self.config.rollout_weight:
            imagined = self.imagine(latents[:, :1], actions[:, :0], actions)
            parts["rollout"] = F.mse_loss(imagined, latents[:, 1:])
            loss = loss + self.config.rollout_weight * parts["rollout"]
        for key in self.config.auxiliary_keys:
            truth = self.normalizer.normalize(key, batch[key][:, :: self.config.frame_skip].to(self.device))
            parts[f"auxiliary/{key}"] = F.mse_loss(self.readouts[module_name(key)](latents), truth)
            loss = loss + self.config.auxiliary_weight * parts[f"auxiliary/{key}"]
        return loss, {name: part.detach() for name, part in parts.items()}

    def read(self, key: str, latents: Tensor) -> Tensor:
        """What the latents (..., D) say of an auxiliary key, in its own units."""
        return self.normalizer.unnormalize(key, self.readouts[module_name(key)](latents).float())

    def encode_windows(self, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """Latents (B, n + 1, D) of every frame_skip-th frame of windows, and the commands between (B, n, skip, A)."""
        skip = self.config.frame_skip
        latents = self.encode({key: batch[key][:, ::skip] for key in self.config.cameras})
        return latents, batch[ACTION][:, : (latents.shape[1] - 1) * skip].unflatten(1, (-1, skip))

    def compiled_parts(self) -> list[nn.Module]:
        """Repeated layers, for regional compilation."""
        return [*self.predictor.layers, *(vision for vision in self.visions if self.config.vision.kind == "cnn")]

    def stored_state(self) -> dict[str, Tensor]:
        """The weights of a checkpoint, without a frozen encoder's, which are loaded from its path."""
        return {name: value for name, value in self.state_dict().items() if name not in self._frozen}

    def load_stored(self, weights: Mapping[str, Tensor], source: str) -> None:
        """Restore `stored_state`; `InputError` names the first difference of `source`."""
        rest = {name: value for name, value in self.state_dict().items() if name in self._frozen}
        load_weights(self, {**rest, **weights}, source)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the checkpoint's folder atomically; an existing one is replaced."""
        text = world_model_card(self.config, self.interface, self.stored_state(), self.card)
        stored = {KIND: self.config.to_dict(), "card": self.card}
        write_checkpoint(Path(folder), stored, self.full_interface, self.normalizer, self.stored_state(), text)

    @classmethod
    def from_pretrained(cls, name: str | Path) -> WorldModel:
        """Read a folder, or a repository of the Hugging Face hub if no such folder exists; ready to predict."""
        parts = read_checkpoint(name, KIND)
        config = parse_config(WorldModelConfig.from_dict, parts)
        frozen = [make_vision(config.vision) for _ in config.cameras] if config.vision.kind == "frozen" else None
        return restored(lambda: cls(config, parts.interface, parts.normalizer, parts.card, frozen), parts).eval()

    def _resized(self, frames: Tensor) -> Tensor:
        """Images (M, H, W, 3) resized for the encoder: (M, size, size, 3) float, 0 to 255."""
        size = (self.config.vision.image_size,) * 2
        images = frames.float()
        if images.shape[1:3] == size:
            return images
        small = F.interpolate(images.movedim(-1, 1), size, mode="bilinear", antialias=True, align_corners=False)
        return small.movedim(1, -1)


def fit_actions(columns: Mapping[str, np.ndarray], auxiliary_keys: Sequence[str] = ()) -> Normalizer:
    """Fit the normalisation of actions to zero mean and unit variance, as in LeWorldModel, and of auxiliary keys."""
    return Normalizer.fit({key: columns[key] for key in (ACTION, *auxiliary_keys)}, "mean_std")
