"""vla-calibrate instructions: which instructions a policy is to refuse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from vla_policy.cli.help import config_parser
from vla_policy.evaluation.options import ComputeOptions
from vla_policy.interfaces import InputError
from vla_policy.utils.configuration import typed_config

console = Console()


@dataclass
class InstructionsConfig(ComputeOptions):
    """Which instructions a policy is to refuse."""

    dataset: str | None = None
    """folder of the LeRobotDataset that the policy was trained on; null: the scene's training sentences"""
    paraphrases: str | None = None
    """a text file, each line another way to say one of them, 19 or more; null: the scene's"""
    alpha: float = 0.05  # paraphrases that are refused, at most
    scene: dict[str, Any] = field(default_factory=dict)  # what PushTConfig.from_mapping reads, see sim/config.py


def main(arguments: Sequence[str]) -> None:
    """Calibrate, and store what was found in the checkpoint."""
    description = "Find how far an instruction may be from a policy's training sentences, from other ways to say them."
    parser = config_parser("vla-calibrate instructions", description, "instructions")
    parser.add_argument(
        "CHECKPOINT", type=Path, help="folder of the policy; backbone/instructions.safetensors is written"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    options = parser.parse_args(arguments)
    config = typed_config(InstructionsConfig, "instructions", options.overrides)

    from vla_policy.models.checkpoint import BACKBONE
    from vla_policy.models.instructions import FILE, KnownInstructions
    from vla_policy.models.loading import load_policy

    folder = options.CHECKPOINT / BACKBONE
    if not folder.is_dir():
        raise InputError(f"{options.CHECKPOINT}: expected the folder of a policy with a backbone, found none in it")
    backbone = load_policy(str(options.CHECKPOINT), config.device, config.threads).backbone
    assert backbone is not None
    known = KnownInstructions.calibrate(backbone.embed, _known(config), _paraphrases(config), config.alpha)
    known.save(folder)
    console.print(
        f"{len(known.sentences)} sentences, {known.paraphrases} other ways to say them: an instruction is refused "
        f"beyond a distance of {known.threshold:.3f}, a new way to say them with at most {100 * known.alpha:g} %\n"
        f"{FILE} is in {folder}",
        markup=False,
        highlight=False,
    )


def _known(config: InstructionsConfig) -> list[str]:
    """The sentences that the policy was trained on."""
    if config.dataset is not None:
        from vla_policy.data import LeRobotDataset

        return [task for task in LeRobotDataset(Path(config.dataset)).tasks if task]

    from sim import PushTConfig
    from sim.instructions import sentences

    scene = PushTConfig.from_mapping(config.scene)
    return [text for goal in scene.goals for text in sentences(scene, goal, "training")]


def _paraphrases(config: InstructionsConfig) -> list[list[str]]:
    """Other ways to say them; those that are made alike are one."""
    if config.paraphrases is not None:
        path = Path(config.paraphrases)
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"paraphrases {path}: expected a text file, one sentence a line, found {error}") from None
        return [[line.strip()] for line in lines if line.strip()]

    from sim import PushTConfig
    from sim.refusals import PARAPHRASES, paraphrases

    return paraphrases(PushTConfig.from_mapping(config.scene), PARAPHRASES["calibration"])
