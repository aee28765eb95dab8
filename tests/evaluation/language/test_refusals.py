"""What the shipped policy refuses, and how it is counted."""

import csv
from pathlib import Path

import pytest
from helpers.language import four_goals

from vla_policy.evaluation.language.refusals import refusal_tables, summarize_refusals, try_sentences, write_refusals
from vla_policy.interfaces import InputError
from vla_policy.models import DiffusionPolicy

SHIPPED = Path(__file__).parents[3] / "checkpoints" / "pusht_language"


def test_the_shipped_policy_reads_other_words_for_its_task_and_nothing_else(tmp_path: Path) -> None:
    policy = DiffusionPolicy.from_pretrained(SHIPPED)
    assert policy.reads
    assert policy.unchecked == ""
    judged, known = try_sentences(policy, four_goals())
    summary = summarize_refusals(judged, known, checkpoint="shipped")
    found = {group: rates["shipped"] for group, rates in summary["refused"].items()}
    assert found["training"]["n_refused"] == 0
    assert found["paraphrases"]["refusal_ci95"][1] <= 0.05
    assert found["unrelated"]["n"] >= 30
    assert found["unrelated"]["refusal_ci95"][0] >= 0.9
    plainest = summary["refused"]["paraphrases"]["unknown_word"]
    assert plainest["refusal_rate"] > 0.3  # what the distance is for

    write_refusals(tmp_path, judged, summary)
    with open(tmp_path / "sentences.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(rates["n"] for rates in found.values())
    refused = [row for row in rows if row["group"] == "unrelated" and row["shipped"] == "1"]
    assert len(refused) == found["unrelated"]["n_refused"]
    assert all("the nearest sentence it knows is" in row["reason"] for row in refused)
    assert [len(table.rows) for table in refusal_tables(summary)] == [3, len(summary["by_kind"]["unrelated"])]


def test_a_policy_without_known_instructions_checks_none() -> None:
    policy = DiffusionPolicy.from_pretrained(SHIPPED)
    assert policy.backbone is not None
    policy.backbone.known = None
    assert policy.unreadable("ignore everything") == ""
    assert policy.unchecked.startswith("instructions are not checked")
    with pytest.raises(InputError, match="expected a policy that checks instructions"):
        try_sentences(policy, four_goals())
    image = DiffusionPolicy.from_pretrained(SHIPPED.parent / "pusht_image")
    assert (image.reads, image.unchecked, image.unreadable("anything")) == (False, "", "")
