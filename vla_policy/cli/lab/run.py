"""vla-lab run: all runs of a study, through one of Hydra's launchers."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra.core.override_parser.types import Quote, QuotedString
from omegaconf import DictConfig

from vla_policy.cli.common import print_line, user_errors
from vla_policy.cli.help import config_parser
from vla_policy.interfaces import InputError

MORE = """keys:

  out: outputs/lab/<name of the study>   # its folder; runs that have a result there are not run again
  hydra/launcher: basic                  # basic (one run after the other) | joblib (several at a time, with
                                         # hydra.launcher.n_jobs=2; the extra lab) | another plugin of Hydra's
  # and the keys of vla-train, which then hold for all runs: data.root=DATASET trainer.threads=1
"""


def main(arguments: Sequence[str]) -> None:
    """Begin, or go on with, every run of a study that the budget allows."""
    parser = config_parser("vla-lab run", "Train and evaluate every combination of a study's factors.", more=MORE)
    parser.add_argument("STUDY", help="a YAML file, see studies/")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parsed = parser.parse_args(arguments)
    of_hydra: list[str] = []
    of_training: list[str] = []
    out = Path("outputs/lab") / Path(parsed.STUDY).stem
    for word in parsed.overrides:
        key, equals, value = word.partition("=")
        if not equals:
            raise InputError(f"override: expected key=value, found {word!r}")
        if key == "out":
            out = Path(value)
        elif key.lstrip("+~").startswith("hydra"):
            of_hydra.append(word)
        else:
            of_training.append(word)

    from vla_policy.lab.run import begin

    study = begin(Path(parsed.STUDY), out)
    numbers = ",".join(str(number) for number in range(len(study.cells())))
    print_line(f"{study.title}: {len(study.cells())} runs, at most {study.core_hours:g} core hours, in {out}")
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    given = [f"study={_quoted(parsed.STUDY)}", f"out={_quoted(str(out))}", f"cell={numbers}"]
    shared = f"overrides=[{','.join(_quoted(word) for word in of_training)}]"
    sys.argv[1:] = ["--multirun", *given, shared, *of_hydra]
    _run()
    print_line(f"vla-lab report {out}")


@hydra.main(version_base="1.3", config_path="pkg://vla_policy.conf", config_name="lab")
@user_errors
def _run(config: DictConfig) -> None:
    from vla_policy.lab.run import begin, run_cell

    out = Path(config.out)
    run_cell(begin(Path(config.study), out), config.cell, out, list(config.overrides))


def _quoted(text: str) -> str:
    return QuotedString(text, Quote.single).with_quotes()
