"""Scores and the streaming monitor: what they compute, when they speak, and what is a surprise by itself."""

from pathlib import Path

import numpy as np
import pytest
from helpers.small_diffusion import small_policy
from helpers.small_world_model import TOP, batch_of, picture, small_world_model, walk

from vla_policy.interfaces import ActionChunk, InputError, Observation
from vla_policy.monitoring import (
    Calibration,
    ChunkInconsistency,
    Monitor,
    PixelDifference,
    PredictionError,
    Stillness,
    calibrate,
    fit_whitening,
    scale_episodes,
)
from vla_policy.world_model import (
    NumpyWorldModel,
    RandomDistillation,
    binding,
    load_monitor,
    nominal_whitening,
    prediction_errors,
    residuals,
    save_calibration,
    stillness,
)


class Counting:
    """A world in which a step's commands are added to the latent, which the picture's first pixel tells."""

    cameras = (TOP,)
    history, frame_skip = 3, 2

    def __init__(self) -> None:
        self.asked: list[int] = []  # how many latents each prediction was made from

    def encode(self, observation: Observation) -> np.ndarray:
        return np.asarray(observation.values[TOP], float)[0, 0, :1]

    def predict(self, latents: np.ndarray, commands: np.ndarray) -> np.ndarray:
        self.asked.append(len(latents))
        return latents[-1] + commands[-1].sum(axis=0)


def seen(value: float, t: float = 0.0) -> Observation:
    return Observation({TOP: np.full((4, 4, 3), value, np.uint8)}, "", t)


def play(score: PredictionError, positions: list[int], commands: list[int]) -> list[float | None]:
    given = [None, *[np.array([float(c)]) for c in commands]]
    return [score.update(seen(x), c, None) for x, c in zip(positions, given, strict=True)]


def test_prediction_error_is_zero_where_the_commands_explain_what_is_seen() -> None:
    model = Counting()
    found = play(PredictionError(model), [0, 1, 3, 6, 10, 15, 21, 28], [1, 2, 3, 4, 5, 6, 7])
    assert found == [None, None, 0, 0, 0, 0, 0, 0]
    assert model.asked == [1, 1, 2, 2, 3, 3]  # a shorter history early in an episode, never a longer one


def test_an_event_is_seen_at_once_and_its_echo_is_over_after_the_history() -> None:
    positions = np.concatenate([np.arange(12), np.arange(12, 30) + 40]).tolist()  # a jump at observation 12
    found = play(PredictionError(Counting()), positions, [1] * (len(positions) - 1))
    assert found[11] == 0
    assert found[12] == 40**2
    assert all(value == 0 for value in found[12 + 3 * 2 :])


def test_a_dropped_command_is_a_surprise_although_nothing_moves() -> None:
    assert play(PredictionError(Counting()), [5, 5, 5], [3, 3])[-1] == 6**2


def test_a_gap_restarts_the_score() -> None:
    score = PredictionError(Counting())
    play(score, [0, 1, 2, 3, 4], [1, 1, 1, 1])
    assert play(score, [50, 51, 52], [1, 1]) == [None, None, 0]  # the jump is the gap's, not the world's


def test_memory_is_constant() -> None:
    score = PredictionError(Counting())
    play(score, list(range(200)), [1] * 199)
    assert len(score._latents) == 3 * 2 + 1
    assert len(score._commands) == 3 * 2


def test_streaming_equals_batch() -> None:
    model = small_world_model()
    positions, commands = walk(np.random.default_rng(0), 25)
    observations = [Observation({TOP: picture(p)}, "", 0.1 * k) for k, p in enumerate(positions)]
    shared = NumpyWorldModel(model)
    whitening = np.random.default_rng(1).normal(size=(3, 16, 16)).astype(np.float32)
    scores = [PredictionError(shared), PredictionError(shared, whitening), Stillness(shared, 10)]
    streamed, latents = [], []
    for k, observation in enumerate(observations):
        command = None if k == 0 else commands[k - 1]
        streamed.append([score.update(observation, command, None) for score in scores])
        latents.append(shared.encode(observation))
    whole = [
        prediction_errors(model, np.stack(latents), commands[:-1]),
        prediction_errors(model, np.stack(latents), commands[:-1], whitening),
        stillness(np.stack(latents), 10),
    ]
    for column, batch in zip(np.array(streamed, float).T, whole, strict=True):
        np.testing.assert_allclose(column, batch, rtol=1e-4, atol=1e-7)


