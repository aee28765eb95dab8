"""Pictures for measurements of what carries them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

PATCH = 40  # pixels
NOISE = 3.0  # of 255, standard deviation


def picture(size: Sequence[int], generator: np.random.Generator) -> np.ndarray:
    """One (H, W, 3) uint8 of height and width `size`, as compressible as those of a scene: soft patches with a camera's
    noise.
    """
    height, width = size
    coarse = generator.integers(0, 256, (height // PATCH + 2, width // PATCH + 2, 3), np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), float)
    return np.clip(smooth + generator.normal(0, NOISE, smooth.shape), 0, 255).astype(np.uint8)
