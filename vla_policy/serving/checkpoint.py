"""A checkpoint's policy to its clients and to its server: what is said of it, and whether it is the expected one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from vla_policy.interfaces import InputError
from vla_policy.serving.served import Served
from vla_policy.serving.tokens import token

if TYPE_CHECKING:
    from vla_policy.models import DiffusionPolicy
    from vla_policy.serving.client import RemotePolicy


def describe(policy: DiffusionPolicy, checkpoint: str) -> Served:
    """What a server says of the policy of this checkpoint."""
    from vla_policy.models.checkpoint import POLICY, checkpoint_folder, model_digest
    from vla_policy.models.loading import about, usual_ranges

    folder, config = checkpoint_folder(checkpoint), policy.config
    return Served(
        name=checkpoint,
        digest=model_digest(folder, POLICY),
        interface=policy.interface,
        n_obs_steps=policy.n_obs_steps,
        n_image_steps=1 if config.encoder is None else config.image_steps,  # a backbone looks at the newest alone
        n_action_steps=policy.n_action_steps,
        rows=config.horizon - config.n_obs_steps + 1,
        reads=policy.reads,
        unchecked=policy.unchecked,
        ranges=usual_ranges(policy.interface, policy.normalizer, config),
        about=json.loads(json.dumps(about(policy), default=str)),
    )


def remote_policy(server: str, jpeg: int = 0, checkpoint: str | None = None) -> RemotePolicy:
    """The policy of the server at this address, with the token of the environment.

    `InputError` unless it is that of `checkpoint`, a folder or hub name; None: any.
    """
    try:
        from vla_policy.serving.client import RemotePolicy
    except ModuleNotFoundError as error:
        if error.name != "websockets":
            raise
        raise InputError(
            "server: expected the package websockets, found none; in a clone: pip install '.[serve]'"
        ) from None
    expected = ""
    if checkpoint:  # read before there is a connection
        from vla_policy.models.checkpoint import POLICY, checkpoint_folder, model_digest

        expected = model_digest(checkpoint_folder(checkpoint), POLICY)
    policy = RemotePolicy(server, token(), jpeg)
    if expected and policy.served.digest != expected:
        found = f"{policy.served.name}, {policy.served.digest}"
        policy.close()
        raise InputError(f"server {server}: expected the policy of {checkpoint}, {expected}, found that of {found}")
    return policy
