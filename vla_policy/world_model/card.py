"""The model card of a world model: inputs, training data, and measurements."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vla_policy.conf.world_model_config import WorldModelConfig
from vla_policy.interfaces import Interface
from vla_policy.models.card import listed


def world_model_card(
    config: WorldModelConfig, interface: Interface, weights: Mapping[str, Tensor], card: Mapping[str, Any]
) -> str:
    """Markdown with the hub's metadata header. `card` may have `data`, `training` and `measured`."""
    count = sum(value.numel() for value in weights.values())
    seconds = config.frame_skip / interface.fps
    lines = [
        "---",
        "license: apache-2.0",
        "pipeline_tag: robotics",
        "tags: [robotics, world-model, vla_policy]",
        "---",
        "",
        "# World model",
        "",
        f"LeWorldModel: {config.vision.kind} encoder, {config.latent} latent dimensions, {count / 1e6:.2f} M "
        f"parameters. From {config.history} latents of {', '.join(config.cameras)} and the commands in between it "
        f"predicts the next one, {seconds:g} s ahead.",
        "",
        "```python",
        "from vla_policy.world_model import WorldModel",
        "",
        "world_model = WorldModel.from_pretrained(FOLDER)",
        "```",
    ]
    for section in ("data", "training", "measured"):
        if card.get(section):
            lines += ["", f"## {section.capitalize()}", "", *listed(card[section])]
    return "\n".join(lines)
