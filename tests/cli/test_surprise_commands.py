"""vla-eval surprise, vla-calibrate and vla-eval monitor=..., with the shipped policy and world model."""

import json
from pathlib import Path

import pytest
from helpers.commands import error_of

from vla_policy.cli import calibrate
from vla_policy.cli import eval as evaluate
from vla_policy.evaluation.surprise.calibration import CalibrateConfig, recorded_traces
from vla_policy.evaluation.surprise.study import SurpriseConfig
from vla_policy.interfaces import InputError
from vla_policy.training import DataConfig, open_data
from vla_policy.world_model import WorldModel

ROOT = Path(__file__).parents[2]
POLICY, WORLD_MODEL = str(ROOT / "checkpoints/pusht_image"), str(ROOT / "checkpoints/pusht_world_model")
QUICK = ["num_workers=0", "num_envs=8", "threads=1", "alpha=0.2"]


MONITORS = ("whitened_error", "prediction_error", "latent_step", "rnd", "pixels", "chunks")
STUDY = [
    "n_calibration=7",  # all of them succeed; the distillation needs that many
    "calibration_seed=70010",
    "n_nominal=2",
    "n_events=2",
    "seed=70021",  # 70020 has a false alarm, as every fifth may have at this alpha
    "events=[block_teleport@0.1,dropped_actions]",
]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("surprise") / "study"
    evaluate.main(["surprise", POLICY, WORLD_MODEL, f"out={out}", *STUDY, *QUICK])
    return out


@pytest.mark.slow
def test_a_study_reports_what_is_detected(study: Path) -> None:
    found = json.loads((study / "surprise.json").read_text())
    assert set(found["nominal"]) == {*MONITORS, "stillness", "commands", "elapsed"}
    for event in ("block_teleport@0.1", "dropped_actions"):
        assert tuple(found["events"][event]) == MONITORS
        main = found["events"][event]["whitened_error"]
        assert main["n"] == 2
        assert main["auroc"] == 1.0
    assert found["events"]["block_teleport@0.1"]["whitened_error"]["within_2_steps"] == 2
    assert found["magnitudes"]["block_teleport@0.1"] == 0.1
    # a dropped action makes everything stand still: nothing that looks for change can see it
    assert found["events"]["dropped_actions"]["pixels"]["detected"] == 0
    assert found["monitor_ms"]["p50"] > 0
    assert (study / "surprise.png").stat().st_size > 10_000


@pytest.mark.slow
def test_what_was_recorded_is_used_again_and_only_for_the_same(study: Path) -> None:
    before = (study / "traces" / "nominal.npz").stat().st_mtime_ns
    evaluate.main(["surprise", POLICY, WORLD_MODEL, f"out={study}", *STUDY, *QUICK, "events=[block_teleport@0.1]"])
    assert (study / "traces" / "nominal.npz").stat().st_mtime_ns == before
    error = error_of(evaluate.main, "surprise", POLICY, WORLD_MODEL, f"out={study}", *STUDY, *QUICK, "window=10")
    assert "expected window 30 to continue with, found 10" in error


@pytest.mark.slow
def test_the_calibrated_monitor_holds_the_arm_after_a_teleport(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    monitor = tmp_path / "monitor"
    calibrate.main([POLICY, WORLD_MODEL, f"study={study}", "alpha=0.2", f"out={monitor}"])
    said = capsys.readouterr().out
    assert "guaranteed on average, at most" in said
    assert "20.0 %" in said
    one = ["n_episodes=1", "seed=70021", "num_workers=0", "latency_repeats=1", "threads=1"]
    event = ["disturbance.kind=block_teleport", "disturbance.step=25", "scene.max_episode_steps=40"]
    evaluate.main([POLICY, *one, *event, f"monitor={monitor}", f"out={tmp_path / 'eval'}"])
    summary = json.loads((tmp_path / "eval" / "summary.json").read_text())
    assert summary["halted_episodes"] == 1
    assert summary["aftermath"]["stopped_after_event"] == 1
    assert summary["aftermath"]["steps_to_stop_p50"] <= 2
    assert (tmp_path / "eval" / "surprise.png").exists()
    assert (tmp_path / "eval" / "best.mp4").exists()

    error = error_of(evaluate.main, WORLD_MODEL, *one, f"monitor={monitor}", f"out={tmp_path / 'eval'}")
    assert "expected a policy" in error


@pytest.mark.slow
def test_too_few_episodes_are_refused_before_anything_is_written(study: Path, tmp_path: Path) -> None:
    words = [POLICY, WORLD_MODEL, f"study={study}", "alpha=0.05", f"out={tmp_path / 'm'}"]
    assert "at least 24 successful episodes for alpha 0.05" in error_of(calibrate.main, *words)
    assert not (tmp_path / "m").exists()


def test_recorded_episodes_are_read_as_they_were_commanded(tmp_path: Path) -> None:
    from helpers.small_world_model import make_walks, small_world_model

    dataset, model = make_walks(tmp_path / "walks", episodes=2, length=9), small_world_model()
    model.save_pretrained(tmp_path / "model")
    traces = recorded_traces(WorldModel.from_pretrained(tmp_path / "model"), str(tmp_path / "walks"))
    assert [t.steps for t in traces] == [8, 8]
    assert all(t.success for t in traces)
    assert traces[0].latents.shape == (9, 16)
    assert (traces[1].commands == dataset.episode(1).columns["action"][:-1]).all()


def test_episodes_that_the_world_model_was_trained_on_calibrate_nothing(tmp_path: Path) -> None:
    from helpers.small_world_model import make_walks, small_world_model

    make_walks(tmp_path / "walks", episodes=2, length=9)
    model, root = small_world_model(), tmp_path / "walks"
    data = DataConfig(root=str(root), val_episodes=1)
    model.card = {"data": open_data(data, model.config, led=True)[2]}
    root = root.rename(tmp_path / "moved")
    with pytest.raises(InputError, match="expected episodes recorded after the world model was trained"):
        recorded_traces(model, str(root))
    make_walks(tmp_path / "walks", episodes=2, length=10)  # others, of the old name
    assert len(recorded_traces(model, str(tmp_path / "walks"))) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_events": 300}, "n_events: expected at most n_nominal 200"),
        ({"calibration_seed": 100100}, "calibration_seed: expected seeds other than the held-out ones"),
        ({"events": ["earthquake"]}, "expected one of .*block_teleport.*found 'earthquake'"),
        ({"window": 0}, "window: expected at least 1, found 0"),
    ],
)
def test_impossible_studies_are_named(changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        SurpriseConfig(**changes)


def test_impossible_calibrations_are_named() -> None:
    with pytest.raises(InputError, match="dataset, study: expected one of them at most"):
        CalibrateConfig(dataset="a", study="b")
    known = r"\['whitened_error', 'prediction_error', 'stillness'\]"
    with pytest.raises(InputError, match=rf"detector: expected one of {known}, found 'mood'"):
        CalibrateConfig(detector="mood")
    assert "expected a world model, found ['policy']" in error_of(calibrate.main, POLICY, POLICY)