class Plane(Counting):
    """The same with two latents, of the picture's first two pixels; only the first obeys commands."""

    def encode(self, observation: Observation) -> np.ndarray:
        return np.asarray(observation.values[TOP], float)[0, :2, 0]

    def predict(self, latents: np.ndarray, commands: np.ndarray) -> np.ndarray:
        return latents[-1] + [commands[-1].sum(), 0.0]


def test_a_whitened_error_counts_a_direction_by_what_is_usual_along_it() -> None:
    rng = np.random.default_rng(0)
    whitening = fit_whitening(rng.normal(size=(5000, 2)) * [9.0, 0.1])

    def score(first: int, second: int) -> float | None:
        whitened, picture = PredictionError(Plane(), whitening[None]), np.zeros((4, 4, 3), np.uint8)
        for _ in range(2):
            whitened.update(Observation({TOP: picture}, "", 0.0), np.zeros(1), None)
        seen = picture.copy()
        seen[0, :2, 0] = first, second
        return whitened.update(Observation({TOP: seen}, "", 0.0), np.zeros(1), None)

    assert score(0, 0) == 0
    usual, unusual = score(9, 0), score(0, 9)
    assert usual == pytest.approx(0.5 / 1.05, rel=0.1)  # one deviation, over D = 2, shrunk
    assert unusual is not None
    assert unusual > 10 * usual


def test_whitening_gives_nominal_errors_the_shrunk_covariance_of_the_formula() -> None:
    errors = np.random.default_rng(0).normal(size=(400, 3)) @ np.array([[2.0, 0, 0], [1, 1, 0], [0, 0.5, 0.1]])
    whitening = fit_whitening(errors).astype(float)
    second_moment = errors.T @ errors / 400
    shrunk = second_moment + 0.1 * np.trace(second_moment) / 3 * np.eye(3)
    np.testing.assert_allclose(whitening.T @ whitening @ shrunk, np.eye(3), atol=1e-4)
    for bad in (np.empty((0, 3)), np.zeros((5, 3)), np.full((5, 3), np.nan)):
        with pytest.raises(InputError, match="whitening: expected finite prediction errors that are not all zero"):
            fit_whitening(bad)


def test_stillness_grows_while_nothing_moves_and_is_undefined_at_first() -> None:
    score = Stillness(Counting(), 4)
    found = [score.update(seen(x), np.zeros(1), None) for x in (0, 2, 4, 6, 6, 6, 6, 6)]
    assert found == [None, None, None, -5.0, -2.75, -0.75, 0.0, 0.0]
    assert score.update(seen(6), None, None) is None  # after a gap nobody knows for how long it has been still
    assert stillness(np.zeros((3, 2)), 4).tolist() == pytest.approx([np.nan] * 3, nan_ok=True)


def test_each_observation_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    shared, calls = NumpyWorldModel(small_world_model()), []
    encode = shared.model.encode
    monkeypatch.setattr(shared.model, "encode", lambda pictures: calls.append(1) or encode(pictures))
    scores = [PredictionError(shared), Stillness(shared)]
    for k in range(3):
        observation = Observation({TOP: picture(np.array([0.1 * k, 0.5]))}, "", 0.1 * k)
        for score in scores:
            score.update(observation, np.zeros(2), None)
    assert len(calls) == 3


