"""When to call the policy, with which input, and what to play of its answer: the input side of a robot's execution."""

from __future__ import annotations

from vla_policy.interfaces import ActionChunk, Branches, Given, Interface, Observation
from vla_policy.runtime.buffer import ObservationBuffer
from vla_policy.runtime.chunking import Chunking
from vla_policy.runtime.history import History


class Pilot:
    """Turns samples in `buffer` into windows, one per `n_action_steps` control periods, and answers into what is
    played, as `chunking` says.
    """

    def __init__(
        self,
        interface: Interface,
        n_obs_steps: int,
        n_action_steps: int,
        buffer: ObservationBuffer,
        chunking: str = "async",
    ) -> None:
        self.interface, self.buffer = interface, buffer
        self._history = History(n_obs_steps, 1.0 / interface.fps)
        self._chunking = Chunking(chunking, n_action_steps, 1.0 / interface.fps)

    @property
    def delay(self) -> int:
        """The delay to expect of the next chunk, in control periods."""
        return self._chunking.delay

    @property
    def newest(self) -> Observation | None:
        """The newest observation since a reset."""
        return self._history.newest() if len(self._history) else None

    def reset(self, now: float) -> None:
        """Restart with observations after `now`."""
        self.buffer.clear(now)
        self._history.clear()
        self._chunking.reset()

    def forget(self) -> None:
        """Let nothing that was predicted for another task decide later chunks; what is played goes on."""
        self._chunking.forget()

    def observe(self, task: str) -> Observation | None:
        """The newest observation if there is a new one; `DataError` if it does not match the interface."""
        observation = self.buffer.newest(task)
        if observation is not None:
            observation.check(self.interface)
            if len(self._history) and observation.t <= self._history.newest().t:  # the clock was set back
                self._history.clear()
                self._chunking.reset()
            self._history.append(observation)
        return observation

    def window(self) -> list[Observation] | None:
        """The policy's input if a chunk is needed, else None."""
        if not len(self._history) or not self._chunking.wanted(self._history.newest().t):
            return None
        return self._history.window()

    def given(self, window: list[Observation]) -> Given | None:
        """What the chunk for this window should continue, if anything."""
        return self._chunking.given(window[-1].t)

    def asked(self, window: list[Observation]) -> None:
        """Note that the policy was called with this window; it is called again after its answer."""
        self._chunking.ask(window[-1].t)

    def answer(self, chunk: ActionChunk, now: float) -> ActionChunk | None:
        """What is to be played of the policy's answer from `now` on.

        None if it was asked before a reset or for another task.
        """
        return self._chunking.answer(chunk, now)


def decided(chunk: ActionChunk, seen: Observation | None) -> ActionChunk:
    """The chunk, or of branches the one nearest to what is seen, for which an encoder may have to look at a picture.

    With nothing seen since a reset they are handed back: nobody waits for an answer then.
    """
    return chunk.nearest(seen) if isinstance(chunk, Branches) and seen is not None else chunk
