"""Progress bars of commands, with the callbacks that move them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import TaskID

from vla_policy.utils.progress import progress_bar

if TYPE_CHECKING:
    from vla_policy.rollouts.results import EpisodeResult


@contextmanager
def rollout_bar(
    console: Console, name: str, n_episodes: int, word: str = "success", then: str = ""
) -> Iterator[tuple[Callable[[EpisodeResult], None], Callable[[int], None]]]:
    """The callbacks `on_episode` and `on_steps` of a rollout; successes are called `word`, `then` is what follows."""
    with progress_bar(console) as progress:
        task = progress.add_task(name, total=n_episodes, state="")
        episodes = successes = steps = 0

        def on_episode(result: EpisodeResult) -> None:
            nonlocal episodes, successes
            episodes, successes = episodes + 1, successes + result.success

        def on_steps(more: int) -> None:
            nonlocal steps
            steps += more
            state = f"{word} {successes} / {episodes}, {steps} steps" + then * (episodes == n_episodes)
            progress.update(task, completed=episodes, state=state)

        yield on_episode, on_steps


@contextmanager
def work_bars(console: Console) -> Iterator[Callable[[str, int], None]]:
    """One bar a piece of work, which appears with its first part done."""
    with progress_bar(console) as progress:
        tasks: dict[str, TaskID] = {}

        def tick(name: str, total: int) -> None:
            if name not in tasks:
                tasks[name] = progress.add_task(name, total=total, state="")
            progress.advance(tasks[name])

        yield tick
