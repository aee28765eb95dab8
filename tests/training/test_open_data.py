"""From `data.*` to samples: mixes, their proportions, splits and normalisation, and runs that are repeated."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.interrupt import interrupted_after
from helpers.small_dataset import TOP, WRIST, make_small_dataset
from helpers.small_diffusion import SMALL
from safetensors.torch import load_file

from vla_policy.data import LeRobotDataset, MixedWindows, WindowDataset
from vla_policy.evaluation.success.open_loop import held_out_episodes
from vla_policy.interfaces import ACTION, STATE, InputError
from vla_policy.models import DiffusionPolicy, PolicyConfig
from vla_policy.training import DataConfig, Trainer, TrainerConfig, fit_normalizer, open_data
from vla_policy.training.batches import StepSampler

VECTORS = PolicyConfig(observation_keys=[STATE], horizon=4, n_action_steps=2, **SMALL)


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two datasets: 9 episodes in [0, 1] with two cameras, 3 in [10, 11] with one."""
    folder = tmp_path_factory.mktemp("mix")
    make_small_dataset(folder / "kitchen", (TOP, WRIST), ("wash", "push"), episodes=9)
    make_small_dataset(folder / "lab", (TOP,), ("push", "open"), offset=10.0, episodes=3)
    return [str(folder / "kitchen"), str(folder / "lab")]


