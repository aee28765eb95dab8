"""Questions about recorded frames, with backbones whose answers are known."""

from __future__ import annotations

import csv
import itertools
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.language import four_goals
from helpers.small_dataset import make_small_dataset
from helpers.small_diffusion import TOP, pusht_interface, small_policy
from helpers.small_vlm import TINY, small_backbone
from omegaconf import OmegaConf
from rich.console import Console

from sim.geometry import pose_features, pose_from_features
from sim.interface import draw_start
from sim.language.instructions import meanings
from sim.language.questions import KINDS, Question, offset_words, turn_words
from vla_policy.cli.eval import main
from vla_policy.data import LeRobotDataset, LeRobotWriter
from vla_policy.evaluation.language import answers
from vla_policy.evaluation.language.answer_numbers import QUANTITIES, parse_distance, parse_offset, parse_turn
from vla_policy.evaluation.language.answers import Answered, AnswersConfig, ask
from vla_policy.evaluation.language.answers_report import answer_tables, summarize_answers
from vla_policy.interfaces import ACTION, ENVIRONMENT_STATE, STATE, InputError
from vla_policy.models import BackboneConfig
from vla_policy.utils.configuration import load_config
from vla_policy.utils.files import read_json

EPISODES, LENGTH = 4, 12
EXAMPLES = 500  # questions about other episodes, for the most frequent answers; each of some thirty comes up
SCENE = four_goals()
HELD_OUT = {"data": {"held_out_episodes": [1, 3]}}


@pytest.fixture(autouse=True)
def few_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "EXAMPLES", EXAMPLES)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> LeRobotDataset:
    """Random scenes; a frame's picture is as bright as its number among all."""
    root = tmp_path_factory.mktemp("answers") / "language"
    generator = np.random.default_rng(0)
    with LeRobotWriter(root, pusht_interface()) as writer:
        for episode in range(EPISODES):
            pushers, poses = zip(*(draw_start(generator) for _ in range(LENGTH)), strict=True)
            state = np.array(pushers, np.float32)
            blocks = pose_features(np.array(poses)).astype(np.float32)
            columns = {STATE: state, ENVIRONMENT_STATE: blocks, ACTION: state}
            grey = 5 * (episode * LENGTH + np.arange(LENGTH, dtype=np.uint8))
            pictures = np.broadcast_to(grey[:, None, None, None], (LENGTH, 96, 96, 3)).copy()
            writer.add_episode(columns, {TOP: pictures}, "push the T onto the red goal")
    return LeRobotDataset(root)


def policy_of(**config: Any) -> Any:
    return small_policy(image=True, backbone=small_backbone(), backbone_config=BackboneConfig(tiny=TINY), **config)


class Knows:
    """Reads the frame's number from its brightness and tells the truth about that frame."""

    def __init__(self, dataset: LeRobotDataset) -> None:
        episodes = [dataset.episode(index).columns for index in range(EPISODES)]
        self.pushers = np.concatenate([columns[STATE] for columns in episodes])
        self.poses = pose_from_features(np.concatenate([columns[ENVIRONMENT_STATE] for columns in episodes]))
        self.asked: list[int] = []

    def answer(self, frames: Sequence[torch.Tensor], question: str) -> str:
        assert [frame.shape for frame in frames] == [(1, 96, 96, 3)]
        row = round(float(frames[0].float().mean()) / 5)
        self.asked.append(row)
        goals, truths = meanings(SCENE), {}
        for kind, goal in itertools.product(KINDS.values(), SCENE.goals):
            asked, answer = kind(Question(self.pushers[row], self.poses[row], goal, SCENE, np.random.default_rng(0)))
            truths[goals.get(asked, asked)] = answer
        return truths[goals.get(question, question)]


def config_of(**values: Any) -> AnswersConfig:
    scene = OmegaConf.to_container(load_config("answers", []).scene, resolve=True)
    return AnswersConfig(**{"scene": scene, "n_questions": 2 * len(KINDS), **values})


def knowing(dataset: LeRobotDataset, **values: Any) -> tuple[list[Answered], Knows]:
    policy, knows = policy_of(), Knows(dataset)
    policy.card = HELD_OUT
    policy._modules["backbone"] = knows
    return ask(policy, dataset, config_of(**values)), knows


def test_a_perfect_backbone_is_right_but_not_from_another_picture(dataset: LeRobotDataset) -> None:
    answered, knows = knowing(dataset)
    assert [a.answer for a in answered] == [a.truth for a in answered]
    assert {a.episode for a in answered} == {1, 3}
    assert Counter(a.kind for a in answered) == dict.fromkeys(KINDS, 2)
    seen, other = knows.asked[::2], knows.asked[1::2]
    assert seen == [a.episode * LENGTH + a.frame for a in answered] == sorted(set(seen))  # each another frame
    assert sorted(other) == seen
    assert not any(a == b for a, b in zip(seen, other, strict=True))
    assert any(a.other_picture != a.truth for a in answered)
    for a in answered:  # the goals stay where they are: words alone tell, and any picture will do
        if re.fullmatch(r"where is the \w+ goal\?", a.question):
            assert a.truth == a.most_frequent == a.other_picture


