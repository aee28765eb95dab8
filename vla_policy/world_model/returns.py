"""The return model of Diffusion-MPC (Zhou et al., arXiv 2410.05364): what a state is worth, learnt from demonstrations.

Demonstrations end when their task is done, which is the only reward: the return of a state k control periods before the
end is discount^k. Shapes: B states, D channels of all states together.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla_policy.conf.returns_config import ReturnConfig
from vla_policy.data import REMAINING, Normalizer
from vla_policy.interfaces import InputError, Interface
from vla_policy.models.checkpoint import load_weights, parse_config, read_checkpoint, restored, write_checkpoint
from vla_policy.models.trainable import TrainableModel

KIND = "returns"


class ReturnModel(TrainableModel):
    """A multi-layer perceptron from states to the logit of their return; `interface` has `config.state_keys`."""

    def __init__(
        self, config: ReturnConfig, interface: Interface, normalizer: Normalizer, card: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__()
        self.config, self.normalizer, self.card = config, normalizer, dict(card or {})
        self.interface = interface.select(config.state_keys)
        if cameras := self.interface.cameras:
            raise InputError(f"returns.state_keys: expected vectors, found the camera {cameras[0]}")
        sizes = {key: feature.shape[0] for key, feature in self.interface.observations.items()}
        normalizer.require(sizes)
        widths = [sum(sizes.values()), *[config.width] * config.depth, 1]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    @property
    def linear(self) -> list[nn.Linear]:
        """The layers, first to last, with SiLU in between."""
        return [cast(nn.Linear, layer) for layer in self.layers]

    def logits(self, states: Mapping[str, Tensor]) -> Tensor:
        """The logits (...) of the returns of states (..., D) by key."""
        first, *others = self.linear
        device = first.weight.device
        parts = [self.normalizer.normalize(key, states[key].to(device)) for key in self.config.state_keys]
        x = first(torch.cat(parts, dim=-1))
        for layer in others:
            x = layer(F.silu(x))
        found: Tensor = x[..., 0]
        return found

    def loss(self, batch: Mapping[str, Any], generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The cross-entropy of the return: the probability of reaching the end if every step fails with probability
        1 - discount.
        """
        logits = self.logits({key: batch[key][:, -1] for key in self.config.state_keys})
        loss = F.binary_cross_entropy_with_logits(logits.float(), self.truth(batch).to(logits.device))
        return loss, {"return": loss.detach()}

    def truth(self, batch: Mapping[str, Any]) -> Tensor:
        """The returns (B,) of the last states of windows."""
        returns: Tensor = self.config.discount ** batch[REMAINING]
        return returns

    def arrays(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Weight (out, in) and bias (out,) of each layer, in float64, from states in their own units."""
        layers = [(layer.weight.detach().double().cpu(), layer.bias.detach().double().cpu()) for layer in self.linear]
        count = self.linear[0].in_features
        zero, units = torch.zeros(count, dtype=torch.float64), torch.eye(count, dtype=torch.float64)
        first, bias = layers[0]
        offset, scaled = self._normalized(zero), self._normalized(units) - self._normalized(zero)
        layers[0] = (first @ scaled.T, bias + first @ offset)
        return [(weight.numpy(), bias.numpy()) for weight, bias in layers]

    def _normalized(self, states: Tensor) -> Tensor:
        sizes = [self.interface.observations[key].shape[0] for key in self.config.state_keys]
        parts = zip(self.config.state_keys, states.split(sizes, dim=-1), strict=True)
        return torch.cat([self.normalizer.normalize(key, part) for key, part in parts], dim=-1)

    def compiled_parts(self) -> list[nn.Module]:
        """None: it is small."""
        return []

    def stored_state(self) -> dict[str, Tensor]:
        """All weights."""
        return self.state_dict()

    def load_stored(self, weights: Mapping[str, Tensor], source: str) -> None:
        """Restore `stored_state`; `InputError` names the first difference of `source`."""
        load_weights(self, weights, source)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the checkpoint's folder atomically; an existing one is replaced."""
        half = np.log(0.5) / np.log(self.config.discount) / self.interface.fps
        text = (
            "# Return model\n\n"
            f"How near {', '.join(self.config.state_keys)} are to the end of a demonstration: 1 there, 0.5 "
            f"at {half:.1f} s before it.\n"
        )
        stored = {KIND: self.config.to_dict(), "card": self.card}
        write_checkpoint(Path(folder), stored, self.interface, self.normalizer, self.stored_state(), text)

    @classmethod
    def from_pretrained(cls, name: str | Path) -> ReturnModel:
        """Read a folder, or a repository of the Hugging Face hub if no such folder exists."""
        parts = read_checkpoint(name, KIND)
        config = parse_config(ReturnConfig.from_dict, parts)
        return restored(lambda: cls(config, parts.interface, parts.normalizer, parts.card), parts).eval()


def fit_states(columns: Mapping[str, np.ndarray], config: ReturnConfig) -> Normalizer:
    """Statistics of the states, which become zero-mean with unit variance."""
    return Normalizer.fit({key: columns[key] for key in config.state_keys}, "mean_std")
