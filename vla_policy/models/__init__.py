"""Torch modules: observation encoder, action diffusion transformer, its objectives and samplers, checkpoints."""

from vla_policy.models.checkpoint import update_card
from vla_policy.models.config import EncoderConfig, ObjectiveConfig, PolicyConfig, TransformerConfig
from vla_policy.models.policy import DiffusionPolicy

__all__ = [
    "DiffusionPolicy",
    "EncoderConfig",
    "ObjectiveConfig",
    "PolicyConfig",
    "TransformerConfig",
    "update_card",
]
