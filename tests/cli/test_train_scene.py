"""What training adds to a dataset of instructions: other sentences for the same goal, questions about the scene."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from sim.language.instructions import meanings, named_goal, sentences
from vla_policy.interfaces import ENVIRONMENT_STATE, STATE
from vla_policy.jobs.scene import annotation, rewording, scene_of
from vla_policy.models import BACKBONE_HIDDEN, BACKBONE_REAL, PolicyConfig
from vla_policy.training import FrozenWindows
from vla_policy.utils.configuration import load_config

CONFIG = load_config("train", ["scene=pusht_language", "data.root=nowhere"])
SCENE = scene_of(CONFIG)
assert SCENE is not None
TRAINING = {sentence for goal in SCENE.goals for sentence in sentences(SCENE, goal, "training")}


def reworded(sentence: str, count: int = 300) -> set[str]:
    reword, generator = rewording(CONFIG), np.random.default_rng(0)
    assert reword is not None
    return {reword(sentence, generator) for _ in range(count)}


def test_an_instruction_is_reworded_to_any_training_sentence_of_its_goal() -> None:
    assert SCENE is not None
    assert reworded("push the T to the red goal", 1000) == set(sentences(SCENE, "red", "training"))
    held_out = reworded("shove the T onto the blue target")
    assert held_out <= TRAINING
    assert {meanings(SCENE)[sentence] for sentence in held_out} == {"blue"}
    assert reworded("tidy up") == {"tidy up"}
    assert rewording(load_config("train", ["scene=pusht", "data.root=nowhere"])) is None


def test_every_scene_is_asked_about_unless_the_language_head_does_not_learn() -> None:
    policy = PolicyConfig.from_dict(CONFIG.policy)
    batch = {
        STATE: torch.tensor([[[0.4, 0.0]]] * 8),
        ENVIRONMENT_STATE: torch.tensor([[[0.5, 0.1, 1.0, 0.0]]] * 8),
        "task": ["push the T to the red goal"] * 4 + ["tidy up"] * 4,
    }
    annotate = annotation(CONFIG, policy)
    assert annotate is not None
    more = annotate(batch, np.random.default_rng(0))
    assert len(more["question"]) == len(more["answer"]) == 8
    assert SCENE is not None
    assert [named_goal(task, SCENE) for task in more["task"]] == ["red"] * 4 + [None] * 4
    policy.language_weight = 0.0
    annotate = annotation(CONFIG, policy)
    assert annotate is not None
    assert annotate(batch, np.random.default_rng(0)).keys() == {"task"}
    assert policy.backbone is not None
    policy.backbone.tuning = "frozen"
    assert annotation(CONFIG, policy) is None


class Told:
    """Windows of nothing but sentences."""

    probabilities = None

    def __len__(self) -> int:
        return 100

    def vectors(self, rows: np.ndarray) -> dict[str, Any]:
        return {"task": ["push the T to the red goal"] * len(rows)}

    __getitems__ = vectors


class Reader:
    """In place of a policy: its hidden state is the length of the sentence it was told."""

    interface = SimpleNamespace(cameras=["top"])
    backbone = SimpleNamespace(width=1, length=lambda text, cameras: 1)

    def eval(self) -> Reader:
        return self

    train = eval

    def read(self, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor, None]:
        lengths = torch.tensor([[[float(len(text))]] for text in batch["task"]])
        return lengths, torch.ones(len(lengths), 1, dtype=torch.bool), None


def test_a_frozen_backbone_reads_each_window_with_a_sentence_of_its_own(tmp_path: Path) -> None:
    plain = FrozenWindows(Told(), Reader(), tmp_path)  # type: ignore[arg-type]
    varied = FrozenWindows(Told(), Reader(), tmp_path, rewording(CONFIG))  # type: ignore[arg-type]
    again = FrozenWindows(Told(), Reader(), tmp_path, rewording(CONFIG))  # type: ignore[arg-type]
    rows = np.arange(100)
    hidden = [windows.__getitems__(rows)[BACKBONE_HIDDEN] for windows in (plain, varied, again)]
    assert len(hidden[0].unique()) == 1
    assert len(hidden[1].unique()) > 5
    assert torch.equal(hidden[1], hidden[2])
    assert varied.__getitems__(rows)[BACKBONE_REAL].all()
