"""Recorded takeovers in training: how often they are sampled, and what before them is not imitated."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.small_dataset import make_small_dataset

from vla_policy.data import LeRobotDataset, MixedWindows, WindowDataset, common_interface
from vla_policy.data.editing import delete, merge
from vla_policy.data.inspection import inspect
from vla_policy.data.takeovers import Takeovers, any_within, frames_before
from vla_policy.interfaces import ACTION, STATE, InputError
from vla_policy.models import PolicyConfig
from vla_policy.training import DataConfig, open_data
from vla_policy.training.batches import StepSampler

LENGTH = 20  # frames of an episode, at 10 Hz
SPANS = {0: [[8, 12], [16, 20]], 2: [[0, 5]]}


@pytest.fixture
def marked(tmp_path: Path) -> LeRobotDataset:
    """Three episodes, two of them with takeovers."""
    root = make_small_dataset(tmp_path / "marked", cameras=(), episodes=3, length=LENGTH).root
    entries = [{"episode": episode, "interventions": SPANS.get(episode, [])} for episode in range(3)]
    (root / "recordings.json").write_text(json.dumps(entries))
    return LeRobotDataset(root)


def windows(dataset: LeRobotDataset, *takeovers: float, horizon: int = 4, past: bool = True) -> WindowDataset:
    return WindowDataset(dataset, [STATE], 2, horizon, horizon - 2, takeovers=Takeovers(*takeovers, past=past))


def test_frames_before_a_takeover_are_the_policys_own() -> None:
    led = np.zeros(12, bool)
    led[[4, 5, 7, 8]] = True
    assert np.flatnonzero(frames_before(led, 3)).tolist() == [1, 2, 3, 6]
    assert not frames_before(led, 0).any()
    assert not frames_before(np.ones(3, bool), 2).any()
    assert any_within(led, np.array([0, 0, 5, 9]), np.array([3, 4, 6, 11])).tolist() == [False, True, True, False]


def test_a_takeover_is_sampled_more_often(marked: LeRobotDataset) -> None:
    usual, weighed = windows(marked), windows(marked, 3.0)
    assert usual.probabilities is None
    assert weighed.dropped == 0
    assert len(weighed) == len(usual) == 3 * LENGTH
    there = {(episode, t) for episode, spans in SPANS.items() for span in spans for t in range(*span)}
    assert {weighed.window(i) for i in np.flatnonzero(weighed.led)} == there
    expected = len(there)
    assert weighed.probabilities is not None
    assert weighed.probabilities.sum() == pytest.approx(1)
    assert np.unique(np.round(weighed.probabilities / weighed.probabilities.min(), 6)).tolist() == [1, 3]
    sampler = StepSampler(len(weighed), 1000, 0, 0, 4, probabilities=weighed.probabilities)
    share = weighed.led[np.concatenate(list(sampler))].mean()
    assert share == pytest.approx(3 * expected / (3 * expected + 3 * LENGTH - expected), abs=0.03)


@pytest.mark.parametrize("past", [True, False])
@pytest.mark.parametrize("horizon", [2, 4])
def test_what_the_policy_did_before_is_no_target(marked: LeRobotDataset, horizon: int, past: bool) -> None:
    some = windows(marked, 1.0, 0.25, horizon=horizon, past=past)  # 2.5 frames, that is 3
    begin = -1 if past else 0

    def targets(episode: int, t: int) -> set[tuple[int, int]]:
        return {(episode, min(max(t + k, 0), LENGTH - 1)) for k in range(begin, horizon - 1)}

    own = {(0, frame) for first in (8, 16) for frame in range(first - 3, first)}
    kept = {some.window(i) for i in range(len(some))}
    left_out = {(e, t) for e in range(3) for t in range(LENGTH)} - kept
    assert not any(own & targets(*window) for window in kept)
    assert all(own & targets(*window) for window in left_out)
    assert len(left_out) == some.dropped == 2 * (3 + horizon - 2 - begin)
    assert {(0, 8), (0, 9)} & kept == ({(0, 9)} if past else {(0, 8), (0, 9)})  # the takeover itself
    batch = some.__getitems__(range(len(some)))
    assert len(batch[ACTION]) == len(some)


def test_several_datasets_are_weighed_together(marked: LeRobotDataset, tmp_path: Path) -> None:
    plain = make_small_dataset(tmp_path / "plain", cameras=(), episodes=2, length=LENGTH)
    interface = common_interface([marked, plain], [STATE])
    parts = [windows(marked, 3.0), windows(plain)]
    joined = MixedWindows(parts, interface)
    assert joined.probabilities is not None
    first = joined.probabilities[: len(parts[0])]
    assert np.allclose(joined.probabilities.sum(), 1)
    assert np.allclose(first[parts[0].led] / joined.probabilities[-1], 3)
    assert np.allclose(first[~parts[0].led] / joined.probabilities[-1], 1)
    even = MixedWindows(parts, interface, weights=[1, 1])
    assert even.probabilities is not None
    assert even.probabilities[: len(parts[0])].sum() == pytest.approx(0.5)
    assert MixedWindows([windows(plain)], interface).probabilities is None


def test_training_says_what_it_made_of_them(marked: LeRobotDataset, tmp_path: Path) -> None:
    model = PolicyConfig(observation_keys=[STATE], n_obs_steps=2, horizon=4, n_action_steps=2)
    config = DataConfig(str(marked.root), val_episodes=1, intervention_weight=2.0, drop_before_intervention=0.2)
    training, _, described = open_data(config, model)
    assert training.probabilities is not None
    assert "each sampled 2 times as often" in described["interventions"]
    assert "interventions" not in open_data(DataConfig(str(marked.root)), model)[2]
    plain = make_small_dataset(tmp_path / "plain", cameras=(), episodes=2).root
    with pytest.raises(InputError, match=r"data\.intervention_weight: expected recorded interventions in .*found none"):
        open_data(DataConfig(str(plain), intervention_weight=2.0), model)
    for wrong in ({"intervention_weight": 0.0}, {"drop_before_intervention": -1.0}):
        with pytest.raises(InputError, match=rf"data\.{next(iter(wrong))}: expected"):
            DataConfig(str(plain), **wrong)


def test_marks_that_do_not_fit_are_named(marked: LeRobotDataset) -> None:
    for spans, says in [([[3]], "as pairs of frames"), ([[2, 99]], "within 20 frames, found 2 to 99")]:
        (marked.root / "recordings.json").write_text(json.dumps([{"episode": 1, "interventions": spans}]))
        with pytest.raises(InputError, match=rf"recordings\.json.*{says}"):
            windows(LeRobotDataset(marked.root), 2.0)


def test_they_are_counted(marked: LeRobotDataset) -> None:
    assert inspect(marked)["interventions"] == {"takeovers": 3, "frames": 13}


def test_marks_go_with_their_episodes(marked: LeRobotDataset, tmp_path: Path) -> None:
    delete(marked.root, [1], out=tmp_path / "less")
    less = LeRobotDataset(tmp_path / "less")
    assert less.interventions == {0: [(8, 12), (16, 20)], 1: [(0, 5)]}
    merge([less.root, marked.root], tmp_path / "both")
    assert LeRobotDataset(tmp_path / "both").interventions == {
        **less.interventions, 2: [(8, 12), (16, 20)], 4: [(0, 5)],
    }  # fmt: skip
