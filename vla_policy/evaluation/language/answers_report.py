"""Results of visual question answering: exact matches, errors of the numbers in answers, and tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from vla_policy.evaluation.formats import interval, success_rate
from vla_policy.evaluation.language.answer_numbers import QUANTITIES, Quantity
from vla_policy.evaluation.language.answers import Answered
from vla_policy.evaluation.statistics import compare_paired, mean_interval
from vla_policy.utils.files import write_csv, write_json
from vla_policy.utils.provenance import git_commit

ANSWERS = {"answer": "answer", "most_frequent": "most frequent", "other_picture": "another picture"}


def summarize_answers(answered: Sequence[Answered], **more: Any) -> dict[str, Any]:
    """Exact matches by kind of question and overall, and errors of the numbers in answers."""
    kinds = dict.fromkeys(a.kind for a in answered)
    right = {name: _right(answered, name) for name in ANSWERS}
    return {
        "n_questions": len(answered),
        "episodes": sorted({a.episode for a in answered}),
        "all": _rates(answered),
        "kinds": {kind: _rates([a for a in answered if a.kind == kind]) for kind in kinds},
        "paired": {name: asdict(compare_paired(right[name], right["answer"])) for name in ANSWERS if name != "answer"},
        "errors": {
            name: {"unit": quantity.unit, **{by: _error(answered, quantity, by) for by in ANSWERS}}
            for name, quantity in QUANTITIES.items()
        },
        "measure": "an answer is right if it is the true one word for word",
        "ci95_method": "exact (Clopper-Pearson), assuming independent frames; bootstrap (BCa) for mean errors",
        "paired_method": "answer minus the other; Newcombe's square-and-add; exact McNemar test, two-sided",
        "git_commit": git_commit(),
        **more,
    }


def _right(answered: Sequence[Answered], name: str) -> list[bool]:
    return [getattr(a, name) == a.truth for a in answered]


def _rates(answered: Sequence[Answered]) -> dict[str, Any]:
    return {name: success_rate(_right(answered, name)) for name in ANSWERS}


def _error(answered: Sequence[Answered], quantity: Quantity, name: str) -> dict[str, Any]:
    """Mean distance of answer and truth where both contain the quantity; `n_true` counts where the truth does."""
    pairs = [(true, quantity.read(getattr(a, name))) for a in answered if (true := quantity.read(a.truth)) is not None]
    errors = [quantity.distance(true, value) for true, value in pairs if value is not None]
    mean = float(np.mean(errors)) if errors else None
    return {"n_true": len(pairs), "n": len(errors), "mean": mean, "mean_ci95": mean_interval(errors)}


def write_answers(out: Path, answered: Sequence[Answered], summary: dict[str, Any]) -> None:
    """Write summary.json and answers.csv, a row per question, to `out`."""
    write_csv(out / "answers.csv", [f.name for f in fields(Answered)], [asdict(a) for a in answered])
    write_json(out / "summary.json", summary)


def answer_tables(summary: dict[str, Any]) -> list[Table]:
    """Tables of right answers by kind of question, and of mean errors of numbers."""
    about = f"{summary['n_questions']} questions about frames of {len(summary['episodes'])} episodes"
    right = Table("right answers  [95 %]", *ANSWERS.values(), title=about, title_justify="left")
    for kind, found in {**summary["kinds"], "all": summary["all"]}.items():
        right.add_row(kind, *(_rate(found[by]) for by in ANSWERS))
    paired = summary["paired"]
    differences = [f"{100 * p['difference']:+.1f} %  {interval(p['ci95'], 100, 1)}" for p in paired.values()]
    right.add_row("answer minus it, paired", "", *differences)
    errors = Table("mean error [95 %]", "n", *ANSWERS.values(), title="numbers in the answers", title_justify="left")
    for name, found in summary["errors"].items():
        cells = [_mean_error(found[by]) for by in ANSWERS]
        errors.add_row(f"{name}, {found['unit']}", str(found["answer"]["n_true"]), *cells)
    return [right, errors]


def _rate(found: dict[str, Any]) -> str:
    return f"{found['n_success']} / {found['n']}  {interval(found['success_ci95'], 100, 1)} %"


def _mean_error(found: dict[str, Any]) -> str:
    """The mean error, with the number of answers that contain the quantity, if some do not."""
    if found["mean"] is None:
        return "-"
    some = "" if found["n"] == found["n_true"] else f" (n = {found['n']})"
    return f"{found['mean']:.1f}  {interval(found['mean_ci95'], digits=1)}{some}"
