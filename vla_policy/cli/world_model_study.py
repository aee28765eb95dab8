"""What `vla-eval world-model` and `vla-eval plan` share: a study of a world model on a dataset, with its files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Console

from vla_policy.cli.common import save_config
from vla_policy.cli.progress import work_bars

if TYPE_CHECKING:
    from vla_policy.data import LeRobotDataset
    from vla_policy.evaluation.options import ComputeOptions
    from vla_policy.world_model import WorldModel

Config = TypeVar("Config", bound="ComputeOptions")
Study = Callable[["WorldModel", "LeRobotDataset", Config, Path, str, Callable[[str, int], None]], dict[str, Any]]


def run_study(
    study: Study[Config], checkpoint: str, dataset: str, config: Config, out: Path, console: Console
) -> dict[str, Any]:
    """Load the model and the dataset, run `study` with progress bars, save the configuration; the study's summary."""
    from vla_policy.data import LeRobotDataset
    from vla_policy.models.loading import chosen_device
    from vla_policy.world_model import WorldModel

    device = chosen_device(config.device, config.threads)
    model = WorldModel.from_pretrained(checkpoint).to(device)
    with work_bars(console) as advance:
        summary = study(model, LeRobotDataset(Path(dataset)), config, out, checkpoint, advance)
    save_config(config, out)
    return summary
