"""Progress bars of commands, with the callbacks that move them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import TaskID

from vla_policy.rollouts.progress import ProgressCallbacks
from vla_policy.rollouts.results import EpisodeResult
from vla_policy.utils.progress import progress_bar


@contextmanager
def rollout_bar(
    console: Console, name: str, n_episodes: int, word: str = "success", then: str = ""
) -> Iterator[ProgressCallbacks]:
    """The callbacks of a rollout; successes are labelled `word`, and `then` is shown after the last episode."""
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

        yield ProgressCallbacks(on_episode, on_steps)


@contextmanager
def work_bars(console: Console) -> Iterator[Callable[[str, int], None]]:
    """A callback (name, total) that advances the bar of that name, and adds it on the first call."""
    with progress_bar(console) as progress:
        tasks: dict[str, TaskID] = {}

        def advance(name: str, total: int) -> None:
            if name not in tasks:
                tasks[name] = progress.add_task(name, total=total, state="")
            progress.advance(tasks[name])

        yield advance
