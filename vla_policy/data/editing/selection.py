"""Which episodes are meant: numbers and ranges as text, fractions of a dataset."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from vla_policy.data.format.findings import listed
from vla_policy.interfaces import InputError

MOST = 10_000_000  # episodes in a range


def parse_episodes(text: str) -> list[int]:
    """The numbers in "3,7,10-20", in order; both ends of a range belong to it."""
    numbers: set[int] = set()
    for word in text.strip("[] ").split(","):
        found = re.fullmatch(r"\s*(\d+)(?:\s*-\s*(\d+))?\s*", word)
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if not first <= last < MOST:
            raise InputError(f"episodes: expected numbers and ranges such as 3,7,10-20, found {text!r}")
        numbers.update(range(first, last + 1))
    return sorted(numbers)


def require_episodes(chosen: Sequence[int], known: Sequence[int], what: str) -> None:
    """`InputError` for an episode that is not among the `known` ones."""
    unknown = sorted(set(chosen) - set(known))
    if unknown:
        raise InputError(f"{what}: expected episodes from {listed(known)}, found {unknown[0]}")


def divided(episodes: Sequence[int], shares: Mapping[str, float], seed: int) -> dict[str, list[int]]:
    """Episodes drawn without replacement for each name, its share of all rounded to whole episodes.

    Shares that together make 1 leave none out. `InputError` for shares that are not in (0, 1], make more than 1, or
    give a name no episode.
    """
    total = sum(shares.values())
    if not all(0 < share <= 1 for share in shares.values()) or total > 1 + 1e-9:
        raise InputError(f"split: expected shares above 0 that make at most 1, found {dict(shares)}")
    order = np.random.default_rng(seed).permutation(len(episodes))
    ends = np.round(np.cumsum(list(shares.values())) * len(episodes) + 1e-9).astype(int)
    parts = np.split(order, ends)[:-1]
    for name, part in zip(shares, parts, strict=True):
        if not len(part):
            raise InputError(f"{name}: expected a share of at least one of {len(episodes)} episodes, found none")
    return {name: sorted(episodes[row] for row in part) for name, part in zip(shares, parts, strict=True)}


def parse_parts(words: Sequence[str], episodes: Sequence[int], seed: int) -> dict[str, list[int]]:
    """The episodes of each part from words such as train=0.8 and val=0.2, or a=0-9,15 and b=10-14.

    Numbers with a point are shares, see `divided`, others are those of episodes.
    """
    texts: dict[str, str] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not (name and equals and text) or name in texts:
            raise InputError(f"split: expected NAME=SHARE or NAME=EPISODES, once for a name, found {word!r}")
        texts[name] = text
    shares = [bool(re.fullmatch(r"\d*\.\d*", text)) for text in texts.values()]
    if any(shares) and not all(shares):
        raise InputError(f"split: expected shares alone, such as 0.8, or episodes alone, found {list(words)}")
    if not all(shares):
        return {name: parse_episodes(text) for name, text in texts.items()}
    return divided(episodes, {name: _share(text) for name, text in texts.items()}, seed)


def _share(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"split: expected a share, found {text!r}") from None
