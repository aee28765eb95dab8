"""vla-calibrate instructions: the distance beyond which a policy refuses an instruction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vla_policy.cli.common import print_line
from vla_policy.cli.help import parse_command
from vla_policy.evaluation.options import ComputeOptions, SceneOptions
from vla_policy.interfaces import InputError


@dataclass
class InstructionsConfig(ComputeOptions, SceneOptions):
    """Which instructions a policy refuses."""

    dataset: str | None = None
    """folder of the LeRobotDataset that the policy was trained on; null: the scene's training sentences"""
    paraphrases: str | None = None
    """a text file with 19 or more paraphrases of them, one a line; null: the scene's"""
    alpha: float = 0.05  # rate at which paraphrases are refused, at most


def main(arguments: Sequence[str]) -> None:
    """Calibrate the distance from a policy's training sentences beyond which it refuses an instruction, and store it in
    the checkpoint.
    """
    (checkpoint,), config = parse_command(
        "vla-calibrate instructions", main.__doc__, "instructions", arguments, CHECKPOINT="folder of the policy"
    )

    from vla_policy.models.checkpoint import BACKBONE
    from vla_policy.models.loading import load_policy
    from vla_policy.models.vlm.instructions import FILE, KnownInstructions

    folder = Path(checkpoint) / BACKBONE
    if not folder.is_dir():
        raise InputError(f"{checkpoint}: expected the folder of a policy with a backbone, found none in it")
    backbone = load_policy(checkpoint, config.device, config.threads).backbone
    assert backbone is not None
    known = KnownInstructions.calibrate(backbone.embed, _known(config), _paraphrases(config), config.alpha)
    known.save(folder)
    print_line(
        f"{len(known.sentences)} sentences, {known.paraphrases} paraphrases: an instruction is refused beyond a "
        f"distance of {known.threshold:.3f}, a new paraphrase with a probability of at most {100 * known.alpha:g} %\n"
        f"{FILE} is in {folder}"
    )


def _known(config: InstructionsConfig) -> list[str]:
    """The sentences that the policy was trained on."""
    if config.dataset is not None:
        from vla_policy.data import LeRobotDataset

        return [task for task in LeRobotDataset(Path(config.dataset)).tasks if task]

    from sim.language.instructions import sentences

    scene = config.pusht
    return [text for goal in scene.goals for text in sentences(scene, goal, "training")]


def _paraphrases(config: InstructionsConfig) -> list[list[str]]:
    """Paraphrases in groups; those made from one template are a group."""
    if config.paraphrases is not None:
        path = Path(config.paraphrases)
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"paraphrases {path}: expected a text file, one sentence a line, found {error}") from None
        return [[line.strip()] for line in lines if line.strip()]

    from sim.language.refusals import PARAPHRASES, paraphrases

    return paraphrases(config.pusht, PARAPHRASES["calibration"])
