"""vla-bench speculation as a user calls it, with the draft's process."""

from pathlib import Path

import numpy as np
import pytest
from helpers.commands import error_of
from helpers.small_dataset import TOP, make_small_dataset
from helpers.small_vlm import TINY, small_backbone

from vla_policy.cli import bench
from vla_policy.data import Normalizer
from vla_policy.interfaces import ACTION, STATE
from vla_policy.models import (
    BackboneConfig,
    DiffusionPolicy,
    EncoderConfig,
    ObjectiveConfig,
    PolicyConfig,
    TransformerConfig,
)
from vla_policy.utils.files import read_json


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset, and policies for it that see its pictures with a backbone of their own."""
    folder = tmp_path_factory.mktemp("speculation")
    dataset = make_small_dataset(folder / "data", episodes=2, tasks=["push the T onto the red goal"])
    normalizer = Normalizer.fit({key: np.array([[-1.0, -1.0], [2.0, 2.0]]) for key in (STATE, ACTION)})
    sizes = {"target": (64, 3), "draft": (16, 1), "flow": (16, 1)}
    for seed, (name, (width, depth)) in enumerate(sizes.items()):
        flow = name == "flow"
        config = PolicyConfig(
            observation_keys=[STATE, TOP],
            encoder=EncoderConfig(channels=[8, 8], keypoints=4, grid=2) if flow else None,
            backbone=None if flow else BackboneConfig(tiny=TINY),
            horizon=6,
            n_action_steps=2,
            transformer=TransformerConfig(width=width, depth=depth, heads=2, time_width=16),
            objective=ObjectiveConfig() if flow else ObjectiveConfig("autoregressive", sampler="greedy", bins=16),
        )
        backbone = None if flow else small_backbone(seed)
        DiffusionPolicy(config, dataset.interface, normalizer, None, backbone).save_pretrained(folder / name)
    return folder


@pytest.mark.slow
def test_action_tokens_and_text_are_decoded_in_every_way(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "speculation.json"
    names = [str(folder / name) for name in ("target", "draft", "data")]
    bench.main(["speculation", *names, "episodes=[0,1]", "n_frames=1", "length=3", "branches=4", f"out={out}"])
    found = read_json(out)
    assert (found["precision"], found["length"], found["branches"]) == ("float32", 3, 4)
    for kind, tokens in (("actions", 12), ("text", 48)):
        about = found[kind]
        assert about["n"] == 1
        assert about["greedy"]
        assert about["parameters"]["target"] > about["parameters"]["draft"] or kind == "text"
        assert all(ms > 0 for ms in about["pass_ms"].values())
        ways = about["ways"]
        alone, drafted, ahead = (ways[name] for name in ("autoregressive", "speculative", "SSD"))
        assert alone["tokens_per_pass"] == 1
        assert alone["acceptance"] is None
        assert alone["speedup"] == 1
        for way in ways.values():
            assert way["equal"] == 1
            assert way["tokens"] == alone["tokens"] <= tokens
            assert way["tokens_per_s"] > 0
        assert (drafted["acceptance"], drafted["hit_rate"]) == (ahead["acceptance"], 0)
        assert 0 <= ahead["late_rate"] <= ahead["hit_rate"] <= 1
        assert (ways["autoregressive, a thread more"]["threads"], alone["threads"]) == (2, 1)
    shown = capsys.readouterr().out
    assert "actions, greedy" in shown
    assert "a pass: target, 1 token" in shown


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["target", "draft", "data", "precision=int8"], "precision: expected one of ['float32', 'bfloat16'], found"),
        (["target", "draft", "data", "length=0"], "length, branches, exponent: expected at least 1"),
        (["target", "draft", "data", "episodes=[0]", "n_frames=99"], "n_frames: expected at most"),
        (["target", "draft", "data"], "episodes: the checkpoint states no held-out episodes"),
        (["flow", "draft", "data", "episodes=[0]", "n_frames=1"], "expected policy=autoregressive, or backbones in it"),
        (["target", "flow", "data", "episodes=[0]", "n_frames=1"], "expected policy=autoregressive, found flow"),
    ],
)
def test_mistakes_are_one_line(folder: Path, tmp_path: Path, words: list[str], says: str) -> None:
    words = [str(folder / word) if "=" not in word else word for word in words]
    assert says in error_of(bench.main, "speculation", *words, f"out={tmp_path / 'out.json'}")
