"""What a training run takes from the simulation: rollouts that select a checkpoint, text for a tokenizer, questions
about the scene.

The simulation is imported only if there is a scene: training on one's own data does not need it installed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from vla_policy.data import Windows
from vla_policy.interfaces import ENVIRONMENT_STATE, IMAGES, STATE, InputError, Interface
from vla_policy.models import DiffusionPolicy, PolicyConfig
from vla_policy.training import Annotate, RandomSymmetry, Reword, Rollouts, Symmetry

if TYPE_CHECKING:
    from sim import PushTConfig

TUNING_SEEDS = range(50_000, 100_000)
CORPUS_SIZE = 6000  # sentences of the scene that a new tokenizer is trained on


def scene_of(config: DictConfig) -> PushTConfig | None:
    """The scene of the configuration; None for one's own robot."""
    if not config.get("scene"):
        return None

    from sim import PushTConfig

    return PushTConfig.from_mapping(plain(config.scene))


def tokenizer_corpus(config: DictConfig, windows: Windows) -> list[str]:
    """The training text of a new tokenizer: the dataset's instructions and the scene's questions and answers."""
    scene = scene_of(config)
    if scene is None or not scene.goals:
        return windows.tasks

    from sim.language.questions import corpus

    return [*windows.tasks, *corpus(scene, CORPUS_SIZE, np.random.default_rng(config.seed))]


def rewording(config: DictConfig) -> Reword | None:
    """Replaces an instruction by a random training sentence for the same goal, so that it does not identify the
    episode; None without a scene that has goals. A sentence that names no goal is kept.
    """
    scene = scene_of(config)
    if scene is None or not scene.goals:
        return None

    from sim.language.instructions import meanings, sentences

    goals = meanings(scene)
    choices = {goal: sentences(scene, goal, "training") for goal in scene.goals}

    def reword(sentence: str, generator: np.random.Generator) -> str:
        same = choices.get(goals.get(sentence, ""), [sentence])
        return same[generator.integers(len(same))]

    return reword


def augmentation(config: DictConfig, chosen: Sequence[str], interface: Interface) -> RandomSymmetry | None:
    """The `chosen` symmetries (`data.symmetries`) for the features of `interface`; None without any.

    `InputError` if the scene has no such symmetry, or it cannot act on a feature.
    """
    if not chosen:
        return None
    scene = scene_of(config)
    if scene is None:
        raise InputError(f"data.symmetries: expected a scene, which says what they are, for {list(chosen)}, found none")

    from sim.symmetry import isometry, table_homography

    env = config.rollout["env"]
    cameras = [key for key in interface.cameras if key.removeprefix(IMAGES) in scene.cameras]
    views = {key: table_homography(key.removeprefix(IMAGES), scene, env) for key in cameras}
    return RandomSymmetry([Symmetry(*isometry(name, scene), views) for name in chosen], interface)


def annotation(config: DictConfig, policy: PolicyConfig) -> Annotate | None:
    """Adds reworded instructions and, if the language head is trained, questions to a batch; None without a scene that
    has goals, or if the backbone is not trained.
    """
    reword = rewording(config)
    if reword is None or policy.backbone is None or policy.backbone.tuning == "frozen":
        return None
    ask = questions(config, policy)

    def annotate(batch: Mapping[str, Any], generator: np.random.Generator) -> dict[str, list[str]]:
        asked = ask(batch, generator) if ask is not None else {}
        return {"task": [reword(sentence, generator) for sentence in batch["task"]], **asked}

    return annotate


def questions(config: DictConfig, policy: PolicyConfig) -> Annotate | None:
    """Adds a question and its answer, from the recorded state, to every sample of a batch; None without a scene that
    has goals, or with `policy.language_weight` 0.
    """
    scene = scene_of(config)
    if policy.language_weight == 0 or scene is None or not scene.goals:
        return None
    if ENVIRONMENT_STATE not in [*policy.observation_keys, *policy.auxiliary_keys]:
        raise InputError(
            f"policy.language_weight: expected {ENVIRONMENT_STATE} among policy.auxiliary_keys, from which the "
            "answers are computed, found none; 0 trains without questions"
        )

    from sim.geometry import pose_from_features
    from sim.language.questions import question_answer

    def annotate(batch: Mapping[str, Any], generator: np.random.Generator) -> dict[str, list[str]]:
        states, blocks = batch[STATE][:, -1].numpy(), batch[ENVIRONMENT_STATE][:, -1].numpy()
        pairs = [
            question_answer(state, pose_from_features(block), scene, generator)
            for state, block in zip(states, blocks, strict=True)
        ]
        return {"question": [question for question, _ in pairs], "answer": [answer for _, answer in pairs]}

    return annotate


def rollouts(run: DictConfig, interface: Interface) -> Rollouts:
    """A callback that rolls a policy of this interface out in simulation and returns its success rate and mean max
    reward.

    `InputError` if the environment is not available, or does not match the policy's data.
    """
    from sim import make_env
    from vla_policy.rollouts.rollout import rollout

    config, scene = run.rollout, scene_of(run)
    seeds = range(config["seed"], config["seed"] + config["n_episodes"])
    if not len(seeds) or seeds[0] not in TUNING_SEEDS or seeds[-1] not in TUNING_SEEDS:
        raise InputError(f"rollout.seed, rollout.n_episodes: expected seeds in 50000 to 99999, found {seeds}")
    factory = partial(make_env, config["env"], [key.removeprefix(IMAGES) for key in interface.cameras], scene)
    env = factory()  # report a mistake before the first step
    try:
        interface.require(env.interface, "the policy", f"rollout.env {config['env']}")
    finally:
        env.close()

    def evaluate(policy: DiffusionPolicy) -> dict[str, float]:
        results = rollout(
            policy,
            factory,
            list(seeds),
            num_envs=config["num_envs"],
            num_workers=config["num_workers"],
            seed=run.seed,
        )
        return {
            "success_rate": sum(result.success for result in results) / len(results),
            "mean_max_reward": sum(result.max_reward for result in results) / len(results),
        }

    return evaluate


def plain(config: DictConfig) -> dict[str, Any]:
    """A section as a dictionary of plain values."""
    found = OmegaConf.to_container(config)
    assert isinstance(found, dict)
    return {str(key): value for key, value in found.items()}
