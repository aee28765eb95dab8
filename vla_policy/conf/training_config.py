"""How a model is trained, and on which data."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from vla_policy.interfaces import InputError


@dataclass
class DataConfig:
    """Which episodes of which dataset, or datasets."""

    root: Any = MISSING  # a folder or a list of folders
    weights: list[float] | None = None
    """with a list, one positive number a dataset: the probability (as given, over their sum) that a sample comes
    from it; null: in proportion to its windows, each of which occurs once an epoch
    """
    missing_cameras: str = "refuse"
    """refuse | pad: a camera that some dataset of the list lacks is an error, or black there"""
    unnamed_channels: str = "refuse"
    """refuse | accept: channels without names, of datasets of a list, are an error, or taken to be the same in
    all of them
    """
    exclude_episodes: Any = None  # a list of numbers, or one such list a folder
    symmetries: list[str] = field(default_factory=list)
    """of the scene, [mirror]: each sample is drawn as it is or as its image under one of them, pictures through the
    table's homography
    """
    state_noise: float = 0.0
    """shift the observed state of half of the samples, by as many of its standard deviations over the data, while the
    demonstrated target stays: the policy learns to come back to the path. For actions that are positions; 0: never
    """
    intervention_weight: float = 1.0
    """how many times as often a moment of a recorded takeover is sampled as another one; recordings and vla-collect
    behaviour=dagger mark them
    """
    drop_before_intervention: float = 0.0
    """seconds before a recorded takeover in which the policy's own actions are not imitated: samples that have any of
    them as a target are left out
    """
    shuffle_actions: bool = False
    """a control: the actions of the training windows are permuted, so that nothing but learning by heart lowers the
    training loss; what a real training's loss falls to is to be seen beside it
    """
    action_loss: list[bool] | None = None
    """with a list, one a dataset: whether its actions are to be imitated; those of play are not, but its pictures
    teach the encoder what policy.auxiliary_keys say; null: all
    """
    n_episodes: Any = None
    """train on the first N of a seeded shuffle, nested across N; null: all that are not held out; of several datasets
    N of each, or a list with a number or null for each
    """
    val_episodes: float = 0.05
    """held-out episodes: a number, or a fraction below 1; 0: none. Of a list, both of each dataset"""
    split_seed: int = 0  # of that shuffle
    pad_after: int | None = None
    """frames that a window may reach beyond its episode's end, where the last one is repeated; null: all, so that
    every time step is trained on; Diffusion Policy's n_action_steps - 1 leaves the last ones out
    """
    cache: bool = True  # decode the videos once, into a file of raw frames; false: for every sample, which is slower
    cache_dir: str | None = None  # folder of that file; null: inside the dataset
    num_workers: int = 0  # loader processes; memory-mapped frames need none

    def __post_init__(self) -> None:
        roots = self.roots
        if not roots or not all(isinstance(root, str) and root for root in roots):
            raise InputError(f"data.root: expected a dataset's folder or a list of them, found {self.root!r}")
        if len(set(roots)) < len(roots):
            raise InputError(f"data.root: expected every dataset once, found {roots}")
        weights = self.weights
        if weights is not None and not (len(weights) == len(roots) and all(0 < w < math.inf for w in weights)):
            raise InputError(f"data.weights: expected {len(roots)} positive numbers, one a dataset, found {weights}")
        counts = self.wanted
        if len(counts) != len(roots) or not all(count is None or type(count) is int for count in counts):
            expected = f"a number, null or a list of {len(roots)}, one a dataset"
            raise InputError(f"data.n_episodes: expected {expected}, found {self.n_episodes!r}")
        if not 0 <= self.state_noise < math.inf:
            raise InputError(f"data.state_noise: expected a number from 0 on, found {self.state_noise}")
        if not 0 < self.intervention_weight < math.inf:
            raise InputError(f"data.intervention_weight: expected a number above 0, found {self.intervention_weight}")
        if not 0 <= self.drop_before_intervention < math.inf:
            found = self.drop_before_intervention
            raise InputError(f"data.drop_before_intervention: expected seconds from 0 on, found {found}")
        acting = self.action_loss
        if acting is not None and (len(acting) != len(roots) or not any(acting)):
            expected = f"{len(roots)} times true or false, one a dataset, at least one true"
            raise InputError(f"data.action_loss: expected {expected}, found {acting}")
        if self.missing_cameras not in ("refuse", "pad"):
            raise InputError(f"data.missing_cameras: expected 'refuse' or 'pad', found {self.missing_cameras!r}")
        if self.unnamed_channels not in ("refuse", "accept"):
            raise InputError(f"data.unnamed_channels: expected 'refuse' or 'accept', found {self.unnamed_channels!r}")
        lists = self.excluded
        numbers = all(isinstance(some, list) and all(type(index) is int for index in some) for some in lists)
        if not numbers or len(lists) != len(roots):
            what = "episodes' numbers" if len(roots) == 1 else f"{len(roots)} lists of episodes' numbers, one a dataset"
            raise InputError(f"data.exclude_episodes: expected {what}, found {self.exclude_episodes}")

    @property
    def roots(self) -> list[str]:
        """The folders, also of a single dataset."""
        return list(self.root) if isinstance(self.root, (list, tuple)) else [self.root]

    @property
    def wanted(self) -> list[int | None]:
        """How many episodes to train on, of each folder."""
        chosen = self.n_episodes
        return list(chosen) if isinstance(chosen, list) else [chosen] * len(self.roots)

    @property
    def excluded(self) -> list[Any]:
        """The episodes to leave out, a list for each folder."""
        chosen = self.exclude_episodes
        if chosen is None:
            return [[] for _ in self.roots]
        return chosen if isinstance(chosen, list) and any(isinstance(some, list) for some in chosen) else [chosen]


OPTIMIZERS = {"adamw": "AdamW", "muon": "Muon for the layers' matrices and AdamW for the rest"}


@dataclass
class TrainerConfig:
    """Optimisation, averaging, and how often things are measured and kept."""

    steps: int = 20_000  # gradient steps
    batch_size: int = 256  # windows a step, of each process
    optimizer: str = "adamw"  # adamw | muon: Muon for the matrices of the transformers' layers, AdamW for all else
    lr: float = 5e-4  # the highest learning rate
    betas: list[float] = field(default_factory=lambda: [0.9, 0.95])  # of AdamW
    weight_decay: float = 1e-4
    """of matrices, times the learning rate, as in torch: over a run they shrink by exp(-weight_decay * lr * steps / 2),
    so that 1e-4 does next to nothing; the model card says how much
    """
    warmup_steps: int = 500  # linear, then a cosine to 0
    grad_clip: float = 1.0  # gradient norm
    ema_power: float = 0.75  # decay of the averaged weights after n steps: 1 - (1 + n)^-power, at most ema_max_decay
    ema_max_decay: float = 0.9999  # 0: the weights as they are, without averaging
    precision: str = "auto"  # auto: bf16 where the hardware has it | bf16 | fp32
    threads: int | None = None  # CPU threads; null: all
    compile: bool = False  # torch.compile the layers: a minute to start and a C++ compiler, then faster steps
    log_every: int = 50  # steps between rows of metrics.csv
    print_every_s: float = 15.0  # seconds between lines where there is no terminal
    save_every: int = 1000  # steps between saved states and checkpoints/last
    validate_every: int = 2000  # steps between validations on held-out episodes; 0: at the end only
    val_windows: int = 256  # windows of a validation, at most
    rollout_every: int = 0  # steps between rollouts in simulation; 0: never
    wandb: str | None = "vla_policy"  # project, used if wandb is installed; null: never

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "log_every", "save_every"):
            if getattr(self, name) < 1:
                raise InputError(f"trainer.{name}: expected at least 1, found {getattr(self, name)}")
        if self.precision not in ("auto", "bf16", "fp32"):
            raise InputError(f"trainer.precision: expected 'auto', 'bf16' or 'fp32', found {self.precision!r}")
        if self.optimizer not in OPTIMIZERS:
            raise InputError(f"trainer.optimizer: expected one of {', '.join(OPTIMIZERS)}, found {self.optimizer!r}")
        if len(self.betas) != 2:
            raise InputError(f"trainer.betas: expected two numbers, found {self.betas}")

    @property
    def shrinkage(self) -> float:
        """The part of a matrix that weight decay alone takes away in a run, whose mean learning rate is lr / 2."""
        return 1.0 - math.exp(-self.weight_decay * self.lr * self.steps / 2)


@dataclass
class DistillConfig:
    """What a policy is taught by, beside or instead of demonstrations."""

    teacher: str | None = None  # a checkpoint, also an ensemble; null: the demonstrations teach
    target: str = "outputs"
    """outputs | samples | endpoint: what the teacher predicts for the same noisy actions, which needs the same
    objective; the chunks that it samples for the same observations, which any teacher can give; or where the path of a
    flow teacher leads from the same noise, in fewer passes (policy.objective.inference_steps): it needs no actions, so
    that play counts, and a policy that is otherwise the teacher's, as which it begins
    """

    def __post_init__(self) -> None:
        if self.target not in ("outputs", "samples", "endpoint"):
            raise InputError(f"distill.target: expected outputs, samples or endpoint, found {self.target!r}")
        if self.target != "outputs" and self.teacher is None:
            raise InputError(f"distill.teacher: expected a checkpoint for distill.target={self.target}, found none")
