"""Checks that the configurations of models share: plausible ranges, and types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf

from vla_policy.interfaces import InputError

Config = TypeVar("Config")

# Beyond any current model: a larger configuration is a mistake, and would take hours and all memory to build.
WIDEST, DEEPEST, LONGEST = 65536, 1000, 4096
LARGEST_IMAGE = 4096  # side of an input image, pixels
LARGEST_WEIGHT = 1e6  # of a loss term


def check_ranges(config: Any, where: str, **ranges: tuple[float, float]) -> None:
    """`InputError` for a field, or an entry of a list, that is out of its range, bounds included, or not a number."""
    for name, (least, most) in ranges.items():
        value = getattr(config, name)
        for number in value if isinstance(value, list) else [value]:
            if not isinstance(number, int | float):  # OmegaConf lets lists of lists pass
                raise InputError(f"{where}.{name}: expected numbers, found {value}")
            if not least <= number <= most:
                expected = f"at least {least}" if number < least else f"at most {most}"
                raise InputError(f"{where}.{name}: expected {expected}, found {value}")


def check_words(config: Any, where: str, *names: str) -> None:
    """`InputError` for a field that is no list of strings."""
    for name in names:
        value = getattr(config, name)
        if not all(isinstance(word, str) for word in value):
            raise InputError(f"{where}.{name}: expected words, found {value}")


def check_encoder(config: Any, where: str) -> None:
    """The sizes of a convolutional encoder."""
    if not 1 <= len(config.channels) <= 8:
        raise InputError(f"{where}.channels: expected 1 to 8 stages, found {config.channels}")
    check_ranges(config, where, channels=(1, WIDEST), keypoints=(1, WIDEST), grid=(0, 32))


def check_transformer(config: Any, where: str) -> None:
    """The sizes of a transformer."""
    check_ranges(config, where, width=(1, WIDEST), depth=(0, DEEPEST), heads=(1, WIDEST))
    check_ranges(config, where, mlp_ratio=(0.01, 100), dropout=(0, 1))


def typed(kind: type[Config], data: Mapping[str, Any] | DictConfig) -> Config:
    """`data` as the dataclass `kind`, with its defaults for missing keys."""
    if not isinstance(data, Mapping | DictConfig):
        raise InputError(f"expected the options of a {kind.__name__}, found {data!r}")
    config = data if isinstance(data, DictConfig) else OmegaConf.create(dict(data))
    read = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), config))
    assert isinstance(read, kind)
    return read
