"""`from vla_policy import evaluate`, as a script or a notebook calls it."""

from pathlib import Path

import pytest
from helpers.tiny_policies import tiny_policy

from sim.geometry import WORKSPACE_HIGH, WORKSPACE_LOW
from sim.interface import pusht_interface
from vla_policy import evaluate
from vla_policy.evaluation.success.checkpoint import require_here
from vla_policy.interfaces import IMAGES, STATE, InputError
from vla_policy.planning.options import PlannerConfig
from vla_policy.utils.files import read_json


def test_the_summary_of_a_checkpoint_is_handed_back(tmp_path: Path) -> None:
    card = {"data": {"demonstrations": 25}, "training": {"seed": 3, "steps": 10}}
    policy = tiny_policy(pusht_interface({"top": 96}), WORKSPACE_LOW, WORKSPACE_HIGH, [STATE], card)
    policy.save_pretrained(tmp_path / "tiny")
    small = ["n_episodes=2", "seed=50000", "num_workers=0", "videos=0", "latency_repeats=1"]
    summary = evaluate(tmp_path / "tiny", [*small, "scene.max_episode_steps=4", f"out={tmp_path / 'out'}"])
    assert summary["n_episodes"] == 2
    assert summary["checkpoint"] == str(tmp_path / "tiny")
    assert read_json(tmp_path / "out" / "summary.json")["success_rate"] == summary["success_rate"]
    assert (tmp_path / "out" / "config.yaml").is_file()
    with pytest.raises(InputError, match="n_episodes"):
        evaluate(tmp_path / "tiny", ["n_episodes=0"])


def test_foresight_looks_at_pictures_where_its_encoder_is() -> None:
    foresight, interface = PlannerConfig("foresight", dynamics="somewhere"), pusht_interface({"top": 96})
    seeing = tiny_policy(interface, WORKSPACE_LOW, WORKSPACE_HIGH, [STATE, IMAGES + "top"])
    blind = tiny_policy(interface, WORKSPACE_LOW, WORKSPACE_HIGH, [STATE])
    require_here(seeing, foresight, 0)
    require_here(blind, foresight, 2)
    require_here(seeing, PlannerConfig("dmpc", dynamics="somewhere"), 2)
    with pytest.raises(InputError, match="num_workers: expected 0 with planner=foresight for a policy that sees pict"):
        require_here(seeing, foresight, 2)
