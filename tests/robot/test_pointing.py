"""Pixels as places on the table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from sim import PushTEnv
from vla_policy.interfaces import InputError
from vla_policy.robot.contract import load_contract
from vla_policy.robot.pointing import Pointing

CONTRACT = Path(__file__).parents[2] / "config" / "pusht_sim.yaml"
PIXELS = np.array([[10.0, 10.0], [90.0, 12.0], [80.0, 90.0], [5.0, 80.0]])


def test_the_simulations_contract_points_where_its_camera_looks() -> None:
    env, pointing = PushTEnv(cameras=["top"]), load_contract(CONTRACT).pointing
    assert pointing is not None
    places = np.random.default_rng(0).uniform([0.258, -0.192], [0.642, 0.192], (50, 2))
    pixels = env.cameras["top"].project(np.column_stack([places, np.full(50, env.config.arm.tip_height)]))
    env.close()
    for pixel, place in zip(pixels, places, strict=True):
        np.testing.assert_allclose(pointing.place(pixel), place, atol=1e-4)  # metres


def test_more_than_four_pairs_are_fitted_and_pixels_above_the_horizon_have_no_place() -> None:
    def seen(place: np.ndarray) -> np.ndarray:
        x, y = place.T
        return np.column_stack([48 + 60 * y / (1 + x), 10 + 50 / (1 + x)])

    places = np.random.default_rng(1).uniform(0, 1, (12, 2))
    pointing = Pointing("camera", ("x", "y"), seen(places), places)
    np.testing.assert_allclose(pointing.place(seen(np.array([[0.3, 0.7]]))[0]), [0.3, 0.7], atol=1e-9)
    assert pointing.place(np.array([48.0, 9.0])) is None
    np.testing.assert_allclose(pointing.pixels(places), seen(places), atol=1e-6)
    assert np.isnan(pointing.pixels(np.array([[-2.0, 0.0]]))).all()  # behind the camera
    np.testing.assert_allclose(Pointing("camera", ("x", "y"), PIXELS, PIXELS).place(np.array([3.0, 4.0])), [3.0, 4.0])


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("camera", "observation.images.side", r"camera: expected one of \['observation.images.top'\], found"),
        ("channels", ["x", "z"], r"channels: expected two of \['x', 'y'\], found \['x', 'z'\]"),
        ("channels", ["x", "x"], "channels: expected two of"),
        ("pixels", PIXELS[:3].tolist(), "pixels: expected four or more pairs"),
        ("pixels", [*PIXELS.tolist(), [1.0, 2.0]], "expected a place for each of 5 pixels, found 4"),
        ("pixels", "here", "pixels: expected pairs of numbers, found 'here'"),
        ("pixels", [[1, 1], [2, 2], [3, 3], [9, 1]], "no three lie on a line"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, key: str, value: Any, message: str) -> None:
    data = yaml.safe_load(CONTRACT.read_text())
    data["pointing"][key] = value
    (tmp_path / "robot.yaml").write_text(yaml.safe_dump(data))
    with pytest.raises(InputError, match=rf"robot\.yaml: pointing: .*{message}"):
        load_contract(tmp_path / "robot.yaml")
