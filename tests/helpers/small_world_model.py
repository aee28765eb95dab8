"""A small world model, and windows for it, of a bright square that goes where it is told."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from vla_policy.data import LeRobotDataset, LeRobotWriter
from vla_policy.interfaces import ACTION, IMAGES, STATE, Feature, Interface
from vla_policy.world_model import PredictorConfig, VisionConfig, WorldModel, WorldModelConfig, fit_actions

TOP = IMAGES + "top"
SIZE = 32  # pixels


def small_config(**changes: Any) -> WorldModelConfig:
    vision = VisionConfig(image_size=SIZE, channels=[8, 16], keypoints=8, grid=2, width=24)
    predictor = PredictorConfig(width=32, depth=2, heads=2, dropout=0.0)
    values: dict[str, Any] = {"latent": 16, "history": 3, "frame_skip": 2, "sigreg_directions": 64}
    return WorldModelConfig(**{**values, "vision": vision, "predictor": predictor, **changes})


def interface() -> Interface:
    xy = Feature("float32", (2,), ("x", "y"), ("m", "m"))
    return Interface({STATE: xy, TOP: Feature("image", (SIZE, SIZE, 3))}, xy, 10, "base")


def picture(position: np.ndarray) -> np.ndarray:
    """A square of 6 pixels around `position` (2,) in [0, 1]."""
    image = np.full((SIZE, SIZE, 3), 40, np.uint8)
    x, y = (np.clip(position, 0, 1) * (SIZE - 7)).round().astype(int)
    image[y : y + 6, x : x + 6] = (250, 120, 30)
    return image


def walk(rng: np.random.Generator, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions (length, 2) and the targets commanded from each: half of the way there is made in a step."""
    position, positions, targets = rng.random(2), [], []
    for step in range(length):
        if step % 4 == 0:
            target = rng.random(2)
        positions.append(position)
        targets.append(target)
        position = position + 0.5 * (target - position)
    return np.array(positions, np.float32), np.array(targets, np.float32)


def make_walks(root: Path, episodes: int = 8, length: int = 40, offset: float = 0.0) -> LeRobotDataset:
    """Walks towards targets that are `offset` beside the recorded ones."""
    rng = np.random.default_rng(0)
    with LeRobotWriter(root, interface()) as writer:
        for _ in range(episodes):
            positions, targets = walk(rng, length)
            images = {TOP: np.stack([picture(position) for position in positions])}
            writer.add_episode({STATE: positions, ACTION: targets - np.float32(offset)}, images, "walk")
    return LeRobotDataset(root)


def small_world_model(seed: int = 0, trained: bool = True, **changes: Any) -> WorldModel:
    """With `trained`, no adaLN-zero gate hides anything, and batch statistics are those of some pictures."""
    torch.manual_seed(seed)
    config, actions = small_config(**changes), np.random.default_rng(seed).random((100, 2)).astype(np.float32)
    columns = dict.fromkeys((ACTION, *config.auxiliary_keys), actions)
    model = WorldModel(config, interface(), fit_actions(columns, config.auxiliary_keys))
    if trained:
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.05 * torch.randn_like(parameter))
        model.train()
        for _ in range(20):
            model.loss(batch_of(model, 16), torch.Generator().manual_seed(0))
    return model.eval()


def batch_of(model: WorldModel, count: int, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    length = model.config.n_obs_steps
    walks = [walk(rng, length) for _ in range(count)]
    pictures = np.stack([[picture(position) for position in positions] for positions, _ in walks])
    positions, targets = (torch.from_numpy(np.stack(values)) for values in zip(*walks, strict=True))
    return {TOP: torch.from_numpy(pictures), STATE: positions, ACTION: targets}
