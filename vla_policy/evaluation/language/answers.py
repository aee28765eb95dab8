"""Visual question answering with the language head of a policy's backbone, on recorded frames.

The true answers are computed from the recorded state. There are two baselines: the most frequent answer to the same
question in other episodes, which ignores the image, and the model's answer about the image of another frame.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch

from sim import PushTConfig
from sim.geometry import pose_from_features
from sim.interface import pusht_interface
from sim.language.instructions import meanings
from sim.language.questions import KINDS, question_answer
from vla_policy.data import LeRobotDataset
from vla_policy.evaluation.options import ComputeOptions, SceneOptions
from vla_policy.evaluation.success.open_loop import held_out_episodes, stated_episodes
from vla_policy.interfaces import ENVIRONMENT_STATE, STATE, InputError
from vla_policy.models import DiffusionPolicy

EXAMPLES = 20_000  # questions about other episodes, for the most frequent answers


@dataclass
class AnswersConfig(ComputeOptions, SceneOptions):
    """Questions about the images of recorded episodes."""

    n_questions: int = 200  # each about another frame, cycling through the kinds
    draft: str | None = None  # checkpoint of a smaller model with the same tokenizer, which drafts the answers
    episodes: list[int] | None = None  # e.g. [0,3,7]; null: the held-out ones that the checkpoint states
    seed: int = 0  # of frames and questions
    out: str = "outputs/answers/${now:%Y-%m-%d_%H-%M-%S}"  # folder of the results

    def __post_init__(self) -> None:
        if self.n_questions < 2:
            raise InputError(f"n_questions: expected at least 2, found {self.n_questions}")


@dataclass(frozen=True)
class Question:
    """A question about a frame of an episode, and the true answer."""

    episode: int
    frame: int
    kind: str
    question: str
    truth: str


@dataclass(frozen=True)
class Answered(Question):
    """A question with the policy's answer, the most frequent one, and the answer about another frame's image."""

    answer: str
    most_frequent: str
    other_picture: str


@dataclass(frozen=True)
class Scenes:
    """The frames of some episodes: episode and frame (N, 2), the pusher (N, 2) and the block's pose (N, 3)."""

    places: np.ndarray
    pushers: np.ndarray
    poses: np.ndarray

    @classmethod
    def read(cls, dataset: LeRobotDataset, episodes: Sequence[int]) -> Scenes:
        read = [dataset.episode(index) for index in episodes]
        places = [np.stack([np.full(e.length, e.index), np.arange(e.length)], axis=1) for e in read]
        states = [np.concatenate([e.columns[key] for e in read]) for key in (STATE, ENVIRONMENT_STATE)]
        return cls(np.concatenate(places), states[0], pose_from_features(states[1]))

    def __len__(self) -> int:
        return len(self.places)


def ask(
    policy: DiffusionPolicy,
    dataset: LeRobotDataset,
    config: AnswersConfig,
    on_answer: Callable[[], None] | None = None,
) -> list[Answered]:
    """Ask the policy questions about the held-out episodes.

    `InputError` if it has no backbone, does not match the dataset, or there are too few frames.
    """
    backbone = policy.backbone
    if backbone is None:
        raise InputError("vla-eval answers: expected a policy with a vision-language backbone, found none to ask")
    policy.interface.require(dataset.interface, "the policy", str(dataset.root))
    pusht_interface({}).require(dataset.interface, "questions about the scene", str(dataset.root))
    episodes = sorted({*held_out_episodes(config.episodes, policy.card, dataset)})
    rest = set(dataset.episodes) - {*episodes, *stated_episodes(policy.card, dataset)}
    if not rest:
        raise InputError("episodes: expected others to remain for the most frequent answers, found all of them")
    scene, generator = config.pusht, np.random.default_rng(config.seed)
    questions = draw_questions(Scenes.read(dataset, episodes), scene, config.n_questions, generator)
    frequent = most_frequent_answers(questions, Scenes.read(dataset, sorted(rest)), scene, generator)
    pictures = read_pictures(dataset, questions, policy.interface.cameras, policy.device)
    others = pictures[len(pictures) // 2 :] + pictures[: len(pictures) // 2]  # frames are sorted: far apart
    answered = []
    for asked, common, seen, other in zip(questions, frequent, pictures, others, strict=True):
        answer, about_other = backbone.answer(seen, asked.question), backbone.answer(other, asked.question)
        answered.append(Answered(**asdict(asked), answer=answer, most_frequent=common, other_picture=about_other))
        if on_answer is not None:
            on_answer()
    return answered


def draw_questions(scenes: Scenes, config: PushTConfig, count: int, generator: np.random.Generator) -> list[Question]:
    """Questions that cycle through the kinds, each about another frame, sorted by frame."""
    if count > len(scenes):
        raise InputError(f"n_questions: expected at most {len(scenes)}, the number of frames, found {count}")
    chosen = np.sort(generator.choice(len(scenes), count, replace=False))
    questions = []
    for i, row in enumerate(chosen):
        kind = list(KINDS)[i % len(KINDS)]
        episode, frame = scenes.places[row].tolist()
        pair = question_answer(scenes.pushers[row], scenes.poses[row], config, generator, kind)
        questions.append(Question(episode, frame, kind, *pair))
    return questions


def most_frequent_answers(
    questions: Sequence[Question], scenes: Scenes, config: PushTConfig, generator: np.random.Generator
) -> list[str]:
    """The most frequent answer to each question in `scenes`; instructions for the same goal count as one question."""
    goals = meanings(config)
    answers: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for row in generator.integers(len(scenes), size=EXAMPLES):
        question, answer = question_answer(scenes.pushers[row], scenes.poses[row], config, generator)
        answers[goals.get(question, question)][answer] += 1
    return [answers[goals.get(q.question, q.question)].most_common(1)[0][0] for q in questions]


def read_pictures(
    dataset: LeRobotDataset, questions: Sequence[Question], cameras: Sequence[str], device: torch.device
) -> list[list[torch.Tensor]]:
    """For each question an image (1, H, W, 3) per camera; questions are sorted by frame."""
    wanted: defaultdict[int, list[int]] = defaultdict(list)
    for asked in questions:
        wanted[asked.episode].append(asked.frame)
    pictures: list[list[torch.Tensor]] = []
    for episode, frames in wanted.items():
        by_camera = []
        for key in cameras:
            film = enumerate(dataset.iter_frames(episode, key))
            by_camera.append([torch.from_numpy(picture)[None].to(device) for k, picture in film if k in frames])
        pictures += [list(together) for together in zip(*by_camera, strict=True)]
    return pictures
