"""Pictures in the encodings of real cameras."""

from __future__ import annotations

import io
from contextlib import suppress
from types import SimpleNamespace as Message

import numpy as np
import pytest
from PIL import Image

from vla_policy.interfaces import InputError
from vla_policy.robot.contract import COMPRESSED, IMAGE, ImageRegion, Source
from vla_policy.robot.pixels import read_image

HEIGHT, WIDTH = 24, 32


def source(kind: str = IMAGE, size: tuple[int, int] = (HEIGHT, WIDTH), crop: tuple | None = None) -> Source:
    return Source("camera", kind, region=ImageRegion(size, crop or (0, 0, *size)))


def raw(pixels: np.ndarray, encoding: str, padding: int = 3) -> Message:
    rows = np.pad(pixels.reshape(len(pixels), -1), ((0, 0), (0, padding)))
    return Message(
        height=len(pixels), width=pixels.shape[1], encoding=encoding, step=rows.shape[1], data=rows.tobytes()
    )


def smooth() -> np.ndarray:
    """Colours that change slowly: red to the right, green downwards, blue both."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([40 + 5 * x, 40 + 6 * y, 30 + 3 * (x + y)], axis=2).astype(np.uint8)


def compressed(rgb: np.ndarray, kind: str, **options: object) -> Message:
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, kind, **options)
    return Message(format=kind.lower(), data=np.frombuffer(file.getvalue(), np.uint8))


@pytest.mark.parametrize(("encoding", "order"), [("8UC3", (2, 1, 0)), ("bgr8", (2, 1, 0)), ("rgb8", (0, 1, 2))])
def test_three_bytes_a_pixel(encoding: str, order: tuple[int, ...]) -> None:
    found = read_image(raw(smooth()[..., order], encoding), source(), HEIGHT, WIDTH)
    np.testing.assert_array_equal(found, smooth())


@pytest.mark.parametrize("encoding", ["mono8", "8UC1"])
def test_grey(encoding: str) -> None:
    grey = smooth()[..., 0]
    np.testing.assert_array_equal(
        read_image(raw(grey, encoding), source(), HEIGHT, WIDTH), np.stack([grey] * 3, axis=2)
    )


@pytest.mark.parametrize(("encoding", "places"), [("yuv422_yuy2", (0, 1)), ("yuyv", (0, 1)), ("yuv422", (1, 0))])
def test_yuv_is_of_bt601_with_limited_range(encoding: str, places: tuple[int, int]) -> None:
    rgb = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    rgb[:, ::2], rgb[:, 1::2] = (200, 60, 30), (200, 60, 30)
    r, g, b = (200 / 255, 60 / 255, 30 / 255)
    y = 0.299 * r + 0.587 * g + 0.114 * b
    luma, cb, cr = 16 + 219 * y, 128 + 224 * (b - y) / 1.772, 128 + 224 * (r - y) / 1.402
    pairs = np.zeros((HEIGHT, WIDTH, 2), np.uint8)
    pairs[..., places[0]] = round(luma)
    pairs[:, ::2, places[1]], pairs[:, 1::2, places[1]] = round(cb), round(cr)
    found = read_image(raw(pairs, encoding, padding=0), source(), HEIGHT, WIDTH)
    assert np.abs(found.astype(int) - rgb).max() <= 2


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_patterns_are_interpolated(pattern: str) -> None:
    rgb = smooth()
    mosaic = np.zeros((HEIGHT, WIDTH), np.uint8)
    for place, colour in enumerate(pattern):
        row, column = divmod(place, 2)
        mosaic[row::2, column::2] = rgb[row::2, column::2, "rgb".index(colour)]
    found = read_image(raw(mosaic, f"bayer_{pattern}8"), source(), HEIGHT, WIDTH)
    error = np.abs(found.astype(int) - rgb)
    assert error[1:-1, 1:-1].max() <= 1  # of colours that change evenly
    assert error.max() <= 6  # at the border the neighbours of one side stand for both


def test_yuv_of_odd_width_is_refused() -> None:
    with pytest.raises(InputError, match=r"camera: expected an even width of YUV 4:2:2, found 5"):
        read_image(raw(np.zeros((4, 5, 2), np.uint8), "yuyv"), source(size=(4, 5)), 4, 5)


def test_jpeg_and_png_are_decoded() -> None:
    png = read_image(compressed(smooth(), "PNG"), source(COMPRESSED), HEIGHT, WIDTH)
    np.testing.assert_array_equal(png, smooth())
    jpeg = read_image(compressed(smooth(), "JPEG", quality=95), source(COMPRESSED), HEIGHT, WIDTH)
    assert np.abs(jpeg.astype(int) - smooth()).mean() < 3
    grey = read_image(compressed(smooth()[..., 0], "PNG"), source(COMPRESSED), HEIGHT, WIDTH)
    np.testing.assert_array_equal(grey, np.stack([smooth()[..., 0]] * 3, axis=2))


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (Message(format="jpeg", data=b"no picture"), "expected an image in JPEG or PNG, found 'jpeg' of 10 bytes"),
        (compressed(np.zeros((8, 8, 3), np.uint8), "PNG"), "camera: expected 24 x 32 pixels, found 8 x 8"),
        (compressed(np.zeros((HEIGHT, WIDTH), np.uint16), "PNG"), "expected 8 bits a channel, found 'I"),
        (compressed(smooth(), "BMP"), "expected an image in JPEG or PNG"),
    ],
)
def test_compressed_pictures_that_do_not_fit_are_refused(message: Message, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        read_image(message, source(COMPRESSED), HEIGHT, WIDTH)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_broken_files_are_read_or_refused(kind: str) -> None:
    whole = bytes(compressed(smooth(), kind).data)
    rng = np.random.default_rng(0)
    for _ in range(200):
        data = bytearray(whole[: rng.integers(0, len(whole))] if rng.random() < 0.5 else whole)
        for place in rng.integers(0, max(1, len(data)), 3):
            data[place : place + 1] = rng.bytes(1)
        with suppress(InputError):
            found = read_image(Message(format=kind, data=bytes(data)), source(COMPRESSED), HEIGHT, WIDTH)
            assert found.shape == (HEIGHT, WIDTH, 3)


def test_a_part_of_the_picture_is_cut_out_and_scaled() -> None:
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    picture[4:20, 8:24] = 200
    picture[4:12, 8:16, 0] = 100
    cut = read_image(raw(picture, "rgb8"), source(crop=(4, 8, 16, 16)), 16, 16)
    np.testing.assert_array_equal(cut, picture[4:20, 8:24])
    half = read_image(raw(picture, "rgb8"), source(crop=(4, 8, 16, 16)), 8, 8)
    assert half.shape == (8, 8, 3)
    np.testing.assert_array_equal(half[1, 1], (100, 200, 200))
    np.testing.assert_array_equal(half[6, 6], (200, 200, 200))
