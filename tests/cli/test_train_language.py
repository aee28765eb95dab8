"""vla-train scene=pusht_language, from demonstrations to a policy that reads and can be asked."""

import csv
from pathlib import Path

import pytest
import torch
import yaml
from helpers import commands
from helpers.commands import Done

from vla_policy.cli import collect
from vla_policy.models import Backbone, DiffusionPolicy

pytestmark = pytest.mark.slow

SMALL = [
    "scene=pusht_language",
    "policy.transformer={width:32,depth:2,heads:2,time_width:16}",
    "policy.encoder={channels:[8,16],keypoints:4,grid:2}",
    "policy.backbone.tiny={width:32,heads:2,vision_depth:1,text_depth:2,image_size:64}",
    "trainer.batch_size=8",
    "trainer.threads=1",
    "trainer.log_every=1",
    "data.val_episodes=1",
]


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("language") / "demonstrations"
    collect.main([str(root), "scene=pusht_language", "n_episodes=3", "num_workers=0"])
    return root


def train(root: Path, run: Path, *overrides: str, small: list[str] = SMALL) -> Done:
    return commands.train(f"data.root={root}", f"run_dir={run}", *small, *overrides)


def test_the_backbone_learns_with_the_actions_and_resumes(demonstrations: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = train(demonstrations, run, "trainer.steps=4", "trainer.save_every=2")
    assert done.returncode == 0, done.stderr
    with open(run / "metrics.csv", newline="") as file:
        steps = {(int(row["step"]), row["metric"]) for row in csv.DictReader(file)}
    parts = ("train/action", "train/language", "train/auxiliary/observation.environment_state")
    assert steps >= {(step, part) for step in range(1, 5) for part in parts}
    policy = DiffusionPolicy.from_pretrained(run / "checkpoints" / "last")
    assert isinstance(policy.backbone, Backbone)
    words = policy.backbone.tokenizer.tokenize("push the T onto the red goal")
    assert len(words) == 7  # the task's own words are tokens
    stored = yaml.safe_load((run / "config.yaml").read_text())
    assert set(stored["scene"]["goals"]) == {"red", "green", "blue", "yellow"}

    tuned = train(demonstrations, tmp_path / "tuned", "trainer.steps=1", f"init_from={run}/checkpoints/last")
    assert tuned.returncode == 0, tuned.stderr

    frozen = ["policy.backbone.tuning=frozen", f"init_from={run}/checkpoints/last", "trainer.steps=3"]
    done = train(demonstrations, tmp_path / "frozen", *frozen, "trainer.save_every=2")
    assert done.returncode == 0, done.stderr
    kept = DiffusionPolicy.from_pretrained(tmp_path / "frozen/checkpoints/last")
    assert kept.backbone is not None
    for name, value in policy.backbone.state_dict().items():  # there is no other place that it could come from
        torch.testing.assert_close(kept.backbone.state_dict()[name], value, rtol=0, atol=0)
    assert not torch.equal(kept.backbone_token.weight, policy.backbone_token.weight)
    full = train(demonstrations, tmp_path / "full", "trainer.steps=2", f"init_from={tmp_path}/frozen/checkpoints/last")
    assert full.returncode == 0, full.stderr
    learned = DiffusionPolicy.from_pretrained(tmp_path / "full/checkpoints/last").backbone
    assert learned is not None
    assert any(not torch.equal(learned.state_dict()[name], value) for name, value in kept.backbone.state_dict().items())
    with open(tmp_path / "frozen/metrics.csv", newline="") as file:
        assert "train/language" not in {row["metric"] for row in csv.DictReader(file)}

    chosen = [*frozen[:2], "init_modules=[backbone]", "trainer.steps=1", "policy=masked"]
    done = train(demonstrations, tmp_path / "masked", *chosen)
    assert done.returncode == 0, done.stderr
    masked = DiffusionPolicy.from_pretrained(tmp_path / "masked/checkpoints/last")
    assert masked.backbone is not None
    for name, value in policy.backbone.state_dict().items():
        torch.testing.assert_close(masked.backbone.state_dict()[name], value, rtol=0, atol=0)
    assert masked.card["training"]["initial_modules"] == "backbone"
    assert masked.card["training"]["initial_weights"] == policy.card["training"]


@pytest.mark.parametrize("name", ["ddpm", "autoregressive", "masked"])
def test_the_objective_is_all_that_changes(demonstrations: Path, tmp_path: Path, name: str) -> None:
    done = train(demonstrations, tmp_path / "run", "trainer.steps=2", f"policy={name}")
    assert done.returncode == 0, done.stderr
    policy = DiffusionPolicy.from_pretrained(tmp_path / "run/checkpoints/last")
    assert policy.config.objective.name == name


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["policy.auxiliary_keys=[]"], "expected observation.environment_state among policy.auxiliary_keys"),
        (["policy.backbone.tuning=frozen"], "expected full for a model that is trained from scratch, found 'frozen'"),
        (["policy.backbone.path=no/such/model"], "neither a folder with a model nor readable from the hub"),
        (["policy.backbone.max_text_tokens=2"], "expected at most 2 tokens"),
        (["policy=autoregressive", "policy.action_normalization=mean_std"], "expected quantile or min_max"),
        (["init_from=RUN", "backbone=none"], "expected no backbone because of backbone=, found a backbone"),
    ],
)
def test_mistakes_are_one_error(demonstrations: Path, tmp_path: Path, overrides: list[str], message: str) -> None:
    if "init_from=RUN" in overrides:
        assert train(demonstrations, tmp_path / "first", "trainer.steps=1").returncode == 0
        overrides = [f"init_from={tmp_path}/first/checkpoints/last", *overrides[1:]]
        done = train(demonstrations, tmp_path / "run", *overrides, small=[o for o in SMALL if "backbone" not in o])
    else:
        done = train(demonstrations, tmp_path / "run", *overrides)
    assert done.returncode == 2, done.stderr
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
