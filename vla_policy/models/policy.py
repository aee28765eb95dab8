"""The action diffusion policy: observations in, action chunks out; trained by `loss`, stored as a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla_policy.data import ColorJitter, Normalizer, centre_crop, random_crop
from vla_policy.interfaces import ACTION, STATE, ActionChunk, InputError, Interface, Observation
from vla_policy.models.checkpoint import load_weights, read_checkpoint, write_checkpoint
from vla_policy.models.config import PolicyConfig
from vla_policy.models.encoder import ObservationEncoder, module_name, vector_token
from vla_policy.models.objectives import make_objective
from vla_policy.models.transformer import ActionTransformer


class DiffusionPolicy(nn.Module):
    """An `interfaces.Policy`: observation encoder, action diffusion transformer, objective and preprocessing.

    `interface` has exactly the observations of `config.observation_keys`; `auxiliary` the features of
    `config.auxiliary_keys`, which exist in training data only. `card` holds what the model card says.
    """

    def __init__(
        self,
        config: PolicyConfig,
        interface: Interface,
        normalizer: Normalizer,
        card: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        auxiliary = interface.select(config.auxiliary_keys).observations
        self.config, self.normalizer = config, normalizer
        self.interface = interface.select(config.observation_keys)
        self.full_interface = interface.select([*config.observation_keys, *config.auxiliary_keys])
        self.n_obs_steps, self.n_action_steps = config.n_obs_steps, config.n_action_steps
        self.card: dict[str, Any] = dict(card or {})
        if config.action_relative:
            _check_relative(self.interface)
        width = config.transformer.width
        self.encoder = ObservationEncoder(self.interface, config.n_obs_steps, width, config.encoder)
        self.transformer = ActionTransformer(interface.action.shape[0], config.horizon, config.transformer)
        self.auxiliary = nn.ModuleDict(
            {
                module_name(key): nn.Sequential(
                    nn.Linear(self.encoder.summary_width, 128), nn.GELU(), nn.Linear(128, feature.shape[0])
                )
                for key, feature in auxiliary.items()
            }
        )
        self.estimate_tokens = nn.ModuleDict(
            {module_name(key): vector_token(feature.shape[0], width) for key, feature in auxiliary.items()}
        )
        self.objective = make_objective(config.objective)
        strength = config.encoder.color_jitter
        self.color_jitter = ColorJitter(strength, strength, strength) if strength else None

    @property
    def device(self) -> torch.device:
        return self.transformer.position.device

    def observe(self, batch: Mapping[str, Any], generator: torch.Generator | None) -> tuple[Tensor, dict[str, Tensor]]:
        """Tokens (B, N, W) of a batch of raw observations (B, n_obs_steps, ...) by key, and what the cameras say of
        each auxiliary key: normalised estimates (B, image_steps, D), which are tokens as well.

        With a generator, images are cropped at random and change colour, each sample its own way; without, the crop is
        in the middle.
        """
        values, corners = {}, {}
        newest = self.config.image_steps
        for key, feature in self.interface.observations.items():
            value = batch[key].to(self.device, non_blocking=True)
            if feature.dtype != "image":
                values[key] = self.normalizer.normalize(key, value)
                continue
            value = value[:, -newest:]
            if generator is None:
                values[key], corners[key] = centre_crop(value, self.config.encoder.crop)
            else:
                values[key], corners[key] = random_crop(value, self.config.encoder.crop, generator)
                if self.color_jitter is not None:
                    values[key] = self.color_jitter(values[key] / 255.0, generator) * 255.0
        tokens, summary = self.encoder(values, corners)
        estimates = {key: self._estimate(key, summary) for key in self.config.auxiliary_keys}
        # Detached, so that an estimate stays one: only its own error trains it.
        steps = self.encoder.steps[-newest:]
        more = [self.estimate_tokens[module_name(k)](e.detach()) + steps for k, e in estimates.items()]
        return torch.cat([tokens, *more], dim=1), estimates

    def _estimate(self, key: str, summary: Tensor | None) -> Tensor:
        assert summary is not None  # PolicyConfig asks for a camera
        with torch.autocast(summary.device.type, enabled=False):  # bfloat16 is coarser than a millimetre
            estimate: Tensor = self.auxiliary[module_name(key)](summary.float())
        return estimate

    def forward(self, batch: Mapping[str, Any], generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """`loss`, under the name that lets Accelerate wrap it."""
        return self.loss(batch, generator)

    def loss(self, batch: Mapping[str, Any], generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean squared error of the objective, plus the weighted auxiliary errors; a scalar, and its parts by name.

        Actions beyond an episode's end repeat its last one and count like any other, as in Diffusion Policy.
        """
        tokens, estimates = self.observe(batch, generator if self.training else None)
        prefix = self.transformer.prefix(tokens)
        actions = self.normalizer.normalize(ACTION, self.relative_actions(batch))
        actions = actions[:, None].expand(-1, self.config.noise_samples, -1, -1)
        noise = torch.randn(actions.shape, generator=generator, device=generator.device).to(self.device)
        pair = self.objective.corrupt(actions, noise, generator)
        prediction = self.transformer(pair.noisy, self.transformer.modulations(pair.time), prefix)
        loss = F.mse_loss(prediction, pair.target)
        parts = {"denoising": loss.detach()}
        for key, estimate in estimates.items():
            truth = batch[key][:, -self.config.image_steps :].to(self.device)
            error = F.mse_loss(estimate, self.normalizer.normalize(key, truth))
            parts[f"auxiliary/{key}"] = error.detach()
            loss = loss + self.config.auxiliary_weight * error
        return loss, parts

    def relative_actions(self, batch: Mapping[str, Any]) -> Tensor:
        """The batch's actions (B, horizon, D), relative to the newest state if the policy is."""
        actions: Tensor = batch[ACTION].to(self.device, non_blocking=True)
        return actions - batch[STATE][:, -1:].to(self.device) if self.config.action_relative else actions

    @torch.inference_mode()
    def sample(self, batch: Mapping[str, Any], generator: torch.Generator) -> Tensor:
        """Chunks (B, horizon, D) in the robot's units for raw observations (B, n_obs_steps, ...) by key."""
        tokens, _ = self.observe(batch, None)
        prefix = self.transformer.prefix(tokens)
        shape = (len(tokens), 1, self.config.horizon, self.interface.action.shape[0])
        noise = torch.randn(shape, generator=generator, device=generator.device).to(self.device)
        times = torch.tensor([self.objective.times()], device=self.device)
        steps = [parts.split(1, dim=1) for parts in self.transformer.modulations(times)]

        def predict(x: Tensor, k: int) -> Tensor:
            return self.transformer(x, [parts[k] for parts in steps], prefix)

        actions = self.objective.sample(predict, noise, generator)
        actions = self.normalizer.unnormalize(ACTION, actions[:, 0])
        return actions + batch[STATE][:, -1:].to(self.device) if self.config.action_relative else actions

    def predict(self, histories: Sequence[Sequence[Observation]], generator: np.random.Generator) -> list[ActionChunk]:
        """One chunk a history of `n_obs_steps` observations, oldest first; row 0 is due at the newest one's time.

        Equal generators give equal chunks. Raises `InputError` for observations that do not fit the interface.
        """
        if not histories:
            return []
        for history in histories:
            if len(history) != self.n_obs_steps:
                raise InputError(f"history: expected {self.n_obs_steps} observations, found {len(history)}")
            for observation in history:
                observation.check(self.interface)
        batch = {key: self._stack(key, histories) for key in self.interface.observations}
        self.eval()
        noise = torch.Generator().manual_seed(int(generator.integers(2**63 - 1)))
        actions = self.sample(batch, noise)[:, self.n_obs_steps - 1 :].double().cpu().numpy()
        dt = 1.0 / self.interface.fps
        return [ActionChunk(rows, history[-1].t, dt) for rows, history in zip(actions, histories, strict=True)]

    def _stack(self, key: str, histories: Sequence[Sequence[Observation]]) -> Tensor:
        image = self.interface.observations[key].dtype == "image"
        values = [[observation.values[key] for observation in history] for history in histories]
        return torch.from_numpy(np.asarray(values, np.uint8 if image else np.float32))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.yaml, model.safetensors, normalizer.json, interface.json and the model card README.md.

        The folder appears whole or not at all; one that exists is replaced.
        """
        write_checkpoint(Path(folder), self.config, self.full_interface, self.normalizer, self.state_dict(), self.card)

    @classmethod
    def from_pretrained(cls, name: str | Path) -> DiffusionPolicy:
        """Read a folder, or a repository of the Hugging Face hub if no such folder exists; ready to predict."""
        parts = read_checkpoint(name)
        policy = cls(parts.config, parts.interface, parts.normalizer, parts.card)
        load_weights(policy, parts.weights, f"{name}: model.safetensors")
        return policy.eval()


def _check_relative(interface: Interface) -> None:
    """Actions can only be relative to a state of the same channels."""
    if STATE not in interface.observations:
        raise InputError(f"policy.action_relative: expected {STATE!r} among observation_keys, found none")
    state, action = interface.observations[STATE], interface.action
    if state.shape != action.shape or state.names != action.names or state.units != action.units:
        raise InputError(
            f"policy.action_relative: expected {STATE} and action to have the same channels, found "
            f"{list(state.names)} {list(state.units)} and {list(action.names)} {list(action.units)}"
        )
