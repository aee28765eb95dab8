"""What a frozen backbone makes of a dataset, computed once instead of in every step."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track
from torch.utils.data import Dataset

from vla_policy.data import Windows
from vla_policy.models import BACKBONE_HIDDEN, BACKBONE_REAL, DiffusionPolicy
from vla_policy.utils.files import reserve

log = logging.getLogger(__name__)

Reword = Callable[[str, np.random.Generator], str]  # another sentence that means the same

BATCH = 64
QUIET = 2000  # windows that need no bar


class FrozenWindows(Dataset):
    """`windows` with what the frozen backbone of `policy` makes of them: L tokens of width V, padded to the longest.

    With `reword` every window has a sentence of its own, drawn once. Its batches have `BACKBONE_HIDDEN` (B, L, V)
    float16 and `BACKBONE_REAL` (B, L) bool as well. Possible because a backbone sees pictures as they are, never
    augmented. They lie in a file in `folder` that ends with the process; `InputError` if the disk has no room for it.
    """

    def __init__(self, windows: Windows, policy: DiffusionPolicy, folder: Path, reword: Reword | None = None) -> None:
        assert policy.backbone is not None
        self.windows, self.probabilities = windows, windows.probabilities
        cameras = len(policy.interface.cameras)
        self._texts: list[str] = windows.vectors(np.arange(len(windows)))["task"]
        if reword is not None:
            generator = np.random.default_rng(0)
            self._texts = [reword(text, generator) for text in self._texts]
        length = max(policy.backbone.length(text, cameras) for text in set(self._texts))
        shape = len(windows), length, policy.backbone.width
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:  # the mapping outlives it
            reserve(file, folder, 2 * int(np.prod(shape)))
            self._hidden = np.memmap(file, np.float16, "r+", shape=shape)
        self._real = np.zeros(shape[:2], bool)
        self._fill(policy.eval())
        policy.train()

    @torch.inference_mode()
    def _fill(self, policy: DiffusionPolicy) -> None:
        quiet = len(self) < QUIET
        if not quiet:  # the bar shows itself at the end only where there is no terminal
            log.info("the frozen backbone reads all %d windows once, before the first step", len(self))
        for first in track(range(0, len(self), BATCH), "reading with the frozen backbone", disable=quiet):
            rows = np.arange(first, min(first + BATCH, len(self)))
            batch = self.windows.__getitems__(rows) | {"task": [self._texts[row] for row in rows]}
            hidden, real, _ = policy.read(batch)
            self._hidden[rows, : hidden.shape[1]] = hidden.half().cpu().numpy()
            self._real[rows, : hidden.shape[1]] = real.cpu().numpy()

    def __len__(self) -> int:
        return len(self.windows)

    def __getitems__(self, indices: Sequence[int] | np.ndarray) -> dict[str, Any]:
        rows = np.asarray(indices, np.int64)
        hidden, real = torch.from_numpy(self._hidden[rows]), torch.from_numpy(self._real[rows])
        return self.windows.__getitems__(rows) | {BACKBONE_HIDDEN: hidden, BACKBONE_REAL: real}


TrainingWindows = Windows | FrozenWindows
