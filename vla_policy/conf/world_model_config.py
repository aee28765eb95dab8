"""Everything that defines a world model; stored in its checkpoint as config.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from omegaconf import DictConfig

from vla_policy.conf import checks
from vla_policy.interfaces import IMAGES, InputError


@dataclass
class VisionConfig:
    """The image encoder: a small CNN, a ViT trained from scratch, or a frozen pretrained encoder."""

    kind: str = "cnn"  # cnn | vit | frozen
    image_size: int = 96  # pixels along each side of the image the network sees
    channels: list[int] = field(default_factory=lambda: [32, 64])  # cnn: of the stages at strides 4 and 8
    keypoints: int = 32  # cnn: heatmaps of the spatial softmax
    grid: int = 4  # cnn: grid x grid tokens of coarse features
    patch_size: int = 14  # vit
    width: int = 48  # of a token; the ViT's is 192
    depth: int = 12  # vit
    heads: int = 3  # vit
    path: str | None = None  # frozen: hub name or folder of a transformers vision model, or of a policy with a backbone


@dataclass
class PredictorConfig:
    """The causal transformer that predicts the next latent from a history of latents and actions."""

    width: int = 128  # of a token; the paper's is 192
    depth: int = 4  # layers; the paper: 6
    heads: int = 4  # attention heads, a divisor of width unless head_width is given
    head_width: int | None = None  # of an attention head; null: width / heads; the paper's 16 heads: 64
    mlp_ratio: float = 4.0  # width of the feed-forward layers over width
    dropout: float = 0.1  # without any, planning with LeWM falls from 96 % to 78 %


@dataclass
class WorldModelConfig:
    """LeWorldModel. One step of the model is `frame_skip` frames long."""

    cameras: list[str] = field(default_factory=lambda: [IMAGES + "top"])  # images that are encoded
    auxiliary_keys: list[str] = field(default_factory=list)
    """low-dimensional keys that can be read linearly from a latent; without, a latent keeps what moves most, the robot,
    and little of the object
    """
    auxiliary_weight: float = 0.1  # of the error of reading them
    latent: int = 128  # dimensions of a latent
    projector: int = 512  # hidden width of the projectors behind encoder and predictor; the paper's is 2048
    history: int = 3  # frames, frame_skip apart, that a prediction is made from
    frame_skip: int = 5  # frames, and commands, a step of the model
    rollout_weight: float = 0.0
    """of the error of latents imagined from a window's first frame alone, each from the ones before: errors must not
    grow; costs as many passes of the predictor as there are frames in the history
    """
    sigreg_weight: float = 0.01  # lambda; with the paper's 0.1 the same data give coarser predictions
    sigreg_directions: int = 256  # random projections a step; the paper's 1024 take a CPU longer than the encoder
    vision: VisionConfig = field(default_factory=VisionConfig)  # the encoder
    predictor: PredictorConfig = field(default_factory=PredictorConfig)  # the transformer

    def __post_init__(self) -> None:
        checks.check_words(self, "world_model", "cameras")
        if not self.cameras or not all(key.startswith(IMAGES) for key in self.cameras):
            raise InputError(f"world_model.cameras: expected keys that begin with {IMAGES!r}, found {self.cameras}")
        checks.check_words(self, "world_model", "auxiliary_keys")
        weights = dict.fromkeys(("auxiliary_weight", "rollout_weight"), (0, checks.LARGEST_WEIGHT))
        checks.check_ranges(self, "world_model", projector=(1, checks.WIDEST), **weights)
        checks.check_ranges(
            self, "world_model", latent=(1, checks.WIDEST), history=(1, checks.LONGEST), frame_skip=(1, checks.LONGEST)
        )
        checks.check_ranges(
            self, "world_model", sigreg_directions=(1, checks.WIDEST), sigreg_weight=(0, checks.LARGEST_WEIGHT)
        )
        checks.check_transformer(self.predictor, "world_model.predictor")
        checks.check_encoder(self.vision, "world_model.vision")
        checks.check_ranges(
            self.vision,
            "world_model.vision",
            width=(1, checks.WIDEST),
            depth=(0, checks.DEEPEST),
            heads=(1, checks.WIDEST),
        )
        sides = dict.fromkeys(("image_size", "patch_size"), (1, checks.LARGEST_IMAGE))
        checks.check_ranges(self.vision, "world_model.vision", **sides)
        if self.vision.kind not in ("cnn", "vit", "frozen"):
            raise InputError(f"world_model.vision.kind: expected cnn, vit or frozen, found {self.vision.kind!r}")
        if (self.vision.path is None) == (self.vision.kind == "frozen"):
            expected = "a hub name or a folder" if self.vision.kind == "frozen" else f"null for a {self.vision.kind}"
            raise InputError(f"world_model.vision.path: expected {expected}, found {self.vision.path!r}")
        if self.vision.kind == "vit" and self.vision.image_size % self.vision.patch_size:
            raise InputError(
                f"world_model.vision.image_size: expected a multiple of patch_size {self.vision.patch_size}, found "
                f"{self.vision.image_size}"
            )
        if self.predictor.head_width is not None:
            checks.check_ranges(self.predictor, "world_model.predictor", head_width=(1, checks.WIDEST))
        attention = {}
        if self.predictor.head_width is None:
            attention["predictor"] = (self.predictor.width, self.predictor.heads)
        if self.vision.kind == "vit":
            attention["vision"] = (self.vision.width, self.vision.heads)
        for name, (width, heads) in attention.items():
            if width % heads:
                raise InputError(f"world_model.{name}.width: expected a multiple of heads {heads}, found {width}")

    # Extent of training windows in `PolicyConfig`'s terms: the history and the frame after it.
    whole_windows = True  # padding with repeated frames would teach that actions have no effect
    executed = True  # what a demonstrator wanted instead has no effect either

    @property
    def n_obs_steps(self) -> int:
        return self.history * self.frame_skip + 1

    @property
    def horizon(self) -> int:
        return self.n_obs_steps

    @property
    def observation_keys(self) -> list[str]:
        return self.cameras

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any] | DictConfig) -> WorldModelConfig:
        """Typed and checked; an unknown key or a value of another type raises OmegaConf's error naming it."""
        return checks.typed(cls, data)
