"""A latent world model from pixels, conditioned on commands."""

from vla_policy.conf.world_model_config import PredictorConfig, VisionConfig, WorldModelConfig
from vla_policy.world_model.batch_scores import (
    RandomDistillation,
    latent_steps,
    nominal_whitening,
    prediction_errors,
    residuals,
    stillness,
)
from vla_policy.world_model.health import LatentHealth, latent_health
from vla_policy.world_model.latent_model import NumpyWorldModel
from vla_policy.world_model.model import WorldModel, fit_actions
from vla_policy.world_model.monitors import binding, load_monitor, save_calibration
from vla_policy.world_model.sigreg import sigreg

__all__ = [
    "LatentHealth",
    "NumpyWorldModel",
    "PredictorConfig",
    "RandomDistillation",
    "VisionConfig",
    "WorldModel",
    "WorldModelConfig",
    "binding",
    "fit_actions",
    "latent_health",
    "latent_steps",
    "load_monitor",
    "nominal_whitening",
    "prediction_errors",
    "residuals",
    "save_calibration",
    "sigreg",
    "stillness",
]
