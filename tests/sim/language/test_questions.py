"""Sentences: split, unambiguous, true."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from helpers.language import four_goals

from sim import GoalConfig, PushTConfig
from sim.geometry import coverage, transform
from sim.interface import draw_start
from sim.language.instructions import TEMPLATES, centre, commanded_pose, named_goal, place, places, sentences
from sim.language.questions import KINDS, Question, corpus, offset_words, question_answer, turn_words
from vla_policy.interfaces import InputError

CONFIG = four_goals()
PUSHER = np.array([0.45, 0.0])


def words(texts: tuple[str, ...]) -> set[str]:
    return {word.strip(",") for text in texts for word in text.split()}


def answers(block_pose: np.ndarray, pusher: np.ndarray = PUSHER, config: PushTConfig = CONFIG) -> dict[str, str]:
    """Every question about this scene with its answer."""
    generator = np.random.default_rng(0)
    return dict(question_answer(pusher, block_pose, config, generator) for _ in range(1200))


def test_training_and_held_out_sentences_share_words_not_sentences() -> None:
    assert len(TEMPLATES["training"]) >= 12
    assert len(TEMPLATES["held_out"]) >= 6
    assert not set(TEMPLATES["training"]) & set(TEMPLATES["held_out"])
    new = [t for t in TEMPLATES["held_out"] if words((t,)) - words(TEMPLATES["training"])]
    assert len(new) <= 3  # a few have a new word


def test_every_sentence_names_one_goal() -> None:
    meaning: dict[str, str] = {}
    for goal in CONFIG.goals:
        for split in TEMPLATES:
            for sentence in sentences(CONFIG, goal, split):
                assert meaning.setdefault(sentence, goal) == goal
                assert named_goal(sentence, CONFIG) == goal
                assert len(sentence.split()) <= 20
    assert len(meaning) == sum(map(len, TEMPLATES.values())) * 4 * 4
    assert named_goal("push the T to the pink goal", CONFIG) is None
    np.testing.assert_array_equal(commanded_pose("push the T to the red goal", CONFIG), CONFIG.goals["red"].pose)
    np.testing.assert_array_equal(commanded_pose("anything", PushTConfig()), PushTConfig().goal_pose)
    with pytest.raises(InputError, match=r"names a goal of \['red', .* found 'push it'"):
        commanded_pose("push it", CONFIG)


def test_places_are_as_the_arm_sees_them() -> None:
    assert places(CONFIG) == {"red": "far left", "green": "far right", "blue": "near left", "yellow": "near right"}
    assert place(np.array([0.50, 0.10, 0.0])) == "far left"  # x is forward, y is left
    beside = {"pink": GoalConfig((0.56, 0.10, 0.0), (1.0, 0.5, 0.5))}
    shared = replace(CONFIG, goals=CONFIG.goals | beside)
    assert set(places(shared)) == {"green", "blue", "yellow"}  # two goals are far left: colours alone tell them apart
    assert not any("far left" in s for s in sentences(shared, "red"))


def test_goals_are_apart_and_inside() -> None:
    poses = [np.array(goal.pose) for goal in CONFIG.goals.values()]
    for i, pose in enumerate(poses):
        assert [coverage(other, pose) > 0 for other in poses] == [j == i for j in range(4)]
    assert len({pose[2] for pose in poses}) == 4


def test_words_for_offsets_and_turns() -> None:
    assert offset_words(np.array([0.0, 0.07])) == "7 cm left of it"
    assert offset_words(np.array([-0.031, -0.068])) == "7 cm right of it, 3 cm before it"
    assert offset_words(np.array([0.052, 0.004])) == "5 cm beyond it"
    assert offset_words(np.array([0.004, -0.004])) == "at it"
    assert turn_words(np.radians(-42)) == "turned 40 degrees clockwise"
    assert turn_words(np.radians(86)) == "turned 90 degrees counterclockwise"
    assert turn_words(np.radians(358)) == "not turned"
    assert turn_words(np.radians(177)) == turn_words(np.radians(-178)) == "turned 180 degrees"


def test_answers_are_true() -> None:
    """The T 7 cm left of the red goal's place, turned 40 degrees clockwise: by hand, whatever the goal's angle."""
    red = np.array(CONFIG.goals["red"].pose)
    angle = red[2] - np.radians(40)
    origin = centre(red) + np.array([0.0, 0.07]) - centre(np.array([0.0, 0.0, angle]))
    told = answers(np.append(origin, angle), pusher=centre(red) + np.array([0.05, 0.07]))
    assert told["where is the T seen from the red goal?"] == "7 cm left of it, turned 40 degrees clockwise"
    assert told["what do you see?"] == "the T is 7 cm left of the red goal, turned 40 degrees clockwise"
    assert told["how is the T turned against the red goal?"] == "turned 40 degrees clockwise"
    assert told["how far is the T from the red goal?"] == "7 cm"
    assert told["which goal is nearest to the T?"] == "the red goal"
    assert told["where is the pusher seen from the T?"] == "5 cm beyond it"
    assert told["where is the T?"] == "at the arm's far left"
    assert told["where is the yellow goal?"] == "at the arm's near right"
    assert told["which goal is at the arm's far right?"] == "the green goal"
    assert told["how much of the yellow goal does the T cover?"] == "nothing"
    exactly = answers(red)
    assert exactly["how much of the red goal does the T cover?"] == "100 percent"
    assert exactly["what do you see?"] == "the T is at the red goal, not turned"
    np.testing.assert_allclose(centre(red), transform(np.array([[-0.030536, 0.0]]), red)[0], atol=1e-5)


def test_answers_agree_with_the_geometry_of_random_scenes() -> None:
    generator = np.random.default_rng(1)
    for _ in range(300):
        pusher, pose = draw_start(generator)
        question, answer = question_answer(pusher, pose, CONFIG, generator)
        assert len(answer.split()) <= 20
        if found := re.fullmatch(r"how far is the T from the (\w+) goal\?", question):
            goal = np.array(CONFIG.goals[found[1]].pose)
            assert abs(float(answer.split()[0]) / 100 - np.linalg.norm(centre(pose) - centre(goal))) <= 0.005 + 1e-9


def test_an_instruction_is_answered_by_its_goal_and_where_the_block_is() -> None:
    generator = np.random.default_rng(0)
    red = np.array(CONFIG.goals["red"].pose)
    told = [question_answer(PUSHER, red, CONFIG, generator, "instruction") for _ in range(40)]
    for question, answer in told:
        goal = named_goal(question, CONFIG)
        assert goal is not None
        assert answer == f"the {goal} goal, with the T {question_answer_of('where', goal, red)}"
    drawn = [question_answer(PUSHER, red, CONFIG, generator)[0] for _ in range(400)]
    assert 150 < sum(named_goal(question, CONFIG) is not None for question in drawn) < 250


def question_answer_of(kind: str, goal: str, block_pose: np.ndarray) -> str:
    return KINDS[kind](Question(PUSHER, block_pose, goal, CONFIG, np.random.default_rng(0)))[1]


def test_corpus_and_questions_repeat_with_their_generator() -> None:
    first, second, other = (list(corpus(CONFIG, 90, np.random.default_rng(seed))) for seed in (0, 0, 1))
    assert first == second != other
    assert len(first) == 90
    training = {s for goal in CONFIG.goals for s in sentences(CONFIG, goal, "training")}
    assert all(sentence in training for sentence in first[::3])
    assert all(sentence.endswith("?") or sentence in training for sentence in first[1::3])
    held_out = list(corpus(replace(CONFIG, paraphrases="held_out"), 90, np.random.default_rng(0)))
    assert held_out == first  # held-out sentences stay unseen


def test_a_scene_without_goals_is_refused() -> None:
    with pytest.raises(InputError, match=r"scene\.goals: expected at least one goal"):
        question_answer(PUSHER, np.zeros(3), PushTConfig(), np.random.default_rng(0))
    with pytest.raises(InputError, match=r"scene\.goals: expected at least one goal"):
        next(corpus(PushTConfig(), 3, np.random.default_rng(0)))