def test_pixel_difference_and_chunk_inconsistency_against_arithmetic() -> None:
    pixels = PixelDifference([TOP])
    assert [pixels.update(seen(v), None, None) for v in (10, 13, 13)] == [None, 9.0, 0.0]
    with pytest.raises(InputError, match="at least one camera"):
        PixelDifference([])
    chunks = ChunkInconsistency()
    old = ActionChunk(np.arange(8.0)[:, None], 0.0, 0.1)
    new = ActionChunk(np.arange(5.0, 13.0)[:, None], 0.4, 0.1)  # says 5 where the old one said 4, and so on
    assert chunks.update(seen(0), None, old) is None
    assert chunks.update(seen(0), None, new) == pytest.approx(1.0)
    assert chunks.update(seen(0), None, new) == pytest.approx(1.0)  # until there is another chunk
    chunks.reset()
    assert chunks.update(seen(0), None, new) is None


def test_random_distillation_knows_what_it_was_shown() -> None:
    rng = np.random.default_rng(0)
    shown = rng.normal(size=(2000, 8)) * np.r_[np.ones(4), 0.05 * np.ones(4)]
    distilled = RandomDistillation(shown, steps=400)
    elsewhere = rng.normal(size=(200, 8))
    known, unknown = distilled.score(rng.normal(size=(200, 8)) * np.r_[np.ones(4), 0.05 * np.ones(4)]), None
    unknown = distilled.score(elsewhere)
    assert np.median(unknown) > 3 * np.median(known)


def calibration(**changes: object) -> Calibration:
    values: dict = {"detector": "d", "alpha": 0.05, "mean": 2.0, "scale": 2.0, "threshold": 3.0}
    return Calibration(**{**values, "episodes": 40, "episodes_scale": 10, "bound_to": {"policy": "abc"}, **changes})


class Scripted:
    cameras = (TOP,)

    def __init__(self, values: list[float | None]) -> None:
        self.values = values
        self.reset()

    def reset(self) -> None:
        self.left = list(self.values)

    def update(self, observation: Observation, command: object, chunk: object) -> float | None:
        return self.left.pop(0)


def test_the_monitor_standardises_decides_and_reports_since_when() -> None:
    monitor = Monitor(Scripted([None, 2.0, 8.0, 8.1, 9.0, 3.0, 9.0]), calibration())
    for _ in range(2):  # a reset begins anew
        found = [monitor.update(seen(0, t), np.zeros(2)) for t in range(7)]
        assert [s.is_surprised for s in found] == [False, False, False, True, True, False, True]
        assert [s.since for s in found] == [None, None, None, 3, 3, None, 6]
        assert found[1].score == 0.0
        assert found[3].score == pytest.approx(3.05)
        assert found[3].threshold == 3.0
        monitor.reset()


@pytest.mark.parametrize(
    ("observation", "command", "reason"),
    [
        (Observation({}, "", 1.0), np.zeros(2), "no image of observation.images.top"),
        (Observation({TOP: np.full((4, 4, 3), np.nan)}, "", 1.0), np.zeros(2), "expected uint8 pixels, found float64"),
        (seen(0, 1.0), np.array([0.1, np.nan]), "the command is not finite"),
    ],
)
def test_missing_or_broken_observations_are_surprises_with_a_reason(
    observation: Observation, command: np.ndarray, reason: str
) -> None:
    found = Monitor(Scripted([0.0]), calibration()).update(observation, command)
    assert found.is_surprised
    assert found.since == 1.0
    assert reason in found.reason


def test_a_picture_of_another_size_and_a_nan_score_are_surprises() -> None:
    shared = NumpyWorldModel(small_world_model())
    found = Monitor(PredictionError(shared), calibration()).update(seen(0), None)
    assert found.is_surprised
    assert "expected shape (32, 32, 3), found (4, 4, 3)" in found.reason
    assert Monitor(Scripted([np.nan]), calibration()).update(seen(0), None).reason == "the score is nan"


