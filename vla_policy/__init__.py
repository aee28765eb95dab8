"""Robot policies from a few dozen demonstrations, for ROS 2.

`train` and `evaluate` are `vla-train` and `vla-eval rollout` as library calls; they are imported when they are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vla_policy.evaluation.success.checkpoint import evaluate_checkpoint as evaluate
    from vla_policy.jobs.train import train

    __version__: str

__all__ = ["__version__", "evaluate", "train"]


def __getattr__(name: str) -> Any:
    if name == "train":
        from vla_policy.jobs.train import train

        return train
    if name == "evaluate":
        from vla_policy.evaluation.success.checkpoint import evaluate_checkpoint

        return evaluate_checkpoint
    if name == "__version__":
        from importlib.metadata import version

        return version("vla_policy")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
