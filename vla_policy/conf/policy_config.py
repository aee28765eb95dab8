"""Everything that defines a policy; stored in its checkpoint as config.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from omegaconf import DictConfig

from vla_policy.conf.checks import (
    DEEPEST,
    LARGEST_IMAGE,
    LARGEST_WEIGHT,
    LONGEST,
    WIDEST,
    check_encoder,
    check_ranges,
    check_transformer,
    check_words,
    typed,
)
from vla_policy.interfaces import IMAGES, STATE, InputError


@dataclass
class EncoderConfig:
    """The convolutional image encoder, one per camera."""

    crop: float = 0.875  # of height and width that the network sees; 1: the whole image
    channels: list[int] = field(default_factory=lambda: [64, 128])  # of the stages at strides 4 and 8
    blocks: int = 1  # residual blocks a stage
    keypoints: int = 32  # heatmaps of the spatial softmax
    grid: int = 6  # the coarse grid has grid x grid feature tokens; 0: keypoints only
    color_jitter: float = 0.1  # relative strength of brightness, contrast and saturation changes in training
    tokens: bool = True
    """false: the action transformer sees of pictures and instruction only what is read from them, the estimates of
    policy.auxiliary_keys, and cannot learn by heart what else a few demonstrations show
    """


@dataclass
class TransformerConfig:
    """The action diffusion transformer."""

    width: int = 192  # of a token
    depth: int = 4  # layers
    heads: int = 6  # attention heads, a divisor of width
    mlp_ratio: float = 4.0  # width of the feed-forward layers over width
    patch: int = 1  # consecutive actions a token; more are faster, and smoother than some tasks allow
    time_width: int = 64  # width of the diffusion-time embedding that adaLN-zero is made from
    dropout: float = 0.0  # in training, 0 to 1


@dataclass
class ObjectiveConfig:
    """The training objective and the sampler."""

    name: str = "flow"  # flow | ddpm | autoregressive | masked
    prediction: str = "v_prediction"
    """ddpm: epsilon | sample | v_prediction; epsilon weights an error of the action by the signal-to-noise ratio,
    almost zero at high noise, where only the observation is informative
    """
    sampler: str = "euler"  # flow: euler; ddpm: ddpm | ddim | dpm_solver; tokens: greedy | categorical
    train_steps: int = 100  # ddpm: length of the squaredcos_cap_v2 schedule
    inference_steps: int = 10  # passes of the transformer; autoregressive takes one a token
    bins: int = 256  # autoregressive, masked: equal parts of an action dimension's range
    temperature: float = 1.0
    """flow: standard deviation of the noise that sampling begins with, below 1 for chunks nearer to the middle of what
    was demonstrated; tokens, categorical: of the predicted distribution
    """
    unmask: str | None = None
    """masked: confidence | random, which tokens a pass fixes; null: by confidence if they are greedy, at random if
    they are sampled, whose distribution a choice by confidence would bias
    """
    label_smoothing: float = 0.0
    """tokens, in training: standard deviation of a Gaussian over neighbouring bins, in bins; 0: the bin alone"""
    input_masking: float = 0.0  # autoregressive, in training: probability that a preceding token is hidden
    time_sampling: str = "uniform"  # flow: uniform | logit_normal | beta
    clip_sample: bool = True  # keep sampled actions inside [-1, 1], where all training actions lie


@dataclass
class TinyVLMConfig:
    """A vision-language model of SmolVLM's architecture, trained from scratch."""

    width: int = 128  # of a token
    heads: int = 4  # attention heads
    vision_depth: int = 4  # layers of the vision transformer
    text_depth: int = 4  # layers of the language model
    image_size: int = 96  # pixels
    patch_size: int = 16  # pixels
    scale_factor: int = 2  # pixel shuffle: scale_factor x scale_factor patches become one token
    vocab_size: int = 1024  # at most; the tokenizer is trained on the task's text


@dataclass
class BackboneConfig:
    """The vision-language model that encodes the instruction and the cameras' images."""

    path: str | None = None  # hub name or folder of a pretrained model; null: a tiny one from scratch, or init_from's
    layer: int | None = None  # whose hidden states the action transformer sees, from 1; null: the last
    tuning: str = "full"  # full | lora | frozen
    lora_rank: int = 16  # lora: rank of the low-rank updates
    use_instruction: bool = True  # false: the instruction is ignored, for ablations
    max_text_tokens: int = 64  # of an instruction or a question
    tiny: TinyVLMConfig = field(default_factory=TinyVLMConfig)  # the model that is built without a path

    def __post_init__(self) -> None:
        check_ranges(self, "policy.backbone", lora_rank=(1, WIDEST), max_text_tokens=(1, LONGEST))
        tiny = dict.fromkeys(("image_size", "patch_size", "scale_factor"), (1, LARGEST_IMAGE))
        tiny |= dict.fromkeys(("vision_depth", "text_depth"), (0, DEEPEST))
        tiny |= {"width": (1, WIDEST), "heads": (1, WIDEST), "vocab_size": (1, 2**20)}
        check_ranges(self.tiny, "policy.backbone.tiny", **tiny)
        if self.tuning not in ("full", "lora", "frozen"):
            raise InputError(f"policy.backbone.tuning: expected full, lora or frozen, found {self.tuning!r}")
        if self.path is None and self.tuning == "lora":
            raise InputError("policy.backbone.tuning: expected full or frozen for a model without a path, found 'lora'")
        if self.tiny.image_size % (self.tiny.patch_size * self.tiny.scale_factor):
            raise InputError(
                f"policy.backbone.tiny.image_size: expected a multiple of patch_size * scale_factor = "
                f"{self.tiny.patch_size * self.tiny.scale_factor}, found {self.tiny.image_size}"
            )


