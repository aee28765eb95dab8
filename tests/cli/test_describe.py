"""vla-describe as a person uses it."""

from pathlib import Path

import numpy as np
import pytest
from helpers.commands import error_of
from helpers.small_diffusion import small_policy
from helpers.small_vlm import TINY, small_backbone
from PIL import Image

from vla_policy.cli.describe import main
from vla_policy.models import BackboneConfig


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("describe")
    policy = small_policy(image=True, backbone=small_backbone(), backbone_config=BackboneConfig(tiny=TINY))
    policy.save_pretrained(folder / "vla")
    small_policy(image=True).save_pretrained(folder / "blind")
    generator = np.random.default_rng(0)
    for name, size in (("top", 96), ("large", 128)):
        Image.fromarray(generator.integers(0, 256, (size, size, 3), dtype=np.uint8)).save(folder / f"{name}.png")
    (folder / "text.png").write_text("no picture")
    return folder


def test_the_question_is_printed_with_the_answer(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(folder / "vla"), str(folder / "top.png"), "wo ist das T?"])
    question, answer = capsys.readouterr().out.splitlines()[:2]
    assert question == "question: wo ist das T?"
    assert answer.startswith("answer:")


def test_a_draft_is_another_way_to_the_same_answer(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0})  # without a process, which takes seconds to start
    words = [str(folder / "vla"), str(folder / "top.png"), "wo ist das T?"]
    main(words)
    plain = capsys.readouterr().out.splitlines()
    main([*words, f"draft={folder / 'vla'}"])
    drafted = capsys.readouterr().out.splitlines()
    assert drafted[:2] == plain[:2]
    count, passes = (int(word) for word in drafted[2].split() if word.isdigit())
    assert passes == -(-count // 5)  # four drafted tokens and one more: the model never refuses its own


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["vla", "large.png", "where?"], "expected 96 x 96 pixels as the policy's camera has, found 128 x 128"),
        (["vla", "top.png", "top.png", "where?"], "expected 1 images, of ['observation.images.top'], found 2"),
        (["vla", "top.png", " "], "question: expected a sentence, found ' '"),
        (["vla", "top.png", "where? " * 99], "question: expected at most 64 tokens"),
        (["vla", "text.png", "where?"], "text.png: expected an image"),
        (["vla", "none.png", "where?"], "none.png: expected an image, found no such file"),
        (["vla", "top.png", "where?", "draft=none"], "checkpoint 'none': no such folder"),
        (["blind", "top.png", "where?"], "expected a policy with a vision-language backbone, found none to ask"),
    ],
)
def test_mistakes_are_one_line(folder: Path, arguments: list[str], message: str) -> None:
    paths = [folder / word if word in ("vla", "blind") or word.endswith(".png") else word for word in arguments]
    assert message in error_of(main, *paths)