def test_a_calibration_is_bound_to_what_it_was_made_for(tmp_path: Path) -> None:
    model = small_world_model()
    model.save_pretrained(tmp_path / "model")
    policy = small_policy()
    policy.save_pretrained(tmp_path / "policy")
    bound = binding(tmp_path / "policy", tmp_path / "model", model.interface)
    made = calibration(bound_to=bound, detector="prediction_error")
    save_calibration(made, tmp_path / "calibration", tmp_path / "model")
    monitor = load_monitor(tmp_path / "calibration", tmp_path / "policy", model.interface)
    batch = batch_of(model, 1)
    found = [
        monitor.update(Observation({TOP: f}, "", 0.1 * k), np.zeros(2)) for k, f in enumerate(batch[TOP][0].numpy())
    ]
    assert np.isfinite(found[-1].score)

    policy.card = {"evaluations": [{"success_rate": 1.0}]}  # what is said of it is no part of what it computes
    policy.save_pretrained(tmp_path / "policy")
    load_monitor(tmp_path / "calibration", tmp_path / "policy", model.interface)
    small_policy(n_action_steps=2).save_pretrained(tmp_path / "other")  # the same weights, played otherwise
    with pytest.raises(InputError, match=r"made for the policy .*, found .*calibrate anew"):
        load_monitor(tmp_path / "calibration", tmp_path / "other", model.interface)
    for detector, score in (("stillness", Stillness), ("prediction_error", PredictionError)):
        save_calibration(calibration(bound_to=bound, detector=detector), tmp_path / "kind", tmp_path / "model")
        assert type(load_monitor(tmp_path / "kind", tmp_path / "policy", model.interface).score) is score
    save_calibration(calibration(bound_to=bound, detector="mood"), tmp_path / "kind", tmp_path / "model")
    with pytest.raises(
        InputError, match=r"one of \['whitened_error', 'prediction_error', 'stillness'\], found one of 'mood'"
    ):
        load_monitor(tmp_path / "kind", tmp_path / "policy", model.interface)
    small_world_model(seed=5).save_pretrained(tmp_path / "model")
    with pytest.raises(InputError, match="made for the world model"):
        load_monitor(tmp_path / "calibration", tmp_path / "policy", model.interface)


def test_a_whitening_goes_with_its_calibration_and_with_no_other(tmp_path: Path) -> None:
    model, folder = small_world_model(), tmp_path / "calibration"
    model.save_pretrained(tmp_path / "model")
    small_policy().save_pretrained(tmp_path / "policy")
    bound = binding(tmp_path / "policy", tmp_path / "model", model.interface)
    made = calibration(bound_to=bound, detector="whitened_error")
    whitening = np.stack([3 * np.eye(16, dtype=np.float32)] * 3)

    def load() -> Monitor:
        return load_monitor(folder, tmp_path / "policy", model.interface)

    save_calibration(made, folder, tmp_path / "model", whitening, promises={"played": 3})
    whitened, plain = load(), Monitor(PredictionError(NumpyWorldModel(model)), made)
    for k, frame in enumerate(batch_of(model, 1)[TOP][0].numpy()):
        observation = Observation({TOP: frame}, "", 0.1 * k)
        found, unweighted = whitened.update(observation, np.zeros(2)), plain.update(observation, np.zeros(2))
    assert found.score * made.scale + made.mean == pytest.approx(
        9 * (unweighted.score * made.scale + made.mean), rel=1e-4
    )

    file = folder / "whitening.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-100])
    with pytest.raises(InputError, match=r"whitening\.safetensors: truncated or not a safetensors file"):
        load()
    save_calibration(made, tmp_path / "other", tmp_path / "model", 2 * whitening)
    file.write_bytes((tmp_path / "other" / file.name).read_bytes())
    with pytest.raises(InputError, match=r"made for the whitening .*calibrate anew"):
        load()
    save_calibration(made, folder, tmp_path / "model", np.ones((3, 4, 4)))
    with pytest.raises(InputError, match=r"expected a whitening of shape \(3, 16, 16\), found shape \(3, 4, 4\)"):
        load()
    save_calibration(made, folder, tmp_path / "model", np.full((3, 16, 16), np.nan))
    with pytest.raises(InputError, match="expected finite numbers, found 768 others"):
        load()
    file.unlink()
    with pytest.raises(InputError, match=r"expected whitening\.safetensors beside the calibration"):
        load()