def sampler(windows: Any, start: int = 0, stop: int = 200, rank: int = 0, world: int = 1) -> StepSampler:
    return StepSampler(len(windows), 16 // world, 5, start, stop, rank, world, windows.probabilities)


@pytest.mark.parametrize(("weights", "share"), [([1.0, 3.0], 0.75), ([0.9, 0.1], 0.1), (None, 0.25)])
def test_datasets_are_sampled_in_proportion_to_their_weights(
    roots: list[str], weights: list[float] | None, share: float
) -> None:
    windows, _, about = open_data(DataConfig(roots, weights=weights, val_episodes=0), VECTORS)
    drawn = [windows.vectors(batch)[STATE][:, 0, 0] >= 10 for batch in sampler(windows)]
    from_lab = torch.cat(drawn).float().mean().item()
    assert from_lab == pytest.approx(share, abs=4 * (share * (1 - share) / 3200) ** 0.5)
    assert f"{100 * share:.1f} % from lab" in about["samples"]


def test_within_a_dataset_every_window_is_as_likely(roots: list[str]) -> None:
    windows, _, _ = open_data(DataConfig(roots, weights=[1.0, 1.0], val_episodes=0), VECTORS)
    assert isinstance(windows, MixedWindows)
    counts = Counter(index for batch in sampler(windows) for index in batch)
    first = len(windows.parts[0])
    for part in (range(first), range(first, len(windows))):
        expected = 1600 / len(part)
        found = np.array([counts[index] for index in part])
        assert abs(((found - expected) ** 2 / expected).mean() - 1) < 0.5  # chi squared a degree of freedom


def test_a_step_of_a_mix_depends_on_seed_and_step_alone(roots: list[str]) -> None:
    windows, _, _ = open_data(DataConfig(roots, weights=[1.0, 2.0], val_episodes=0), VECTORS)
    whole = list(sampler(windows, stop=10))
    assert list(sampler(windows, start=6, stop=10)) == whole[6:]
    two = [list(sampler(windows, stop=10, rank=rank, world=2)) for rank in (0, 1)]
    assert [one + other for one, other in zip(*two, strict=True)] == whole
    assert len({tuple(batch) for batch in whole}) == 10


def test_shuffled_actions_are_others_and_always_the_same(roots: list[str]) -> None:
    true, held_out, _ = open_data(DataConfig(roots[0], val_episodes=2), VECTORS)
    shuffled, same, about = open_data(DataConfig(roots[0], val_episodes=2, shuffle_actions=True), VECTORS)
    rows = np.arange(len(true))
    ours, theirs = true.vectors(rows), shuffled.vectors(rows)
    assert torch.equal(ours[STATE], theirs[STATE])
    apart = (ours[ACTION] != theirs[ACTION]).flatten(1).any(1)
    assert apart.float().mean() > 0.9
    assert torch.equal(ours[ACTION].flatten(1).sum(1).sort()[0], theirs[ACTION].flatten(1).sum(1).sort()[0])
    assert torch.equal(shuffled.__getitems__([3, 5])[ACTION], theirs[ACTION][[3, 5]])
    assert held_out is not None
    assert same is not None
    assert torch.equal(held_out.vectors([0])[ACTION], same.vectors([0])[ACTION])
    assert about["actions"] == "shuffled among the windows, a control"


def test_a_list_of_one_dataset_is_that_dataset(roots: list[str]) -> None:
    alone, held_out, about = open_data(DataConfig(roots[0], n_episodes=4, val_episodes=2), VECTORS)
    listed, _, same = open_data(DataConfig([roots[0]], weights=[0.3], n_episodes=4, val_episodes=2), VECTORS)
    assert isinstance(alone, WindowDataset)
    assert isinstance(listed, WindowDataset)
    assert about == same
    assert list(sampler(alone)) == list(sampler(listed))
    assert held_out is not None
    assert about["held_out_episodes"] == sorted(held_out.episodes)
    assert (about["dataset"], about["tasks"], about["demonstrations"]) == ("kitchen", "wash / push", 4)
    assert about["split"] == "4 of 9 episodes, split seed 0"


def test_each_dataset_is_split_by_episode(roots: list[str]) -> None:
    windows, held_out, about = open_data(DataConfig(roots, val_episodes=1), VECTORS)
    assert isinstance(windows, MixedWindows)
    assert isinstance(held_out, MixedWindows)
    for part, other, count in zip(windows.parts, held_out.parts, (9, 3), strict=True):
        assert sorted(part.episodes + other.episodes) == list(range(count))
        assert len(other.episodes) == 1
    assert about["held_out_episodes"] == {"kitchen": held_out.parts[0].episodes, "lab": held_out.parts[1].episodes}
    assert about["split"] == "8 of 9 and 2 of 3 episodes, split seed 0"
    assert about["tasks"] == "wash / push / open"
    lab = LeRobotDataset(roots[1])
    assert held_out_episodes(None, {"data": about}, lab) == held_out.parts[1].episodes
    with pytest.raises(InputError, match="states no held-out episodes"):
        held_out_episodes(None, {"data": about | {"held_out_episodes": {"kitchen": [0]}}}, lab)
    with pytest.raises(InputError, match="at most the dataset's 3 together, found 5 and 1"):
        open_data(DataConfig(roots, n_episodes=5, val_episodes=1), VECTORS)


def test_play_is_seen_but_not_imitated(tmp_path: Path) -> None:
    roots = [str(tmp_path / "shown"), str(tmp_path / "played")]
    for root, offset in zip(roots, (0.0, 10.0), strict=True):
        make_small_dataset(Path(root), (TOP,), ("push",), offset=offset, episodes=4)
    config = PolicyConfig(
        **{"observation_keys": [STATE, TOP], "auxiliary_keys": [STATE], "action_relative": True},
        **{"horizon": 4, "n_action_steps": 2, "normalization_per_step": True, **SMALL},
    )
    chosen = DataConfig(roots, n_episodes=[2, None], val_episodes=1, action_loss=[True, False])
    windows, held_out, about = open_data(chosen, config)
    assert isinstance(windows, MixedWindows)
    assert [len(part.episodes) for part in windows.parts] == [2, 3]
    assert isinstance(held_out, MixedWindows)
    assert [part.dataset.root.name for part in held_out.parts] == ["shown"]
    assert (about["demonstrations"], about["imitated"]) == (2, "shown")
    first = len(windows.parts[0])
    normalizer = fit_normalizer(windows, config)
    alone = fit_normalizer(windows.parts[0], config)
    np.testing.assert_array_equal(normalizer.stats[ACTION]["mean"], alone.stats[ACTION]["mean"])
    absolute = replace(config, action_relative=False, normalization_per_step=False)
    assert (fit_normalizer(windows, absolute).stats[ACTION]["max"] < 2).all()  # play is at 10
    assert (normalizer.stats[STATE]["max"] > 10).all()
    policy = DiffusionPolicy(config, windows.interface, normalizer)
    batch = windows.__getitems__([0, first])
    assert batch["imitated"].tolist() == [True, False]
    policy.eval()
    draw = [torch.Generator().manual_seed(0) for _ in range(3)]
    loss = policy.loss(batch, draw[0])[1]["action"]
    batch[ACTION][1] += 1.0
    assert torch.equal(policy.loss(batch, draw[1])[1]["action"], loss)
    batch[STATE][1] += 1.0
    _, parts = policy.loss(windows.__getitems__([first, first + 1]), draw[2])
    assert float(parts["action"]) == 0.0
    assert float(parts[f"auxiliary/{STATE}"]) > 0.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"action_loss": [True]}, r"data\.action_loss: expected 2 times true or false.*found \[True\]"),
        ({"action_loss": [False, False]}, "at least one true"),
        ({"n_episodes": [1]}, r"data\.n_episodes: expected a number, null or a list of 2.*found \[1\]"),
        ({"n_episodes": "all"}, "data.n_episodes: expected a number.*found 'all'"),
    ],
)
def test_what_is_said_of_several_datasets_fits_them(roots: list[str], changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        DataConfig(roots, **changes)


def test_one_normaliser_covers_the_mix(roots: list[str]) -> None:
    windows, _, _ = open_data(DataConfig(roots, val_episodes=0), VECTORS)
    stats = fit_normalizer(windows, VECTORS).stats
    assert (stats[STATE]["min"] < 0.1).all()
    assert (stats[STATE]["max"] > 10.9).all()
    relative = PolicyConfig(observation_keys=[STATE], horizon=4, n_action_steps=2, action_relative=True)
    batch = windows.__getitems__(range(len(windows)))
    chunks = (batch[ACTION] - batch[STATE][:, -1:]).flatten(0, 1).numpy()
    found = fit_normalizer(windows, relative).stats[ACTION]
    np.testing.assert_allclose(found["max"], chunks.max(0), rtol=1e-6)
    np.testing.assert_allclose(found["mean"], chunks.mean(0), atol=1e-5)


def test_missing_cameras_are_refused_or_black(roots: list[str]) -> None:
    policy = PolicyConfig(observation_keys=[STATE, TOP, WRIST], horizon=4, n_action_steps=2)
    with pytest.raises(InputError, match=rf"{roots[1]}: expected '{WRIST}', found .*data\.missing_cameras=pad"):
        open_data(DataConfig(roots, val_episodes=0), policy)
    for cache in (True, False):
        config = DataConfig(roots, val_episodes=0, missing_cameras="pad", cache=cache)
        windows, _, _ = open_data(config, policy)
        assert windows.interface.cameras == [TOP, WRIST]
        batch = windows.__getitems__([0, len(windows) - 1])
        assert batch[WRIST][0].any()
        assert not batch[WRIST][1].any()
        assert batch[TOP][1].any()


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"root": []}, r"data\.root: expected a dataset's folder or a list of them, found \[\]"),
        ({"root": 3}, r"data\.root: .*found 3"),
        ({"root": ["a", "a"]}, r"data\.root: expected every dataset once"),
        ({"root": ["a", "b"], "weights": [1.0]}, r"data\.weights: expected 2 positive numbers.*found \[1\.0\]"),
        ({"root": ["a", "b"], "weights": [1.0, 0.0]}, r"data\.weights: expected 2 positive numbers"),
        ({"root": ["a", "b"], "weights": [1.0, float("nan")]}, r"data\.weights"),
        ({"root": "a", "weights": [1.0, 2.0]}, r"data\.weights: expected 1 positive numbers"),
        ({"root": "a", "missing_cameras": "zero"}, r"data\.missing_cameras: expected 'refuse' or 'pad', found 'zero'"),
    ],
)
def test_mistakes_are_named(values: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        DataConfig(**values)


def test_a_run_on_a_mix_resumes_to_the_same_weights(roots: list[str], tmp_path: Path) -> None:
    windows, held_out, _ = open_data(DataConfig(roots, weights=[1.0, 1.0], val_episodes=1), VECTORS)
    settings = TrainerConfig(
        steps=8, batch_size=8, warmup_steps=2, save_every=3, log_every=2, precision="fp32", wandb=None, val_windows=8
    )

    def trainer(name: str) -> Trainer:
        torch.manual_seed(0)
        policy = DiffusionPolicy(VECTORS, windows.interface, fit_normalizer(windows, VECTORS))
        return Trainer(policy, windows, tmp_path / name, settings, seed=3, val_windows=held_out)

    trainer("whole").fit()
    interrupted_after(5, trainer("parts"))
    trainer("parts").fit(resume=True)
    whole, parts = (load_file(tmp_path / name / "state.safetensors") for name in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


def test_excluded_episodes_are_neither_trained_on_nor_held_out(roots: list[str]) -> None:
    windows, held_out, about = open_data(DataConfig(roots[0], exclude_episodes=[0, 4], val_episodes=2), VECTORS)
    assert isinstance(windows, WindowDataset)
    assert isinstance(held_out, WindowDataset)
    assert sorted(windows.episodes + held_out.episodes) == [1, 2, 3, 5, 6, 7, 8]
    assert about["held_out_episodes"] == sorted(held_out.episodes)
    assert about["excluded_episodes"] == [0, 4]
    _, _, about = open_data(DataConfig(roots, exclude_episodes=[[], [2]], val_episodes=1), VECTORS)
    assert about["excluded_episodes"] == {"lab": [2]}
    with pytest.raises(InputError, match="expected episodes 0 to 8 to exclude, found 9"):
        open_data(DataConfig(roots[0], exclude_episodes=[9]), VECTORS)


@pytest.mark.parametrize(
    ("root", "exclude", "says"),
    [
        ("a", 3, "expected episodes' numbers, found 3"),
        ("a", ["x"], "expected episodes' numbers"),
        (["a", "b"], [3], "expected 2 lists of episodes' numbers, one a dataset"),
        (["a", "b"], [[3]], "expected 2 lists"),
    ],
)
def test_what_is_excluded_is_checked(root: Any, exclude: Any, says: str) -> None:
    with pytest.raises(InputError, match=rf"data\.exclude_episodes: {says}"):
        DataConfig(root, exclude_episodes=exclude)
