"""Torch modules: encoder, vision-language backbone, action transformer, objectives and samplers, checkpoints."""

from vla_policy.conf.policy_config import (
    BackboneConfig,
    EncoderConfig,
    ObjectiveConfig,
    PolicyConfig,
    TinyVLMConfig,
    TransformerConfig,
)
from vla_policy.models.checkpoint import update_card
from vla_policy.models.ensemble import join_policies
from vla_policy.models.policy import DiffusionPolicy
from vla_policy.models.seeing import BACKBONE_HIDDEN, BACKBONE_REAL
from vla_policy.models.trainable import TrainableModel
from vla_policy.models.vlm.backbone import Backbone

__all__ = [
    "BACKBONE_HIDDEN",
    "BACKBONE_REAL",
    "Backbone",
    "BackboneConfig",
    "DiffusionPolicy",
    "EncoderConfig",
    "ObjectiveConfig",
    "PolicyConfig",
    "TinyVLMConfig",
    "TrainableModel",
    "TransformerConfig",
    "join_policies",
    "update_card",
]