def test_a_whitening_is_fitted_on_episodes_that_give_no_threshold() -> None:
    model, rng = small_world_model(), np.random.default_rng(0)
    episodes = [(rng.normal(size=(12, 16)).astype(np.float32), rng.normal(size=(11, 2))) for _ in range(10)]
    short = (episodes[0][0][:1], episodes[0][1][:0])  # no prediction, and no place in the split
    found = nominal_whitening(model, [short, *episodes])
    errors = np.stack([residuals(model, *episode) for episode in scale_episodes(episodes)])
    shape = fit_whitening(errors[:, 2:].reshape(-1, 16))
    for whitening, (first, last) in zip(found, ((2, 4), (4, 6), (6, 12)), strict=True):
        np.testing.assert_allclose(whitening / whitening[0, 0], shape / shape[0, 0], rtol=1e-3, atol=1e-5)
        assert np.mean((errors[:, first:last] @ whitening.T) ** 2) == pytest.approx(1, rel=1e-4)
    scores = [np.ones(3) for _ in range(100)]
    for trace in scale_episodes(scores):
        trace[1] = 9
    made = calibrate(scores, 0.05, "x", {})
    assert made.mean + made.scale * made.threshold == pytest.approx(1)
    with pytest.raises(InputError, match="whitening: expected finite prediction errors"):
        nominal_whitening(model, [short])


def test_broken_calibration_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected a folder with calibration\.json"):
        Calibration.load(tmp_path)
    calibration().save(tmp_path)
    assert Calibration.load(tmp_path)[0] == calibration()
    text = (tmp_path / "calibration.json").read_text()
    (tmp_path / "calibration.json").write_text(text[:40])
    with pytest.raises(InputError, match=r"calibration\.json: expected JSON, found a broken"):
        Calibration.load(tmp_path)


def test_faults_early_in_an_episode_leave_the_score_in_order() -> None:
    shared = NumpyWorldModel(small_world_model())
    monitor = Monitor(PredictionError(shared), calibration())
    good = Observation({TOP: picture(np.array([0.5, 0.5]))}, "", 0.0)
    monitor.update(good, None)
    for _ in range(6):
        assert "expected shape" in monitor.update(seen(0), np.zeros(2)).reason
    assert not monitor.update(good, np.zeros(2)).reason
    assert "the command has 3 channels, the ones before had 2" in monitor.update(good, np.zeros(3)).reason


def test_a_fault_clears_the_history() -> None:
    """A missing frame would otherwise leave frames in it that are not a period apart."""
    monitor = Monitor(PredictionError(Counting()), calibration(mean=0.0, scale=1.0, threshold=0.5))
    found = []
    for k in range(20):
        observation = Observation({}, "", 0.1 * k) if k == 9 else seen(k, 0.1 * k)
        found.append(monitor.update(observation, np.ones(1) if k else None))
    assert [k for k, surprise in enumerate(found) if surprise.is_surprised] == [9]


@pytest.mark.parametrize("text", ["[1, 2]", '{"alpha": 0.05}'])
def test_other_json_is_not_a_calibration(tmp_path: Path, text: str) -> None:
    (tmp_path / "calibration.json").write_text(text)
    with pytest.raises(InputError, match=r"calibration\.json: expected a calibration"):
        Calibration.load(tmp_path)


def test_a_calibration_without_numbers_is_refused(tmp_path: Path) -> None:
    calibration(scale=0.0).save(tmp_path)
    with pytest.raises(InputError, match="expected finite numbers and a scale above 0"):
        Calibration.load(tmp_path)