def test_questions_repeat_with_their_seed(dataset: LeRobotDataset) -> None:
    first, again, other = (knowing(dataset, seed=seed, n_questions=4)[0] for seed in (0, 0, 1))
    assert first == again
    assert [a.question for a in other] != [a.question for a in first]


def said(kind: str, truth: str, *answers: str) -> Answered:
    return Answered(0, 0, kind, f"{kind}?", truth, *answers)


def test_summary_counts_and_measures() -> None:
    red, blue = "the red goal", "the blue goal"
    rows = [
        *[said("nearest", red, red, blue, red) for _ in range(3)],
        said("nearest", blue, red, blue, "it is blue"),
        said("where", "7 cm left of it, not turned", "4 cm left of it, 4 cm beyond it, turned 170 degrees", "", ""),
        said("turn", "turned 170 degrees clockwise", "turned 170 degrees counterclockwise", "not turned", ""),
    ]
    summary = summarize_answers(rows, checkpoint="c")
    assert summary["all"]["answer"]["n_success"] == 3
    assert summary["kinds"]["nearest"]["most_frequent"]["n_success"] == 1
    assert summary["kinds"]["nearest"]["answer"]["success_ci95"] == pytest.approx([0.1941, 0.9937], abs=1e-4)
    assert summary["paired"]["most_frequent"]["difference"] == pytest.approx(2 / 6)
    assert summary["paired"]["other_picture"]["difference"] == 0
    offset, turn = (summary["errors"][name] for name in ("offset", "turn"))
    assert (offset["answer"]["n_true"], offset["answer"]["n"], offset["answer"]["mean"]) == (1, 1, 5.0)
    assert offset["most_frequent"] == {**offset["most_frequent"], "n_true": 1, "n": 0, "mean": None}
    assert turn["answer"]["mean"] == pytest.approx((170 + 20) / 2)
    console = Console(width=140, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    for table in answer_tables(summary):
        console.print(table)
    text = console.export_text()
    for words in ("3 / 4  [19.4, 99.4] %", "+33.3 %", "offset, cm", "95.0"):
        assert words in text


def test_numbers_in_answers_are_read_back() -> None:
    generator = np.random.default_rng(0)
    for offset in generator.uniform(-0.2, 0.2, (50, 2)):
        np.testing.assert_allclose(parse_offset(offset_words(offset)), np.round(100 * offset), atol=1e-9)
    np.testing.assert_array_equal(parse_offset("the blue goal, with the T 3 cm before it, not turned"), [-3, 0])
    np.testing.assert_array_equal(parse_offset("the T is at the red goal, not turned"), [0, 0])
    for degrees in range(-170, 180, 10):
        assert parse_turn(turn_words(np.radians(degrees))) == [degrees]
    assert parse_distance("12 cm") == [12]
    for answer in ("the red goal", "nothing", "at the arm's far left", "40 percent", "7 cm to the moon", ""):
        assert [quantity.read(answer) for quantity in QUANTITIES.values()] == [None, None, None]


def test_command_asks_an_untrained_checkpoint(
    dataset: LeRobotDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = policy_of()
    policy.card = HELD_OUT
    policy.save_pretrained(tmp_path / "vla")
    out = tmp_path / "out"
    main(["answers", str(tmp_path / "vla"), str(dataset.root), "n_questions=10", "threads=1", f"out={out}"])
    summary = read_json(out / "summary.json")
    assert (summary["n_questions"], summary["episodes"]) == (10, [1, 3])
    assert summary["all"]["answer"]["n"] == 10
    rows = list(csv.DictReader((out / "answers.csv").open()))
    assert list(rows[0]) == [
        "episode", "frame", "kind", "question", "truth", "answer", "most_frequent", "other_picture"
    ]  # fmt: skip
    right = sum(row["answer"] == row["truth"] for row in rows)
    assert summary["all"]["answer"]["n_success"] == right
    assert "most frequent" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"n_questions": 1}, "n_questions: expected at least 2, found 1"),
        ({"n_questions": 25}, "n_questions: expected at most 24, the number of frames, found 25"),
        ({"episodes": [4]}, "expected an episode from 0 to 3, found 4"),
        ({"episodes": [0, 1, 2, 3]}, "episodes: expected others to remain for the most frequent answers, found all"),
        ({"scene": {}}, "scene.goals: expected at least one goal, found none"),
    ],
)
def test_mistakes_are_named(dataset: LeRobotDataset, values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        knowing(dataset, **values)


def test_what_cannot_be_asked_is_refused(dataset: LeRobotDataset, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a policy with a vision-language backbone, found none to ask"):
        ask(small_policy(image=True), dataset, config_of())
    stateless = make_small_dataset(tmp_path / "stateless", size=96)
    with pytest.raises(InputError, match=r"questions about the scene and .* observation.environment_state: missing"):
        ask(policy_of(), stateless, config_of())
