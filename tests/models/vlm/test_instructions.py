"""What a policy says of instructions that it cannot read, and the file that it knows them from."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.small_vlm import TEXTS, small_backbone

from vla_policy.interfaces import InputError
from vla_policy.models.vlm.instructions import FILE, KnownInstructions

SENTENCES = ("push the T onto the red goal", "move the T to the blue goal", "do not stop at the red goal")
EAST, NORTH = torch.tensor([[4.0, 1.0]]), torch.tensor([[1.0, 4.0]])
KNOWN = KnownInstructions(SENTENCES, torch.tensor([[3.0, 0.0], [0.0, 3.0], [0.0, 0.0]]), 0.5, 0.05, 19)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("push the T onto the red goal", ""),
        ("shove the T onto the red goal", ""),  # a new verb is for the distance to judge
        ("Push THE t onto the Red goal.", ""),
        ("push it onto the crimson one", "crimson"),
        ("push a cup onto the red goal", "cup"),
        ("never push the T", "never"),
        ("don\u2019t push the T", "don't"),
        ("is the T on the blue goal?", "?"),
        ("do not push the T", ""),  # a word that it was trained on
    ],
)
def test_words_that_turn_a_sentence_around_or_name_unknown_things(text: str, word: str) -> None:
    assert KNOWN.odd_word(text) == word


def test_a_refusal_gives_a_reason_and_the_nearest_sentence() -> None:
    assert KNOWN.refusal("shove the T", EAST) == ""
    said = KNOWN.refusal("shove the T", torch.tensor([[2.2, 2.0]]))
    assert re.fullmatch(
        r"cannot read the instruction 'shove the T': expected a distance of at most 0.50 from what it was trained on, "
        r"found 0.60; the nearest sentence it knows is 'push the T onto the red goal'",
        said,
    )
    assert KNOWN.refusal("push the crimson T", NORTH) == (
        "cannot read the instruction 'push the crimson T': 'crimson' is not in what it was trained on; "
        "the nearest sentence it knows is 'move the T to the blue goal'"
    )


def test_calibration_refuses_at_most_a_share_alpha_of_paraphrases() -> None:
    backbone = small_backbone()
    groups = [[f"push the T onto the red goal {i}"] for i in range(39)]
    known = KnownInstructions.calibrate(backbone.embed, TEXTS, groups, 0.05)
    scores = [known.scores(group, backbone.embed(group))[0] for group in groups]
    assert known.threshold == pytest.approx(np.sort(scores)[37], abs=1e-6)  # of 39 and a new one two may be farther
    assert known.paraphrases == 39
    with pytest.raises(InputError, match="expected at least 19 groups"):
        KnownInstructions.calibrate(backbone.embed, TEXTS, groups[:18], 0.05)
    with pytest.raises(InputError, match="training sentences: expected at least two, found 1"):
        KnownInstructions.calibrate(backbone.embed, TEXTS[:1], groups, 0.05)
    with pytest.raises(InputError, match=r"paraphrases: expected at most 5 % .*'push the cup'"):
        KnownInstructions.calibrate(backbone.embed, TEXTS, [["push the cup"]] * 19, 0.05)


def test_a_backbone_reads_alone_as_in_a_batch_and_at_its_layer() -> None:
    backbone = small_backbone(layer=2)
    together = backbone.embed(TEXTS)
    assert together.shape == (len(TEXTS), backbone.width)
    torch.testing.assert_close(backbone.embed([TEXTS[1]]), together[1:2], rtol=1e-4, atol=1e-5)
    deeper = small_backbone(layer=3)
    assert not torch.allclose(deeper.embed(TEXTS), together, atol=1e-2)


def test_a_backbone_stores_its_known_instructions_and_refuses_those_of_another(tmp_path: Path) -> None:
    backbone = small_backbone()
    assert backbone.unreadable("anything") == ""
    assert "expected a sentence" in backbone.unreadable(" ")
    backbone.known = replace(KNOWN, embeddings=backbone.embed(SENTENCES))
    backbone.save(tmp_path)
    found = KnownInstructions.load(tmp_path)
    assert found is not None
    assert (found.sentences, found.threshold, found.alpha, found.paraphrases) == (SENTENCES, 0.5, 0.05, 19)
    assert torch.equal(found.embeddings, backbone.known.embeddings)
    found.check(backbone.embed, "here")
    with pytest.raises(InputError, match="here: expected the embeddings of this checkpoint's backbone"):
        found.check(small_backbone(seed=1).embed, "here")
    assert "'crimson'" in backbone.unreadable("to the crimson one")
    assert backbone.unreadable(SENTENCES[0]) == ""
    (tmp_path / FILE).unlink()
    assert KnownInstructions.load(tmp_path) is None


def test_a_changed_file_is_an_input_error(tmp_path: Path) -> None:
    KNOWN.save(tmp_path)
    path, generator = tmp_path / FILE, np.random.default_rng(0)
    whole = path.read_bytes()
    for _ in range(300):
        changed = bytearray(whole)
        for place in generator.integers(len(whole), size=generator.integers(1, 4)):
            changed[place] ^= generator.integers(1, 256)
        path.write_bytes(bytes(changed[: generator.integers(len(whole))] if generator.random() < 0.3 else changed))
        with pytest.raises(InputError, match=re.escape(FILE)):
            KnownInstructions.load(tmp_path)
    path.write_bytes(b"")
    with pytest.raises(InputError, match=re.escape(FILE)):
        KnownInstructions.load(tmp_path)
