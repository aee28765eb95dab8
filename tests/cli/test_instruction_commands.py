"""vla-calibrate instructions and vla-eval refusals, on the shipped policy."""

import json
import shutil
from pathlib import Path

import pytest
from helpers.commands import error_of

from vla_policy.cli import calibrate, eval
from vla_policy.models.checkpoint import BACKBONE
from vla_policy.models.vlm.instructions import FILE, KnownInstructions

SHIPPED = Path(__file__).parents[2] / "checkpoints" / "pusht_language"
CPU = "device=cpu"


def test_the_shipped_threshold_is_found_again_and_measured(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(SHIPPED, tmp_path / "copy"))
    (copy / BACKBONE / FILE).unlink()
    calibrate.main(["instructions", str(copy), CPU])
    found, shipped = (KnownInstructions.load(folder / BACKBONE) for folder in (copy, SHIPPED))
    assert found is not None
    assert shipped is not None
    assert found.sentences == shipped.sentences
    assert found.threshold == pytest.approx(shipped.threshold, rel=1e-3)
    eval.main(["refusals", str(copy), CPU, f"out={tmp_path / 'out'}"])
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["refused"]["unrelated"]["shipped"]["refusal_rate"] >= 0.9


def test_custom_paraphrases_and_mistakes(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(SHIPPED, tmp_path / "copy"))
    lines = tmp_path / "lines.txt"
    lines.write_text("\n\n".join(f"please push the T to the red goal {'now ' * i}" for i in range(19)) + "\n")
    calibrate.main(["instructions", str(copy), CPU, f"paraphrases={lines}"])
    found = KnownInstructions.load(copy / BACKBONE)
    assert found is not None
    assert found.paraphrases == 19
    lines.write_text("push the T\n")
    for arguments, said in (
        ([str(copy), f"paraphrases={lines}"], "expected at least 19 groups"),
        ([str(copy), f"paraphrases={tmp_path / 'none'}"], "expected a text file, one sentence a line"),
        ([str(SHIPPED.parent / "pusht_image")], "expected the folder of a policy with a backbone"),
    ):
        assert said in error_of(calibrate.main, "instructions", *arguments, CPU)
