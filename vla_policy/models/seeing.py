"""What a policy makes of observations: preprocessing, the cameras' encoder, the backbone, estimates from pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vla_policy.conf.policy_config import PolicyConfig
from vla_policy.data import ColorJitter, Normalizer, centre_crop, random_crop
from vla_policy.interfaces import Interface
from vla_policy.models.checks import check_vectors
from vla_policy.models.encoder import ObservationEncoder, Observed, module_name, vector_token
from vla_policy.models.frames import SEEN, ObjectFrame
from vla_policy.models.trainable import TrainableModel
from vla_policy.models.vlm.backbone import Backbone

# Batch entries with the precomputed output of a frozen backbone, as returned by `SeeingModel.read`.
BACKBONE_HIDDEN, BACKBONE_REAL = "backbone_hidden", "backbone_real"
TOLD = "told"  # in a batch: its auxiliary keys are what the pictures would have shown


class SeeingModel(TrainableModel):
    """A model whose observations become tokens for a transformer.

    `interface` has exactly the observations of `config.observation_keys`; `full_interface` also the features of
    `config.auxiliary_keys`, which exist in training data only. A `backbone` is given if and only if `config.backbone`
    is.
    """

    middle: Tensor

    def __init__(
        self, config: PolicyConfig, interface: Interface, normalizer: Normalizer, backbone: Backbone | None
    ) -> None:
        super().__init__()
        assert (backbone is None) == (config.backbone is None)
        self.config, self.normalizer = config, normalizer
        self.interface = interface.select(config.observation_keys)
        self.full_interface = interface.select([*config.observation_keys, *config.auxiliary_keys])
        self.frame = ObjectFrame(config.object_frame, self.full_interface) if config.object_frame else None
        check_vectors(self.full_interface, normalizer, config.rows, self.frame is not None)
        if self.frame is not None:
            stats = normalizer.stats[self.frame.key]
            extremes = torch.from_numpy(np.stack([stats["min"], stats["max"]])).float()
            self.register_buffer("middle", self.frame.middle(extremes), persistent=False)
        width = config.transformer.width
        self.encoder = ObservationEncoder(self.interface, config.n_obs_steps, width, config.encoder)
        self.backbone = backbone
        summary_width = self.encoder.summary_width
        if backbone is not None:
            self.backbone_norm = nn.LayerNorm(backbone.width)
            if config.shows_pictures:
                self.backbone_token = nn.Linear(backbone.width, width)
                self.backbone_context = nn.Linear(backbone.width, config.transformer.time_width)
            summary_width += backbone.width
        sizes = {key: interface.observations[key].shape[0] for key in config.auxiliary_keys}
        self.auxiliary = nn.ModuleDict(
            {
                module_name(key): nn.Sequential(nn.Linear(summary_width, 128), nn.GELU(), nn.Linear(128, size))
                for key, size in sizes.items()
            }
        )
        self.estimate_tokens = nn.ModuleDict(
            {module_name(key): vector_token(size, width) for key, size in sizes.items()}
        )
        strength = config.encoder.color_jitter if config.encoder else 0.0
        self.color_jitter = ColorJitter(strength, strength, strength) if strength else None

    @property
    def device(self) -> torch.device:
        return self.encoder.steps.device

    @property
    def acts_on_states(self) -> bool:
        """Whether what pictures show, if it sees any, reaches the transformer as estimates of auxiliary keys alone."""
        shown = self.config.encoder is not None and self.config.encoder.tokens and bool(self.encoder.cameras)
        return self.backbone is None and not shown

    @property
    def states(self) -> Interface:
        """Its interface with the auxiliary keys in the pictures' place."""
        return self.full_interface.select([*self.encoder.vectors, *self.config.auxiliary_keys])

    def observe(self, batch: Mapping[str, Any], generator: torch.Generator | None) -> Observed:
        """Tokens of a batch of raw observations (B, n_obs_steps, ...) by key and, for a backbone, `task`: B sentences.

        The estimate of each auxiliary key is a token as well. With a generator, the encoder's images get a random crop
        and colour jitter per sample; without, the centre crop. In a batch that is `TOLD` the auxiliary keys stand for
        the pictures.
        """
        steps, blind = self.config.image_steps, TOLD in batch
        looked, summary = ([], None) if blind else self.encoder.look(*self._pictures(batch, steps, generator))
        read, real, context, seen = [], None, None, None
        if self.backbone is not None:
            hidden, mask, seen = self.read(batch)
            hidden = self.backbone_norm(hidden)
            mean = (mask / mask.sum(1, keepdim=True))[:, None].to(hidden.dtype) @ hidden  # (B, 1, V)
            summary = mean if summary is None else torch.cat([summary, mean.expand(-1, summary.shape[1], -1)], dim=-1)
            if self.config.shows_pictures:
                read, context = [self.backbone_token(hidden)], self.backbone_context(mean[:, 0])
        told = {key: batch[key][:, -steps:].to(self.device) for key in self.config.auxiliary_keys if blind}
        estimates = {
            key: self.normalizer.normalize(key, told[key]) if blind else self._estimate(key, summary)
            for key in self.config.auxiliary_keys
        }
        values, pose = self._vectors(batch, estimates)
        places = self.encoder.steps[-steps:]
        guessed = [self.estimate_tokens[module_name(key)](values[key]) + places for key in estimates]
        encoded = [*self.encoder.read(values), *looked]
        joined = torch.cat([*encoded, *read, *guessed], dim=1)
        if read:
            real = torch.ones(joined.shape[:2], dtype=torch.bool, device=joined.device)
            first = sum(part.shape[1] for part in encoded)
            real[:, first : first + mask.shape[1]] = mask
        return Observed(joined, real, estimates, context, seen, pose)

    def read(self, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor, Any]:
        """The backbone's hidden states (B, L, V), their mask (B, L), and vision features."""
        assert self.backbone is not None
        if BACKBONE_HIDDEN in batch:
            return batch[BACKBONE_HIDDEN].to(self.device).float(), batch[BACKBONE_REAL].to(self.device), None
        cameras = self.interface.cameras
        seen = self.backbone.look([batch[key][:, -1].to(self.device) for key in cameras])
        hidden, real = self.backbone(seen, batch["task"], len(cameras))
        return hidden, real, seen

    def _pictures(
        self, batch: Mapping[str, Any], steps: int, generator: torch.Generator | None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The `steps` newest frames of the encoder's cameras, cropped, and the crops' corners."""
        images, corners = {}, {}
        for key in self.encoder.cameras:
            assert self.config.encoder is not None
            frames = batch[key].to(self.device, non_blocking=True)[:, -steps:]
            if generator is None:
                images[key], corners[key] = centre_crop(frames, self.config.encoder.crop)
            else:
                images[key], corners[key] = random_crop(frames, self.config.encoder.crop, generator)
                if self.color_jitter is not None:
                    images[key] = self.color_jitter(images[key] / 255.0, generator) * 255.0
        return images, corners

    def _vectors(
        self, batch: Mapping[str, Any], estimates: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        """Vectors (B, n, D) and estimates (B, image_steps, D) by key, normalised as the policy sees them, and the pose
        (B, 1, 4) of the object from which it does.

        Estimates are detached: only its own error trains one.
        """
        observed = {key: batch[key].to(self.device, non_blocking=True) for key in self.encoder.vectors}
        if self.frame is None:
            values = {key: self.normalizer.normalize(key, value) for key, value in observed.items()}
            return {**values, **{key: estimate.detach() for key, estimate in estimates.items()}}, None
        with torch.autocast(self.device.type, enabled=False):  # bfloat16 is coarser than a millimetre
            guessed = {key: self.normalizer.unnormalize(key, e.detach().float()) for key, e in estimates.items()}
            known = {**observed, **guessed}
            pose = known[self.frame.key][:, -1:]
            seen = self.frame.seen(known, pose, self.middle)
            return {key: self.normalizer.normalize(SEEN + key, value) for key, value in seen.items()}, pose

    def _estimate(self, key: str, summary: Tensor | None) -> Tensor:
        assert summary is not None  # PolicyConfig asks for a camera
        with torch.autocast(summary.device.type, enabled=False):  # bfloat16 is coarser than a millimetre
            estimate: Tensor = self.auxiliary[module_name(key)](summary.float())
        return estimate

    @torch.no_grad()  # not inference_mode: what the normaliser keeps of it may be trained with
    def estimates(self, batch: Mapping[str, Any], steps: int | None = None) -> dict[str, Tensor]:
        """What the pictures of raw observations (B, n_obs_steps, ...) say of each auxiliary key, in its own units: of
        those that the policy looks at (B, image_steps, D), or without a backbone of the `steps` newest.
        """
        if steps is None or self.backbone is not None:
            found = self.observe(batch, None).estimates
        else:
            _, summary = self.encoder.look(*self._pictures(batch, steps, None))
            found = {key: self._estimate(key, summary) for key in self.config.auxiliary_keys}
        return {key: self.normalizer.unnormalize(key, value) for key, value in found.items()}
