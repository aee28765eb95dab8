"""What the models share that denoise several future states at once: dynamics, Diffuser, Decision Diffuser.

Shapes: B windows, n past states, F future steps, D channels of all states together, A of an action.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vla_policy.conf.future_config import FutureConfig
from vla_policy.data import Normalizer
from vla_policy.interfaces import ACTION, STATE, InputError, Interface
from vla_policy.models.checkpoint import load_weights
from vla_policy.models.heads import DenoisingHead, make_head
from vla_policy.models.trainable import TrainableModel
from vla_policy.models.transformer import ActionTransformer

FUTURE, PAST, COMMANDS = "future", "past", "commands"  # what is normalised: differences, states, relative actions


class FutureModel(TrainableModel):
    """A transformer that denoises rows of a future; `interface` has the features of `config.state_keys`."""

    config: FutureConfig
    normalizer: Normalizer
    sizes: list[int]  # channels of each state
    transformer: ActionTransformer

    @property
    def device(self) -> torch.device:
        return self.transformer.position.device

    def named(self, states: Tensor) -> dict[str, Tensor]:
        """States (..., D) by key."""
        return dict(zip(self.config.state_keys, states.split(self.sizes, dim=-1), strict=True))

    def newest_position(self, past: Tensor) -> Tensor:
        """Where the robot is (B, 1, A), after past states (B, n, D): what commands are relative to."""
        return self.named(past[:, -1:])[STATE].to(self.device)

    def compiled_parts(self) -> list[nn.Module]:
        """The layers of the transformer."""
        return list(self.transformer.layers)

    def stored_state(self) -> dict[str, Tensor]:
        """All weights."""
        return self.state_dict()

    def load_stored(self, weights: Mapping[str, Tensor], source: str) -> None:
        """Restore `stored_state`; `InputError` names the first difference of `source`."""
        load_weights(self, weights, source)


def denoising_head(config: FutureConfig, channels: int) -> DenoisingHead:
    """The head for a future's rows."""
    head = make_head(config.head, channels)
    assert isinstance(head, DenoisingHead)
    return head


def split(batch: Mapping[str, Any], config: FutureConfig) -> tuple[Tensor, Tensor, Tensor]:
    """Past states (B, n, D), differences of future ones to the newest (B, F, D), and the commands from it on, relative
    to its position (B, F, A), of whole windows.
    """
    states = torch.cat([batch[key] for key in config.state_keys], dim=-1)
    newest = config.past - 1
    commands = batch[ACTION][:, newest : newest + config.future] - batch[STATE][:, newest : newest + 1]
    return states[:, : config.past], states[:, config.past :] - states[:, newest : config.past], commands


def state_interface(config: FutureConfig, interface: Interface) -> Interface:
    """`interface` with the states alone; `InputError` unless these are vectors, among them one with the action's
    channels.
    """
    chosen = interface.select(config.state_keys)
    for key, feature in chosen.observations.items():
        if feature.dtype == "image":
            raise InputError(f"{config.section}.state_keys: expected vectors, found the camera {key}")
    if STATE not in chosen.observations or chosen.observations[STATE].names != chosen.action.names:
        raise InputError(
            f"{config.section}.state_keys: expected {STATE} with the channels of the action "
            f"{list(chosen.action.names)}, found {list(config.state_keys)}"
        )
    return chosen