@dataclass
class PolicyConfig:
    """A whole policy. `n_obs_steps`, `horizon` and `n_action_steps` as in Diffusion Policy."""

    observation_keys: list[str] = field(default_factory=lambda: [STATE])  # features of the data that the policy sees
    auxiliary_keys: list[str] = field(default_factory=list)
    """Low-dimensional keys that camera features must predict in training and that the policy never sees at run
    time.
    """
    auxiliary_weight: float = 1.0  # of the loss on auxiliary_keys
    n_obs_steps: int = 2  # observations that a chunk is predicted from
    n_image_steps: int | None = None
    """The newest observation steps whose images are encoded, default all: vectors show motion at a lower cost."""
    horizon: int = 16  # predicted steps, from the oldest observation on
    n_action_steps: int = 8  # steps executed before the next chunk
    action_relative: bool = False  # actions relative to the newest observation.state
    object_frame: str | None = None
    """key of an object's pose (x, y, cos, sin), observed or auxiliary:
    positions and directions are seen from the object, and actions are in
    its frame, so that what is learnt of one pose holds for all; null: the
    robot's frame
    """
    action_basis: str = "time"
    """time | frequency: what is predicted are the rows of a chunk, or the coefficients of its discrete cosine
    transform over time, slowest first (FAST, arXiv 2501.09747)
    """
    predict_past: bool = True  # also the rows of a chunk before the newest observation, which are never executed
    prefix_steps: int = 0
    """flow, ddpm: in training, 0 to so many first rows of a chunk are given without noise, as those are that will have
    been executed before a chunk is there (training-time real-time chunking, arXiv 2512.05964); 0: a chunk is guided
    towards these (real-time chunking, arXiv 2506.07339)
    """
    noise_samples: int = 1
    """Draws of (time, noise) each encoded observation is trained on: encoding an image costs more than denoising
    one chunk, and the draws share its keys and values.
    """
    vector_normalization: str = "min_max"  # min_max | mean_std | quantile
    action_normalization: str = "min_max"  # the same of actions
    normalization_per_step: bool = False
    """a scale for each row of a chunk instead of one for all: relative actions spread the more the later they are,
    and under a common scale the first rows, which are executed, have next to no part in the loss
    """
    ensemble: int = 1
    """networks whose predictions are averaged at every denoising step; each is trained by itself, `vla-lab ensemble`
    joins them
    """
    language_weight: float = 1.0  # of the backbone's own loss on questions and answers, if the training has any
    encoder: EncoderConfig | None = field(default_factory=EncoderConfig)  # null: images go to the backbone alone
    backbone: BackboneConfig | None = None  # null: no instruction
    transformer: TransformerConfig = field(default_factory=TransformerConfig)  # the action transformer
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    """the training objective and the sampler; see policy="""

    def __post_init__(self) -> None:
        self._check_ranges()
        if self.encoder is not None and not 0 < self.encoder.crop <= 1:
            raise InputError(f"policy.encoder.crop: expected a fraction in (0, 1], found {self.encoder.crop}")
        tokens = self.objective.name in ("autoregressive", "masked")
        if tokens and self.action_normalization == "mean_std":
            raise InputError(
                f"policy.action_normalization: expected quantile or min_max, whose range {self.objective.name} divides "
                "into bins, found 'mean_std'"
            )
        if self.ensemble > 1 and (tokens or self.backbone is not None):
            what = "action tokens" if tokens else "a backbone"
            raise InputError(f"policy.ensemble: expected 1 for a policy with {what}, found {self.ensemble}")
        if not tokens and self.objective.clip_sample and self.action_normalization != "min_max":
            raise InputError(
                "policy.objective.clip_sample: expected policy.action_normalization 'min_max', which keeps actions "
                f"inside [-1, 1], found {self.action_normalization!r}; set clip_sample=false"
            )
        if self.objective.name == "ddpm" and self.objective.temperature != 1:
            raise InputError(
                f"policy.objective.temperature: expected 1 with ddpm, whose samplers add noise on the way, found "
                f"{self.objective.temperature:g}"
            )
        if not self.observation_keys:
            raise InputError("policy.observation_keys: expected at least one key, found none")
        camera = any(key.startswith(IMAGES) for key in self.observation_keys)
        if self.backbone is not None and not camera:
            raise InputError("policy.backbone: expected a camera among observation_keys, found none")
        if camera and self.encoder is None and self.backbone is None:
            raise InputError("policy.encoder: expected an encoder or a backbone for the cameras, found neither")
        if not 1 <= self.n_action_steps <= self.horizon - self.n_obs_steps + 1:
            raise InputError(
                f"policy.n_action_steps: expected 1 to horizon - n_obs_steps + 1 = "
                f"{self.horizon - self.n_obs_steps + 1}, found {self.n_action_steps}"
            )
        if self.object_frame is not None:
            known = [*self.observation_keys, *self.auxiliary_keys]
            if self.object_frame not in known:
                raise InputError(f"policy.object_frame: expected null or one of {known}, found {self.object_frame!r}")
            if not self.action_relative:
                raise InputError("policy.object_frame: expected action_relative=true with it, found false")
        if self.n_image_steps is not None and not 1 <= self.n_image_steps <= self.n_obs_steps:
            raise InputError(
                f"policy.n_image_steps: expected 1 to n_obs_steps = {self.n_obs_steps}, found {self.n_image_steps}"
            )
        if self.auxiliary_keys and not camera:
            raise InputError("policy.auxiliary_keys: expected a camera among observation_keys, found none")
        if camera and not (self.shows_pictures or self.auxiliary_keys):
            raise InputError(
                "policy.encoder.tokens: expected true, or auxiliary_keys that stand for the pictures, found neither"
            )
        if not tokens and (self.transformer.patch < 1 or self.rows % self.transformer.patch):
            raise InputError(
                f"policy.transformer.patch: expected a divisor of the {self.rows} predicted rows of a chunk, "
                f"found {self.transformer.patch}"
            )
        if self.action_basis not in ("time", "frequency"):
            raise InputError(f"policy.action_basis: expected 'time' or 'frequency', found {self.action_basis!r}")
        if self.action_basis == "frequency" and not self.normalization_per_step:
            raise InputError(
                "policy.action_basis: frequency expected normalization_per_step=true, a scale for each coefficient, "
                "found false"
            )
        if self.prefix_steps and (tokens or self.action_basis == "frequency"):
            what = f"{self.objective.name}, which is given rows without it" if tokens else "action_basis=frequency"
            raise InputError(f"policy.prefix_steps: expected 0 with {what}, found {self.prefix_steps}")
        if self.transformer.width % self.transformer.heads:
            raise InputError(
                f"policy.transformer.width: expected a multiple of heads {self.transformer.heads}, "
                f"found {self.transformer.width}"
            )

    def _check_ranges(self) -> None:
        check_words(self, "policy", "observation_keys", "auxiliary_keys")
        check_ranges(self, "policy", n_obs_steps=(1, LONGEST), horizon=(1, LONGEST), noise_samples=(1, LONGEST))
        check_ranges(self, "policy", ensemble=(1, 64), prefix_steps=(0, self.horizon - self.n_obs_steps))
        check_ranges(self, "policy", auxiliary_weight=(0, LARGEST_WEIGHT), language_weight=(0, LARGEST_WEIGHT))
        if self.encoder is not None:
            check_encoder(self.encoder, "policy.encoder")
            check_ranges(self.encoder, "policy.encoder", blocks=(0, DEEPEST), color_jitter=(0, 10))
        check_transformer(self.transformer, "policy.transformer")
        check_ranges(self.transformer, "policy.transformer", time_width=(2, WIDEST))
        if self.transformer.time_width % 2:
            found = self.transformer.time_width
            raise InputError(f"policy.transformer.time_width: expected an even number, found {found}")
        steps = dict.fromkeys(("train_steps", "inference_steps"), (1, LONGEST))
        check_ranges(self.objective, "policy.objective", bins=(1, WIDEST), **steps)
        check_ranges(self.objective, "policy.objective", label_smoothing=(0, WIDEST), input_masking=(0, 1))
        check_ranges(self.objective, "policy.objective", temperature=(1e-3, 1e3))

    whole_windows = False  # a policy also acts at an episode's very start and end
    executed = False  # it imitates what a demonstrator wanted

    @property
    def shows_pictures(self) -> bool:
        """Whether the action transformer sees more of pictures and instruction than the estimates made of them."""
        return self.encoder is None or self.encoder.tokens

    @property
    def rows(self) -> int:
        """How many rows of a chunk are predicted: the last ones of the horizon."""
        return self.horizon if self.predict_past else self.horizon - self.n_obs_steps + 1

    @property
    def past_rows(self) -> int:
        """How many of these are due before the newest observation."""
        return self.rows - (self.horizon - self.n_obs_steps + 1)

    @property
    def image_steps(self) -> int:
        """How many of the newest observation steps have images."""
        return self.n_image_steps or self.n_obs_steps

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any] | DictConfig) -> PolicyConfig:
        """Typed and checked; an unknown key or a value of another type raises OmegaConf's error naming it."""
        return typed(cls, data)
