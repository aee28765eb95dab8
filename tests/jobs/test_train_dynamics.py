"""vla-train dynamics=dmpc: refitted alone where the world has changed."""

from pathlib import Path

import numpy as np
import pytest
from helpers.small_world_model import make_walks

from vla_policy.interfaces import STATE, InputError
from vla_policy.jobs.train import train
from vla_policy.training import make_windows, validate_dynamics
from vla_policy.world_model.dynamics import Dynamics


def test_dynamics_are_refitted_to_a_changed_world(tmp_path: Path) -> None:
    """From trained weights and their normalisation a few steps on the changed world's play suffice."""
    make_walks(tmp_path / "usual", episodes=12)
    changed = make_walks(tmp_path / "changed", episodes=8, offset=0.3)
    small = ["dynamics=dmpc", f"dynamics.state_keys=[{STATE}]", "dynamics.future=6", "dynamics.transformer.width=32"]
    small += [
        "dynamics.transformer.depth=1",
        "trainer.validate_every=0",
        "trainer.batch_size=32",
        "data.val_episodes=1",
        "trainer.wandb=null",
        "trainer.lr=3e-3",
        "trainer.warmup_steps=10",
        "trainer.ema_max_decay=0",
    ]
    train([*small, f"data.root={tmp_path / 'usual'}", "trainer.steps=150", f"run_dir={tmp_path / 'first'}"])
    first = tmp_path / "first" / "checkpoints" / "last"
    refit = [*small, f"data.root={tmp_path / 'changed'}", f"init_from={first}", "trainer.steps=60"]
    train([*refit, f"run_dir={tmp_path / 'refit'}"])
    before, after = (
        Dynamics.from_pretrained(folder) for folder in (first, tmp_path / "refit" / "checkpoints" / "last")
    )
    assert after.normalizer.to_dict() == before.normalizer.to_dict()
    assert after.card["training"]["initial_weights"] != "random"
    windows = make_windows(changed, after.config, list(np.arange(8)))
    errors = [validate_dynamics(model, windows, 64)[f"val/{STATE}_error"] for model in (before, after)]
    assert errors[1] < 0.7 * errors[0]
    with pytest.raises(InputError, match="init_from"):
        train([*refit, "dynamics.future=3", f"run_dir={tmp_path / 'other'}"])
