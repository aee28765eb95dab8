"""Places, crops and keypoints."""

import torch
from helpers.small_diffusion import TOP, batch_of, small_policy

from vla_policy.conf.policy_config import EncoderConfig
from vla_policy.data import centre_crop, random_crop
from vla_policy.models.encoder import CameraEncoder, spatial_softmax


def test_a_sharp_heatmap_gives_the_coordinates_of_its_peak() -> None:
    encoder = CameraEncoder((96, 96, 3), 32, EncoderConfig(crop=1.0))
    places = encoder.places((12, 12), torch.zeros(1, 2))
    heatmaps = torch.zeros(1, 1, 12, 12)
    heatmaps[0, 0, 3, 9] = 100.0  # row 3, column 9: its centre is at x = 2 * 9.5 / 12 - 1, y = 2 * 3.5 / 12 - 1
    torch.testing.assert_close(spatial_softmax(heatmaps, places), torch.tensor([[2 * 9.5 / 12 - 1, 2 * 3.5 / 12 - 1]]))


def test_keypoints_stay_float32_under_autocast() -> None:
    encoder = CameraEncoder((96, 96, 3), 32, EncoderConfig())
    with torch.autocast("cpu", torch.bfloat16):
        keypoints = spatial_softmax(torch.randn(2, 3, 11, 11).bfloat16(), encoder.places((11, 11), torch.zeros(2, 2)))
    assert keypoints.dtype == torch.float32


def test_places_belong_to_the_whole_image_whatever_the_crop() -> None:
    encoder = CameraEncoder((96, 96, 3), 32, EncoderConfig(crop=0.875))
    left = encoder.places((21, 21), torch.tensor([[0, 0]])).reshape(21, 21, 2)
    right = encoder.places((21, 21), torch.tensor([[0, 12]])).reshape(21, 21, 2)
    torch.testing.assert_close(left[:, 3:], right[:, :-3])  # 12 pixels are 3 cells


def test_random_crops_come_with_their_corners_and_are_shared_by_a_samples_frames() -> None:
    frames = torch.arange(96 * 96 * 3).reshape(1, 1, 96, 96, 3).expand(5, 2, -1, -1, -1)
    crops, corners = random_crop(frames, 0.875, torch.Generator().manual_seed(0))
    assert crops.shape == (5, 2, 84, 84, 3)
    assert len({tuple(corner) for corner in corners.tolist()}) > 1
    for crop, (y, x) in zip(crops, corners.tolist(), strict=True):
        assert torch.equal(crop, frames[0][:, y : y + 84, x : x + 84])
    centre, corners = centre_crop(frames, 0.875)
    assert torch.equal(centre, frames[:, :, 6:90, 6:90])
    assert corners.tolist() == [[6, 6]] * 5


def test_random_crops_reach_every_edge() -> None:
    frames = torch.zeros(4000, 1, 10, 8, 3, dtype=torch.uint8)
    _, corners = random_crop(frames, 0.75, torch.Generator().manual_seed(0))
    assert corners.amin(0).tolist() == [0, 0]
    assert corners.amax(0).tolist() == [2, 2]


def test_training_augments_and_evaluation_does_not() -> None:
    policy, batch = small_policy(image=True), batch_of(3)
    first = policy.observe(batch, torch.Generator().manual_seed(0)).tokens
    other = policy.observe(batch, torch.Generator().manual_seed(1)).tokens
    assert not torch.allclose(first, other)
    assert torch.equal(policy.eval().observe(batch, None)[0], policy.observe(batch, None)[0])
    black = {**batch, TOP: torch.zeros_like(batch[TOP])}
    assert not torch.allclose(policy.observe(batch, None)[0], policy.observe(black, None)[0])
