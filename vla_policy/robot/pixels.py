"""Images of ROS messages as RGB: raw encodings, JPEG and PNG, cropped and scaled to a feature."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

from vla_policy.interfaces import DataError
from vla_policy.robot.contract import COMPRESSED, Source

# Bytes per pixel and the indices of red, green and blue. 8UC3 and 8UC4 are BGR, as in OpenCV.
_ORDERS = {
    "rgb8": (3, (0, 1, 2)),
    "bgr8": (3, (2, 1, 0)),
    "8UC3": (3, (2, 1, 0)),
    "rgba8": (4, (0, 1, 2)),
    "bgra8": (4, (2, 1, 0)),
    "8UC4": (4, (2, 1, 0)),
    "mono8": (1, (0, 0, 0)),
    "8UC1": (1, (0, 0, 0)),
}
_YUYV, _UYVY = ("yuv422_yuy2", "yuyv"), ("yuv422", "uyvy")  # luma first, chroma first
_BAYER = ("bayer_rggb8", "bayer_bggr8", "bayer_gbrg8", "bayer_grbg8")
_DEPTHS = {
    **{encoding: depth for encoding, (depth, _) in _ORDERS.items()},
    **dict.fromkeys(_YUYV + _UYVY, 2),
    **dict.fromkeys(_BAYER, 1),
}
ENCODINGS = tuple(_DEPTHS)
FORMATS = ("JPEG", "PNG")
# Pillow's exceptions for corrupt and oversized files.
_UNREADABLE = (OSError, SyntaxError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)


def read_image(message: Any, source: Source, height: int, width: int) -> np.ndarray:
    """A camera's feature (height, width, 3) uint8 RGB from an Image or CompressedImage.

    `DataError` names the topic and what does not fit: encoding, size, an image that cannot be decoded.
    """
    assert source.region is not None
    rgb = _decompress(message, source) if source.type == COMPRESSED else _decode(message, source)
    top, left, rows, columns = source.region.crop
    part = rgb[top : top + rows, left : left + columns]
    if (rows, columns) != (height, width):
        part = np.asarray(Image.fromarray(part).resize((width, height), Image.Resampling.BILINEAR))
    return np.ascontiguousarray(part)


def _decompress(message: Any, source: Source) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(bytes(message.data)), formats=FORMATS) as image:
            _require_size(source, image.height, image.width)  # before memory is allocated
            if image.mode.startswith(("I", "F")):
                raise DataError(f"{source.topic}: expected 8 bits a channel, found {image.mode!r}")
            return np.asarray(image.convert("RGB"))
    except _UNREADABLE as error:
        found = f"{message.format!r} of {len(message.data)} bytes ({error})"
        raise DataError(f"{source.topic}: expected an image in {' or '.join(FORMATS)}, found {found}") from None


def _decode(message: Any, source: Source) -> np.ndarray:
    encoding = message.encoding
    if encoding not in _DEPTHS:
        raise DataError(f"{source.topic}: encoding: expected one of {list(ENCODINGS)}, found {encoding!r}")
    height, width, depth = message.height, message.width, _DEPTHS[encoding]
    _require_size(source, height, width)
    data = np.frombuffer(message.data, np.uint8)
    if len(data) != height * message.step or message.step < width * depth:
        raise DataError(
            f"{source.topic}: expected {height} rows of {width * depth} bytes or more, found {len(data)} bytes in rows "
            f"of {message.step}"
        )
    pixels = data.reshape(height, message.step)[:, : width * depth].reshape(height, width, depth)
    if encoding in _ORDERS:
        return pixels[..., _ORDERS[encoding][1]]
    if encoding in _BAYER:
        return _demosaic(pixels[..., 0], encoding.removeprefix("bayer_")[:4])
    return _from_yuv(pixels[..., ::-1] if encoding in _UYVY else pixels, source.topic)


# Contributions of y, u and v (0 to 255) to red, green and blue, in 1/32: BT.601, limited range.
_LEVELS = np.arange(256)
_LUMA = np.rint(32 * 1.164384 * (_LEVELS - 16) + 16).astype(np.int16)  # 16 is for rounding
_CHROMA = np.rint(32 * np.outer([0.0, -0.391762, 2.017232, 1.596027, -0.812968, 0.0], _LEVELS - 128)).astype(np.int16)


def _from_yuv(pairs: np.ndarray, topic: str) -> np.ndarray:
    """RGB from y and alternating u and v (H, W, 2); each pair of pixels shares its chroma (4:2:2)."""
    height, width, _ = pairs.shape
    if width % 2:
        raise DataError(f"{topic}: expected an even width of YUV 4:2:2, found {width}")
    luma, u, v = _LUMA[pairs[..., 0]], pairs[:, ::2, 1], pairs[:, 1::2, 1]
    rgb = np.empty((height, width, 3), np.uint8)
    for colour in range(3):
        chroma = np.repeat(_CHROMA[colour][u] + _CHROMA[3 + colour][v], 2, axis=1)
        rgb[..., colour] = np.clip((luma + chroma) >> 5, 0, 255)
    return rgb


def _demosaic(mosaic: np.ndarray, pattern: str) -> np.ndarray:
    """RGB from a Bayer image (H, W) by bilinear interpolation; `pattern` is that of the upper left 2 x 2 pixels."""
    around = np.pad(mosaic.astype(np.uint16), 1, mode="reflect")
    beside = around[1:-1, :-2] + around[1:-1, 2:]
    above = around[:-2, 1:-1] + around[2:, 1:-1]
    corners = around[:-2, :-2] + around[:-2, 2:] + around[2:, :-2] + around[2:, 2:]
    rgb = np.empty((*mosaic.shape, 3), np.uint8)
    for place, colour in enumerate(pattern):
        here = (slice(place // 2, None, 2), slice(place % 2, None, 2))
        rgb[(*here, "rgb".index(colour))] = mosaic[here]
        if colour == "g":
            left = "rgb".index(pattern[place ^ 1])  # the colour of the neighbours in the row; 2 - left in the column
            rgb[(*here, left)] = (beside[here] + 1) // 2
            rgb[(*here, 2 - left)] = (above[here] + 1) // 2
        else:
            rgb[(*here, 1)] = (beside[here] + above[here] + 2) // 4
            rgb[(*here, 2 - "rgb".index(colour))] = (corners[here] + 2) // 4
    return rgb


def _require_size(source: Source, height: int, width: int) -> None:
    assert source.region is not None
    rows, columns = source.region.size
    if (height, width) != (rows, columns):
        raise DataError(f"{source.topic}: expected {rows} x {columns} pixels, found {height} x {width}")
