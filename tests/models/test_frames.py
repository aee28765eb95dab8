"""Policies that see and act from an object."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.small_diffusion import TOP, batch_of, pusht_interface, small_policy
from torch import Tensor

from vla_policy.data import Normalizer
from vla_policy.interfaces import ACTION, ENVIRONMENT_STATE, GOAL_STATE, STATE, Feature, Given, InputError, Interface
from vla_policy.models import DiffusionPolicy
from vla_policy.models.chunks import ChunkCodec
from vla_policy.models.continuation import known_rows
from vla_policy.models.frames import SEEN, ObjectFrame, inverse, rotation

FRAME: dict[str, Any] = {"object_frame": ENVIRONMENT_STATE, "action_relative": True}


def frame() -> ObjectFrame:
    return ObjectFrame(ENVIRONMENT_STATE, pusht_interface())


def pose(x: float, y: float, degrees: float) -> Tensor:
    angle = torch.deg2rad(torch.tensor(degrees))
    return torch.stack([torch.tensor(x), torch.tensor(y), torch.cos(angle), torch.sin(angle)])


def moved(values: Tensor, by: Tensor) -> Tensor:
    """Positions (..., 2), or poses (..., 4), under the motion of the plane that takes the origin to the pose `by`."""
    places = (rotation(by) @ values[..., :2, None])[..., 0] + by[:2]
    return torch.cat(
        [places, (rotation(by) @ values[..., 2:, None])[..., 0]] if values.shape[-1] == 4 else [places], -1
    )


def test_vectors_from_an_object_are_those_of_its_own_axes() -> None:
    block = pose(0.4, 0.1, 90.0)  # its x axis is the robot's y
    middle = torch.tensor([0.5, 0.1])
    seen = frame().seen({STATE: torch.tensor([0.4, 0.3]), ENVIRONMENT_STATE: block}, block, middle)
    torch.testing.assert_close(seen[STATE], torch.tensor([0.2, 0.0]))
    torch.testing.assert_close(seen[ENVIRONMENT_STATE], pose(0.0, -0.1, -90.0))  # the middle, and the robot's x axis
    torch.testing.assert_close(inverse(seen[ENVIRONMENT_STATE], torch.zeros(2)), pose(-0.1, 0.0, 90.0))
    double = block * torch.tensor([1.0, 1.0, 2.0, 2.0])  # an estimate, whose direction is too long
    torch.testing.assert_close(frame().seen({STATE: torch.tensor([0.4, 0.3])}, double, middle)[STATE], seen[STATE])


def test_a_goal_is_seen_from_the_object_wherever_both_lie() -> None:
    block_from_goal, by = pose(0.03, -0.02, 40.0), pose(0.2, -0.1, 70.0)
    goal = pose(0.5, 0.1, -30.0)
    for where in (goal, moved(goal, by)):
        block = moved(block_from_goal, where)
        seen = frame().seen({GOAL_STATE: block_from_goal}, block, torch.zeros(2))[GOAL_STATE]
        torch.testing.assert_close(moved(seen, block), where)


def test_targets_are_the_same_wherever_the_scene_lies_and_come_back() -> None:
    policy, batch, by = small_policy(**FRAME), batch_of(3), pose(0.2, -0.1, 70.0)
    elsewhere = {**batch, **{key: moved(batch[key], by) for key in (STATE, ENVIRONMENT_STATE, ACTION)}}
    codec = ChunkCodec(policy.config, policy.frame)
    torch.testing.assert_close(codec.encode(batch), codec.encode(elsewhere))
    assert not torch.allclose(codec.encode(batch), ChunkCodec(policy.config, None).encode(batch))
    torch.testing.assert_close(codec.decode(codec.encode(batch), codec.origin(batch)), batch[ACTION][:, 1:])


def test_what_it_does_moves_with_the_scene_but_for_where_the_robot_is() -> None:
    policy, batch, by = small_policy(**FRAME), batch_of(3), pose(0.2, -0.1, 70.0)
    with torch.no_grad():  # deaf to the only input that says where the robot is
        policy.encoder.vector_tokens["observation_environment_state"][0].weight.zero_()  # type: ignore[index]
    elsewhere = {**batch, **{key: moved(batch[key], by) for key in (STATE, ENVIRONMENT_STATE)}}
    here, there = (policy.sample(b, torch.Generator().manual_seed(0)) for b in (batch, elsewhere))
    torch.testing.assert_close(there, moved(here, by), atol=1e-5, rtol=0)
    assert not torch.allclose(here, there, atol=1e-2)


def test_the_object_may_be_seen_in_pictures_alone() -> None:
    options = {"observation_keys": [STATE, TOP], "auxiliary_keys": [ENVIRONMENT_STATE], **FRAME}
    policy, batch = small_policy(image=True, **options).eval(), batch_of(2)
    seen = policy.observe(batch, None)
    expected = policy.normalizer.unnormalize(ENVIRONMENT_STATE, seen.estimates[ENVIRONMENT_STATE])[:, -1:]
    assert seen.pose is not None
    torch.testing.assert_close(seen.pose, expected)
    loss, parts = policy.loss(batch, torch.Generator().manual_seed(0))
    loss.backward()
    assert parts[f"auxiliary/{ENVIRONMENT_STATE}"] > 0
    told = {key: value for key, value in batch.items() if key != ENVIRONMENT_STATE}  # not known where it is used
    assert policy.sample(told, torch.Generator().manual_seed(0)).shape == (2, 15, 2)
    assert policy.propose(told, torch.Generator().manual_seed(0), 3).shape == (2, 3, 15, 2)


def test_known_rows_are_in_the_objects_frame() -> None:
    policy, batch = small_policy(**FRAME), batch_of(2)
    origin = policy.codec.origin(batch)
    rows = batch[ACTION][0, 1:5].numpy().astype(float)
    known = known_rows([Given(rows, 2), None], origin, policy.codec, policy.normalizer, policy.device)
    torch.testing.assert_close(known.rows[0, 1:5], policy.chunks(batch)[0, 1:5])


def test_it_is_stored_with_the_policy(tmp_path: Path) -> None:
    policy, batch = small_policy(**FRAME), batch_of(2)
    policy.save_pretrained(tmp_path / "policy")
    stored = DiffusionPolicy.from_pretrained(tmp_path / "policy")
    draws = [p.eval().sample(batch, torch.Generator().manual_seed(0)) for p in (policy, stored)]
    torch.testing.assert_close(*draws)


def test_a_frame_needs_a_pose_and_channels_in_the_plane() -> None:
    with pytest.raises(
        InputError, match=r"policy.object_frame: expected null or one of \['observation.state', .*'near'"
    ):
        small_policy(**{**FRAME, "object_frame": "near"})
    with pytest.raises(InputError, match=r"policy.object_frame: expected action_relative=true with it, found false"):
        small_policy(object_frame=ENVIRONMENT_STATE)
    with pytest.raises(InputError, match=r"expected observation.state to be .* found \['x', 'y'\] \['m', 'm'\]"):
        small_policy(**{**FRAME, "object_frame": STATE})
    joints = Feature("float32", (2,), ("shoulder", "elbow"), ("rad", "rad"))
    full = pusht_interface()
    arm = Interface({STATE: joints, ENVIRONMENT_STATE: full.observations[ENVIRONMENT_STATE]}, joints, full.fps)
    with pytest.raises(InputError, match=r"policy.object_frame: observation.state: expected .* found \['shoulder', "):
        ObjectFrame(ENVIRONMENT_STATE, arm)
    stats = Normalizer.fit({key: np.random.default_rng(0).random((9, 2)) for key in (STATE, ACTION)})
    with pytest.raises(InputError, match=f"expected statistics of '{ENVIRONMENT_STATE}'"):
        DiffusionPolicy(small_policy(**FRAME).config, full, stats)
    policy = small_policy(**FRAME)
    lacking = {key: value for key, value in policy.normalizer.to_dict().items() if not key.startswith(SEEN)}
    with pytest.raises(InputError, match=f"expected statistics of '{SEEN}"):
        DiffusionPolicy(policy.config, full, Normalizer.from_dict(lacking))
