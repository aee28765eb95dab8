"""vla-train scene=pusht_language, from demonstrations to a policy that reads and can be asked."""

import csv
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from helpers import commands
from helpers.commands import Done
from helpers.small_runs import SHORT_RUN, SMALL_POLICY

from vla_policy.cli import collect
from vla_policy.jobs import scene
from vla_policy.models import Backbone, DiffusionPolicy

pytestmark = pytest.mark.slow

SMALL = ["scene=pusht_language", *SMALL_POLICY, *SHORT_RUN, "trainer.log_every=1", "data.val_episodes=1"]
TINY = "policy.backbone.tiny={width:32,heads:2,vision_depth:1,text_depth:2,image_size:64}"


@pytest.fixture(scope="module", autouse=True)
def small_corpus() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scene, "CORPUS_SIZE", 600)  # sentences that a new tokenizer learns from
        yield


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("language") / "demonstrations"
    short = ["n_episodes=3", "num_workers=0", "scene.max_episode_steps=25"]
    collect.main([str(root), "scene=pusht_language", "behaviour=noisy", *short])
    return root


def train(root: Path, run: Path, *overrides: str) -> Done:
    return commands.train(f"data.root={root}", f"run_dir={run}", *SMALL, *overrides)


def trained(root: Path, run: Path, *overrides: str) -> DiffusionPolicy:
    """The policy of a run that must succeed."""
    done = train(root, run, TINY, *overrides)
    assert done.returncode == 0, done.stderr
    return DiffusionPolicy.from_pretrained(run / "checkpoints" / "last")


@pytest.fixture(scope="module")
def run(demonstrations: Path) -> Path:
    folder = demonstrations.with_name("run")
    trained(demonstrations, folder, "trainer.steps=4", "trainer.save_every=2")
    return folder


@pytest.fixture
def policy(run: Path) -> DiffusionPolicy:
    return DiffusionPolicy.from_pretrained(run / "checkpoints" / "last")


def metrics(run: Path) -> set[tuple[int, str]]:
    """The steps and names of what was measured."""
    with open(run / "metrics.csv", newline="") as file:
        return {(int(row["step"]), row["metric"]) for row in csv.DictReader(file)}


def same_backbone(one: DiffusionPolicy, other: DiffusionPolicy) -> bool:
    assert isinstance(one.backbone, Backbone)
    assert isinstance(other.backbone, Backbone)
    theirs = other.backbone.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in one.backbone.state_dict().items())


def test_the_backbone_learns_together_with_the_actions(run: Path, policy: DiffusionPolicy) -> None:
    parts = ("train/action", "train/language", "train/auxiliary/observation.environment_state")
    assert metrics(run) >= {(step, part) for step in range(1, 5) for part in parts}
    words = policy.backbone.tokenizer.tokenize("push the T onto the red goal")
    assert len(words) == 7  # the task's own words are tokens
    stored = yaml.safe_load((run / "config.yaml").read_text())
    assert set(stored["scene"]["goals"]) == {"red", "green", "blue", "yellow"}


def test_a_frozen_backbone_keeps_its_weights_until_it_is_trained_again(
    demonstrations: Path, run: Path, policy: DiffusionPolicy, tmp_path: Path
) -> None:
    frozen = ["policy.backbone.tuning=frozen", f"init_from={run}/checkpoints/last", "trainer.steps=3"]
    kept = trained(demonstrations, tmp_path / "frozen", *frozen, "trainer.save_every=2")
    assert same_backbone(kept, policy)  # there is no other place that it could come from
    assert not torch.equal(kept.backbone_norm.weight, policy.backbone_norm.weight)
    assert "train/language" not in {name for _, name in metrics(tmp_path / "frozen")}
    start = f"init_from={tmp_path}/frozen/checkpoints/last"
    full = trained(demonstrations, tmp_path / "full", "trainer.steps=2", start)
    assert not same_backbone(full, kept)


@pytest.mark.parametrize("name", ["ddpm", "autoregressive", "masked"])
def test_another_objective_begins_with_the_backbone_alone(
    demonstrations: Path, run: Path, policy: DiffusionPolicy, tmp_path: Path, name: str
) -> None:
    start = ["policy.backbone.tuning=frozen", f"init_from={run}/checkpoints/last", "init_modules=[backbone]"]
    other = trained(demonstrations, tmp_path / "other", *start, "trainer.steps=2", f"policy={name}")
    assert other.config.objective.name == name
    assert same_backbone(other, policy)
    assert other.card["training"]["initial_modules"] == "backbone"
    assert other.card["training"]["initial_weights"] == policy.card["training"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["policy.auxiliary_keys=[]"],
            "expected observation.environment_state among policy.auxiliary_keys",
        ),
        (["policy.backbone.tuning=frozen"], "expected full for a model that is trained from scratch, found 'frozen'"),
        (["policy.backbone.path=no/such/model"], "neither a folder with a model nor readable from the hub"),
        (["policy.backbone.max_text_tokens=2"], "expected at most 2 tokens"),
        (["policy=autoregressive", "policy.action_normalization=mean_std"], "expected quantile or min_max"),
    ],
)
def test_mistakes_are_one_error(demonstrations: Path, tmp_path: Path, overrides: list[str], message: str) -> None:
    assert message in refused(demonstrations, tmp_path / "run", TINY, *overrides)


def test_the_backbone_of_a_checkpoint_is_not_dropped_silently(demonstrations: Path, run: Path, tmp_path: Path) -> None:
    words = ["backbone=none", f"init_from={run}/checkpoints/last"]
    error = refused(demonstrations, tmp_path / "run", *words)
    assert "expected no backbone because of backbone=, found a backbone" in error


def refused(root: Path, run: Path, *overrides: str) -> str:
    """The error of a run that must not begin."""
    done = train(root, run, *overrides)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert not run.exists()
    return " ".join(done.stderr.split())
