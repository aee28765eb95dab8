"""The model card: inputs and outputs, training data, and evaluations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vla_policy.conf.policy_config import PolicyConfig
from vla_policy.interfaces import Feature, Interface


def model_card(
    config: PolicyConfig, interface: Interface, weights: Mapping[str, Tensor], card: Mapping[str, Any]
) -> str:
    """Markdown with the hub's metadata header. `card` may have `data`, `training` and `evaluations`."""
    count = sum(value.numel() for value in weights.values())
    lines = [
        "---",
        "license: apache-2.0",
        "pipeline_tag: robotics",
        "tags: [robotics, diffusion-policy, vla_policy]",
        "---",
        "",
        f"# {'Vision-language-action' if config.backbone else 'Action diffusion'} transformer",
        "",
        f"{_objective(config)}, {count / 1e6:.2f} M parameters. It sees {config.n_obs_steps} observations, predicts "
        f"{config.horizon} actions at {interface.fps:g} Hz and is meant to execute {config.n_action_steps} of them"
        + (", relative to the newest state" if config.action_relative else "")
        + (f", in the frame of `{config.object_frame}`." if config.object_frame else "."),
        "",
        "```python",
        "from vla_policy.models import DiffusionPolicy",
        "",
        "policy = DiffusionPolicy.from_pretrained(FOLDER)",
        "```",
        "",
        "## Interface",
        "",
        "| feature | shape | names | units |",
        "|---|---|---|---|",
        *[_row(key, interface.observations[key]) for key in config.observation_keys],
        _row("action", interface.action),
        "",
        f"Actions are given in the frame {interface.frame!r}." if interface.frame else "The frame is undeclared.",
    ]
    if config.auxiliary_keys:
        lines.append(
            f"From its cameras it estimates {', '.join(config.auxiliary_keys)}, which training data tells and a robot "
            "need not: it learned to in training and acts on the estimate."
        )
    for section in ("data", "training"):
        if card.get(section):
            lines += ["", f"## {section.capitalize()}", "", *listed(card[section])]
    lines += ["", "## Measured success", ""]
    evaluations = card.get("evaluations", [])
    lines += _evaluations(evaluations) if evaluations else ["Not measured yet: run `vla-eval` on this folder."]
    return "\n".join(lines)


def listed(entries: Mapping[str, Any], indent: str = "") -> list[str]:
    """A Markdown list of keys and values; a value with keys of its own is a list in it."""
    lines = []
    for key, value in entries.items():
        name = f"{indent}- {key.replace('_', ' ')}:"
        lines += [name, *listed(value, indent + "  ")] if isinstance(value, Mapping) else [f"{name} {value}"]
    return lines


def _objective(config: PolicyConfig) -> str:
    objective = config.objective
    if objective.name == "autoregressive":
        return f"Autoregressive over action tokens ({objective.bins} bins)"
    kind = {
        "flow": "Flow matching",
        "ddpm": f"DDPM ({objective.prediction})",
        "masked": f"Masked diffusion over action tokens ({objective.bins} bins)",
    }[objective.name]
    passes = objective.inference_steps
    steps = f"{kind}, {passes} {objective.sampler} step{'s' * (passes != 1)}"
    if objective.name == "flow" and objective.temperature != 1:
        steps += f", temperature {objective.temperature:g}"
    return f"Ensemble of {config.ensemble}: {steps} of each" if config.ensemble > 1 else steps


def _row(key: str, feature: Feature) -> str:
    kind = "uint8 RGB" if feature.dtype == "image" else feature.dtype
    shape = " x ".join(str(size) for size in feature.shape)
    return f"| `{key}` | {shape} {kind} | {', '.join(feature.names)} | {', '.join(feature.units)} |"


def _evaluations(evaluations: list[Mapping[str, Any]]) -> list[str]:
    lines = ["| environment | episodes | success | 95 % interval | mean max reward |", "|---|---|---|---|---|"]
    for entry in evaluations:
        low, high = entry.get("success_ci95") or (float("nan"), float("nan"))
        extra = f", {entry['paraphrases']} paraphrases" if entry.get("paraphrases") else ""
        lines.append(
            f"| {entry.get('env', '?')}{extra} | {entry.get('n_episodes', '?')} (seeds from {entry.get('seed', '?')}) "
            f"| {entry.get('success_rate', float('nan')):.1%} | {low:.1%} to {high:.1%} "
            f"| {entry.get('mean_max_reward', float('nan')):.3f} |"
        )
    return lines
