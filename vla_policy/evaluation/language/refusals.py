"""Refusal of instructions: held-out paraphrases should be accepted, unrelated sentences refused.

The detector is compared with each of its two parts alone, and with the rule to refuse any word that is not in the
training sentences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from sim import PushTConfig
from sim.language.instructions import TEMPLATES, sentences
from sim.language.refusals import PARAPHRASES, UNRELATED, paraphrases
from vla_policy.evaluation.formats import interval, percent
from vla_policy.evaluation.options import ComputeOptions, SceneOptions
from vla_policy.evaluation.success.report import refusal_rate
from vla_policy.interfaces import InputError
from vla_policy.models import DiffusionPolicy
from vla_policy.models.vlm.backbone import Backbone
from vla_policy.models.vlm.instructions import KnownInstructions, words
from vla_policy.monitoring import grouped_threshold
from vla_policy.utils.files import write_csv, write_json
from vla_policy.utils.provenance import git_commit

DETECTORS = {
    "shipped": "distance and word rules",
    "distance_alone": "distance alone",
    "rules_alone": "word rules alone",
    "unknown_word": "any unknown word",
}


@dataclass
class RefusalsConfig(ComputeOptions, SceneOptions):
    """Rates at which a policy refuses paraphrases and unrelated sentences."""

    out: str = "outputs/refusals/${now:%Y-%m-%d_%H-%M-%S}"  # folder of the results


@dataclass(frozen=True)
class Sentence:
    """A tested sentence: its `group` and the `kind` within it, and which detectors refuse it."""

    group: str
    kind: str
    text: str
    distance: float
    reason: str
    refused: dict[str, bool]


def try_sentences(policy: DiffusionPolicy, scene: PushTConfig) -> tuple[list[Sentence], KnownInstructions]:
    """Test training sentences, held-out paraphrases and unrelated sentences on the policy's known instructions.

    `InputError` for a policy that does not check instructions.
    """
    backbone = policy.backbone
    known = None if backbone is None else backbone.known
    if backbone is None or known is None:
        raise InputError(
            "vla-eval refusals: expected a policy that checks instructions, found none (vla-calibrate instructions)"
        )
    tried = [("training", goal, text) for goal in scene.goals for text in sentences(scene, goal, "training")]
    templates = (*TEMPLATES["held_out"], *PARAPHRASES["reported"])
    for template, texts in zip(templates, paraphrases(scene, templates), strict=True):
        tried += [("paraphrases", template, text) for text in texts]
    tried += [("unrelated", kind, text) for kind, texts in UNRELATED["reported"].items() for text in texts]
    limit, embeddings = _distance_threshold(backbone, known, scene), backbone.embed([text for *_, text in tried])
    judged = []
    for (group, kind, text), embedding in zip(tried, embeddings, strict=True):
        distance, reason = float(known.distances(embedding[None]).min()), known.refusal(text, embedding[None])
        refused = {
            "shipped": bool(reason),
            "distance_alone": distance > limit,
            "rules_alone": bool(known.odd_word(text)),
            "unknown_word": not known.vocabulary.issuperset(words(text)),
        }
        judged.append(Sentence(group, kind, text, distance, reason, refused))
    return judged, known


def _distance_threshold(backbone: Backbone, known: KnownInstructions, scene: PushTConfig) -> float:
    """The threshold of the distance alone, calibrated on the same paraphrases at the same level."""
    groups = paraphrases(scene, PARAPHRASES["calibration"])
    distances = [known.distances(backbone.embed(group)).min(dim=1).values.numpy() for group in groups]
    return grouped_threshold(distances, known.alpha)


def summarize_refusals(judged: Sequence[Sentence], known: KnownInstructions, **more: Any) -> dict[str, Any]:
    """Refusal rates of each detector by group and kind, with exact intervals."""
    groups = dict.fromkeys(s.group for s in judged)
    kinds = {group: dict.fromkeys(s.kind for s in judged if s.group == group) for group in groups}
    return {
        "alpha": known.alpha,
        "threshold": known.threshold,
        "calibration_paraphrases": known.paraphrases,
        "refused": {group: _rates([s for s in judged if s.group == group]) for group in groups},
        "by_kind": {
            group: {kind: _rates([s for s in judged if (s.group, s.kind) == (group, kind)]) for kind in kinds[group]}
            for group in groups
            if group != "training"
        },
        "detectors": DETECTORS,
        "ci95_method": "exact (Clopper-Pearson), assuming independent sentences",
        "git_commit": git_commit(),
        **more,
    }


def _rates(judged: Sequence[Sentence]) -> dict[str, Any]:
    return {name: refusal_rate([s.refused[name] for s in judged]) for name in DETECTORS}


def write_refusals(out: Path, judged: Sequence[Sentence], summary: dict[str, Any]) -> None:
    """Write summary.json and sentences.csv, a row per sentence, to `out`."""
    plain = ("group", "kind", "text", "distance", "reason")
    rows = [
        {name: getattr(s, name) for name in plain} | {name: int(value) for name, value in s.refused.items()}
        for s in judged
    ]
    write_csv(out / "sentences.csv", [*plain, *DETECTORS], rows)
    write_json(out / "summary.json", summary)


def refusal_tables(summary: dict[str, Any]) -> list[Table]:
    """Tables of refusals by group, and by kind of unrelated sentence."""
    rates = Table("refused", *DETECTORS.values(), title="sentences refused  [95 %]", title_justify="left")
    for group, found in summary["refused"].items():
        rates.add_row(f"{group} ({found['shipped']['n']})", *(_show(found[name]) for name in DETECTORS))
    kinds = Table("unrelated", "n", *DETECTORS.values(), title="refused, by what is wrong with them")
    for kind, found in summary["by_kind"]["unrelated"].items():
        kinds.add_row(kind, str(found["shipped"]["n"]), *(str(found[name]["n_refused"]) for name in DETECTORS))
    return [rates, kinds]


def _show(found: dict[str, Any]) -> str:
    return f"{found['n_refused']} = {percent(found['refusal_rate'])}  {interval(found['refusal_ci95'], 100, 1)}"
