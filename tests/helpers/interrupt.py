"""Training that is interrupted after a step."""

import pytest

from vla_policy.training import Trainer


def interrupted_after(step: int, trainer: Trainer) -> None:
    """Train until this step is done and all that follows a step; then leave the run as an interrupt does."""
    after_step = trainer.after_step

    def interrupt(number: int) -> None:
        after_step(number)
        if number == step:
            raise KeyboardInterrupt

    trainer.after_step = interrupt  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
