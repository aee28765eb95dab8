"""A smaller checkpoint as the draft of a larger one, for its action tokens or for its text; see `speculation`."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vla_policy.conf.policy_config import BackboneConfig, PolicyConfig
from vla_policy.interfaces import InputError
from vla_policy.models.checkpoint import BACKBONE, CONFIG, POLICY, checkpoint_folder, parse_config, read_checkpoint
from vla_policy.speculation import Decoder, Drafter, DrafterConfig, DraftProcess, LocalDrafter, OpenDecoder

if TYPE_CHECKING:
    from vla_policy.models.policy import DiffusionPolicy
    from vla_policy.models.vlm.backbone import Backbone

SAME = ("n_obs_steps", "rows", "action_relative", "action_basis")  # of two policies whose tokens mean the same


def action_drafter(policy: DiffusionPolicy, draft: str, device: str, config: DrafterConfig | None = None) -> Drafter:
    """The policy of another checkpoint as the draft of this one's action tokens.

    `InputError` unless both are autoregressive, their tokens mean the same, and what the draft sees is there.
    """
    check_action_draft(policy, draft)
    return _drafter(functools.partial(open_actions, draft, device), config)


def text_drafter(backbone: Backbone, draft: str, device: str, config: DrafterConfig | None = None) -> Drafter:
    """A smaller vision-language model, that of a policy's checkpoint or one of transformers, as the draft of this one's
    answers; `InputError` unless they share their tokenizer.
    """
    check_text_draft(backbone, draft)
    return _drafter(functools.partial(open_text, draft, device), config)


def check_action_draft(policy: DiffusionPolicy, draft: str) -> None:
    """`InputError` unless the checkpoint can draft for the policy; no weights are read."""
    found = policy.config.objective.name
    if found != "autoregressive":
        raise InputError(
            f"draft: expected a policy of action tokens to speed up (policy=autoregressive), found {found}"
        )
    parts = read_checkpoint(draft, POLICY)
    other = parse_config(PolicyConfig.from_dict, parts)
    if other.objective.name != "autoregressive":
        raise InputError(f"draft {draft}: expected policy=autoregressive, found {other.objective.name}")
    pairs = {key: (getattr(policy.config, key), getattr(other, key)) for key in SAME}
    pairs["bins"] = policy.config.objective.bins, other.objective.bins
    for key, (wanted, given) in pairs.items():
        if wanted != given:
            raise InputError(f"draft {draft}: expected {key} {wanted!r} as the policy has, found {given!r}")
    if parts.interface.action != policy.interface.action:
        raise InputError(
            f"draft {draft}: expected the action {policy.interface.action}, found {parts.interface.action}"
        )
    parts.interface.select(other.observation_keys).require(policy.interface, f"draft {draft}", "the policy")


def check_text_draft(backbone: Backbone, draft: str) -> None:
    """`InputError` unless the model can draft the backbone's answers; no weights are read."""
    from vla_policy.models.vlm.files import load_tokenizer

    folder = checkpoint_folder(draft)
    tokenizer = load_tokenizer(str(folder / BACKBONE if _is_policy(folder) else folder))
    if tokenizer.get_vocab() != backbone.tokenizer.get_vocab():
        raise InputError(f"draft {draft}: expected the tokenizer of the model that it drafts for, found another")


def open_actions(checkpoint: str, device: str) -> OpenDecoder:
    """What decodes this policy's action tokens for a raw observation."""
    from vla_policy.models.loading import load_policy

    policy = load_policy(checkpoint, device)

    def decoder(batch: Mapping[str, Any]) -> Decoder:
        return policy.action_decoder(batch)

    return decoder


def open_text(checkpoint: str, device: str) -> OpenDecoder:
    """What decodes the answers of this model to a question about frames."""
    import torch

    from vla_policy.models.loading import chosen_device, load_policy
    from vla_policy.models.vlm.backbone import Backbone

    folder = checkpoint_folder(checkpoint)
    if _is_policy(folder):
        backbone = load_policy(checkpoint, device).backbone
        if backbone is None:
            raise InputError(f"draft {checkpoint}: expected a policy with a vision-language backbone, found none")
    else:
        backbone = Backbone.create(BackboneConfig(path=str(folder), tuning="frozen"), ())
        backbone = backbone.eval().to(chosen_device(device, None))

    def decoder(prompt: tuple[list[Any], str]) -> Decoder:
        frames, question = prompt
        place = next(backbone.parameters()).device
        return backbone.decoder([torch.from_numpy(frame).to(place) for frame in frames], question)

    return decoder


def _drafter(load: Callable[[], OpenDecoder], config: DrafterConfig | None) -> Drafter:
    """In a process of its own where there is a core for it."""
    config = config or DrafterConfig()
    if len(os.sched_getaffinity(0)) > 1:
        return DraftProcess(load, config)
    return LocalDrafter(load(), config)


def _is_policy(folder: Path) -> bool:
    return (folder / CONFIG).is_file()
