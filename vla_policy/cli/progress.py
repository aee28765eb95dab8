"""The progress bar of commands that play episodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from vla_policy.rollouts.results import EpisodeResult


def bar(console: Console) -> Progress:
    """Tasks need the field `state`, a text."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[state]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )


@contextmanager
def rollout_bar(
    console: Console, name: str, n_episodes: int, word: str = "success", then: str = ""
) -> Iterator[tuple[Callable[[EpisodeResult], None], Callable[[int], None]]]:
    """The callbacks `on_episode` and `on_steps` of a rollout; successes are called `word`, `then` is what follows."""
    with bar(console) as progress:
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
