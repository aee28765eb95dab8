"""Callbacks that report the progress of a rollout."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

from vla_policy.rollouts.results import EpisodeResult


def _ignore(_: Any) -> None:
    pass


class ProgressCallbacks(NamedTuple):
    """`on_episode` is called with the result of every episode, `on_steps` with numbers of simulated steps."""

    on_episode: Callable[[EpisodeResult], Any] = _ignore
    on_steps: Callable[[int], Any] = _ignore


Progress = Callable[[str, int], AbstractContextManager[ProgressCallbacks]]  # of a name and a number of episodes


@contextmanager
def no_progress(_name: str, _n_episodes: int) -> Iterator[ProgressCallbacks]:
    """A `Progress` that shows nothing."""
    yield ProgressCallbacks()
