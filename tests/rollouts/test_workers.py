"""What a worker that only simulates costs: neither torch nor what else comes with learning is loaded there."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from textwrap import dedent

import pytest
from helpers.small_world_model import SIZE, small_world_model
from helpers.worker_cost import Reporting

from sim import Disturbance, PushTConfig, make_env
from vla_policy.evaluation.language.swap_env import swap_env
from vla_policy.evaluation.success.films import film
from vla_policy.evaluation.surprise.environments import study_env
from vla_policy.rollouts.baselines import HoldPolicy
from vla_policy.rollouts.rollout import rollout
from vla_policy.rollouts.scenes import load_scene
from vla_policy.rollouts.workers import EnvFactory

HEAVY = {"av", "datasets", "huggingface_hub", "hydra", "matplotlib", "omegaconf", "pyarrow", "scipy", "torch"}
SHORT = PushTConfig(max_episode_steps=2)
ENVIRONMENTS: dict[str, EnvFactory] = {
    "evaluation": functools.partial(make_env, "pybullet", ["top"], SHORT),
    "surprise": functools.partial(study_env, ["top"], SHORT, Disturbance("dropped_actions", step=0), 2),
    "swap": functools.partial(swap_env, replace(load_scene("pusht_language"), max_episode_steps=2), ["top"]),
}


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_a_worker_that_simulates_is_small_and_starts_fast(name: str, tmp_path: Path) -> None:
    out = tmp_path / "worker.json"
    rollout(HoldPolicy(), functools.partial(Reporting, ENVIRONMENTS[name], out), [50000], num_workers=1)
    found = json.loads(out.read_text())
    assert not HEAVY & set(found["modules"])
    assert found["resident_mb"] < 120
    assert found["cpu_seconds"] < 1.0


def test_a_worker_does_not_load_the_watchers_models(tmp_path: Path) -> None:
    from vla_policy.evaluation.surprise.watchers import ScoreRecorder
    from vla_policy.world_model import NumpyWorldModel

    out = tmp_path / "worker.json"
    small = replace(SHORT, cameras={"top": replace(SHORT.cameras["top"], size=SIZE)})
    env = functools.partial(Reporting, functools.partial(make_env, "pybullet", ["top"], small), out)
    recorder = ScoreRecorder(NumpyWorldModel(small_world_model()))
    (result,) = rollout(HoldPolicy(), env, [50000], num_workers=1, watcher=recorder)
    assert result.watched["latent"].shape == (3, 16)
    assert not HEAVY & set(json.loads(out.read_text())["modules"])


def test_a_worker_that_films_loads_no_torch(tmp_path: Path) -> None:
    """It encodes a video, so that it needs PyAV."""
    results = rollout(HoldPolicy(), ENVIRONMENTS["evaluation"], [50000, 50001], num_workers=0)
    reporting = functools.partial(Reporting, ENVIRONMENTS["evaluation"], tmp_path / "worker.json")
    film(reporting, dict(zip(("best", "worst"), results, strict=True)), tmp_path, fps=10, processes=2)
    assert not (HEAVY - {"av", "pyarrow"}) & set(json.loads((tmp_path / "worker.json").read_text())["modules"])


def test_commands_that_start_workers_load_torch_only_when_they_run() -> None:
    """A spawned worker imports the module of its parent's command."""
    code = """
        import importlib, pkgutil, sys
        import vla_policy.cli.collect, vla_policy.cli.eval, vla_policy.cli.train
        for module in pkgutil.walk_packages(vla_policy.cli.eval.__path__, "vla_policy.cli.eval."):
            importlib.import_module(module.name)
        print("torch" in sys.modules)
    """
    result = subprocess.run([sys.executable, "-c", dedent(code)], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
