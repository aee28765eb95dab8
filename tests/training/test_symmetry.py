"""Isometries of the plane acting on features, pictures and batches."""

import numpy as np
import pytest
import torch

from vla_policy.interfaces import ACTION, ENVIRONMENT_STATE, STATE, Feature, InputError, Interface
from vla_policy.training import RandomSymmetry, Symmetry

XY = Feature("float32", (2,), ("x", "y"), ("m", "m"))
POSE = Feature("float32", (5,), ("x", "y", "cos", "sin", "gripper"), ("m", "m", "1", "1", "1"))
CAMERA = "observation.images.top"
# Reflection about the line y = x - 1; the picture is 3 m wide and 2 m high, v against y.
MIRROR = Symmetry(
    np.array([[0.0, 1.0], [1.0, 0.0]]),
    np.array([1.0, -1.0]),
    {CAMERA: np.array([[1 / 3, 0.0, 0.0], [0.0, -1 / 2, 1.0], [0.0, 0.0, 1.0]])},
)


def interface(image: bool = False) -> Interface:
    pictures = {CAMERA: Feature("image", (20, 30, 3))} if image else {}
    return Interface({STATE: XY, ENVIRONMENT_STATE: POSE, **pictures}, XY, 10)


def test_positions_move_directions_turn_and_the_rest_stays() -> None:
    pose = torch.tensor([[3.0, 0.5, 0.6, 0.8, 0.3]])
    moved = MIRROR.vectors(pose, POSE)
    torch.testing.assert_close(moved, torch.tensor([[1.5, 2.0, 0.8, 0.6, 0.3]]))
    torch.testing.assert_close(MIRROR.vectors(moved, POSE), pose)
    torch.testing.assert_close(MIRROR.vectors(torch.tensor([[2.0, 1.0]]), XY), torch.tensor([[2.0, 1.0]]))  # the axis


@pytest.mark.parametrize("scale", [1, 3])
def test_a_picture_of_any_size_is_what_the_camera_would_see(scale: int) -> None:
    height, width = 20 * scale, 30 * scale

    def dot(x: float, y: float) -> torch.Tensor:
        frames = torch.zeros(1, 1, height, width, 3, dtype=torch.uint8)
        u, v, _ = MIRROR.cameras[CAMERA] @ [x, y, 1.0]
        frames[0, 0, int(v * height), int(u * width)] = 250
        return frames

    x, y = 2.05, 0.55  # a pixel's centre, and so is its image
    assert torch.equal(MIRROR.pictures(dot(x, y), CAMERA), dot(y + 1, x - 1))
    below = MIRROR.sources(CAMERA, 20, 30)[..., 1] > 1
    assert np.array_equal(below, np.broadcast_to(np.arange(30) < 10, (20, 30)))  # there the border is repeated


def test_each_window_is_drawn_as_it_is_or_as_its_image_with_all_its_features() -> None:
    generator = torch.Generator().manual_seed(0)
    batch = {
        STATE: torch.rand(400, 2, 2, generator=generator),
        ENVIRONMENT_STATE: torch.rand(400, 2, 5, generator=generator),
        ACTION: torch.rand(400, 16, 2, generator=generator),
        "task": ["push"] * 400,
    }
    augment = RandomSymmetry([MIRROR], interface())
    changed = augment(batch, np.random.default_rng(0))
    images = augment.images({key: batch[key] for key in changed})[0]
    moved = (changed[STATE] != batch[STATE]).flatten(1).any(1)
    assert 0.4 < moved.float().mean() < 0.6
    for key, values in changed.items():
        assert torch.equal(values[~moved], batch[key][~moved])
        assert torch.equal(values[moved], images[key][moved])
    again = augment(batch, np.random.default_rng(0))
    assert torch.equal(again[ACTION], changed[ACTION])
    assert not torch.equal(augment(batch, np.random.default_rng(1))[ACTION], changed[ACTION])


def test_what_no_isometry_moves_stays() -> None:
    gripper = Feature("float32", (1,), ("gripper",), ("1",))
    assert torch.equal(MIRROR.vectors(torch.tensor([[0.4]]), gripper), torch.tensor([[0.4]]))
    RandomSymmetry([MIRROR], Interface({STATE: XY, "observation.gripper": gripper}, XY, 10))


def test_what_an_isometry_cannot_act_on_is_named() -> None:
    joints = Feature("float32", (2,), ("shoulder", "elbow"), ("rad", "rad"))
    with pytest.raises(InputError, match=r"symmetries: action: expected channels x, y in metres.*found \['shoulder'"):
        RandomSymmetry([MIRROR], Interface({STATE: XY}, joints, 10))
    pixels = Feature("float32", (2,), ("x", "y"), ("px", "px"))
    with pytest.raises(InputError, match=r"symmetries: observation.state: .*\['px', 'px'\]"):
        RandomSymmetry([MIRROR], Interface({STATE: pixels}, XY, 10))
    other = Interface({STATE: XY, "observation.images.wrist": Feature("image", (20, 30, 3))}, XY, 10)
    with pytest.raises(InputError, match=r"images.wrist: expected a calibrated camera, found none of \['observation"):
        RandomSymmetry([MIRROR], other)
