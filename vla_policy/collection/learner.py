"""A policy that plays until it needs help."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from vla_policy.interfaces import STATE, Interface
from vla_policy.rollouts.control import ControlLoop, drive_of

PROGRESS = 0.01  # coverage; less is none


def digest(checkpoint: str) -> str:
    """A short hash of the policy in a folder or hub repository, which may change while its name does not."""
    from vla_policy.models.checkpoint import POLICY, checkpoint_folder, model_digest

    return model_digest(checkpoint_folder(checkpoint), POLICY)


class Learner:
    """The policy of a checkpoint, executed like a robot's."""

    def __init__(self, checkpoint: str) -> None:
        from vla_policy.models import DiffusionPolicy  # only here: the other behaviours' workers start without torch

        self.policy = DiffusionPolicy.from_pretrained(checkpoint)

    def use_one_thread(self) -> None:
        """As each of several processes should."""
        import torch

        torch.set_num_threads(1)

    def require(self, interface: Interface) -> None:
        """`InputError` unless the policy is one for this interface."""
        self.policy.interface.require(interface, "policy", "the environment")

    def play(
        self, env: gymnasium.Env, observation: dict[str, np.ndarray], info: dict[str, Any], most: int, patience: int
    ) -> tuple[dict[str, np.ndarray], dict[str, Any], int, bool]:
        """Play until success, for at most `most` control steps, or until the coverage has not reached a new height
        for `patience` of them.

        Returns the last observation and info, the number of steps, and whether it succeeded.
        """
        policy, interface = self.policy, self.policy.interface
        control = ControlLoop(interface, policy.n_obs_steps, policy.n_action_steps, drive_of(env))
        generator, task = np.random.default_rng(0), env.get_wrapper_attr("task")
        highest, since = float(info["coverage"]), 0
        for step in range(most):
            control.observe({key: observation[key] for key in interface.observations}, task, observation[STATE])
            window = control.ask()
            if window is not None:
                control.offer(policy.predict([window], generator)[0])
            command = control.command().action.astype(env.action_space.dtype)
            observation, _, terminated, _, info = env.step(command)
            if terminated:
                return observation, info, step + 1, True
            since += 1
            if info["coverage"] > highest + PROGRESS:
                highest, since = float(info["coverage"]), 0
            if since >= patience:
                return observation, info, step + 1, False
        return observation, info, most, False
