"""vla-train trajectory=..., and vla-eval of what it makes: what is played, what is learnt without actions, mistakes."""

import json
from pathlib import Path

import pytest
from helpers.commands import error_of
from helpers.small_world_model import make_walks

from vla_policy.cli.eval import main
from vla_policy.interfaces import STATE, InputError
from vla_policy.jobs.train import train
from vla_policy.world_model.trajectories.agents import load_agent
from vla_policy.world_model.trajectories.decision_diffuser import DecisionDiffuser

KINDS = ("diffuser", "decision_diffuser")
TINY = [f"trajectory.state_keys=[{STATE}]", "trajectory.future=6", "trajectory.n_action_steps=4"]
TINY += ["trajectory.transformer.width=16", "trajectory.transformer.depth=1", "trajectory.transformer.heads=2"]
TINY += ["trajectory.objective.inference_steps=3", "trainer.steps=20", "trainer.batch_size=32", "trainer.wandb=null"]
TINY += ["trainer.validate_every=20", "trainer.val_windows=32", "data.val_episodes=1"]
TINY += ["trainer.lr=0.01", "trainer.warmup_steps=1", "trainer.ema_max_decay=0"]  # else a state says nothing of actions
SHORT = ["n_episodes=2", "seed=50000", "num_workers=0", "videos=0", "scene.max_episode_steps=12", "latency_repeats=2"]
GUIDED = {
    "diffuser": ["planner=diffuser", "planner.objective=reach", "planner.goal=[0.4,0.1]", "planner.guidance=100"],
    "decision_diffuser": ["planner=decision_diffuser", "planner.target_return=0.9"],
}


@pytest.fixture(scope="module")
def agents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Agents that have hardly learnt anything, by kind."""
    folder = tmp_path_factory.mktemp("agents")
    make_walks(folder / "walks", episodes=6)
    for kind in KINDS:
        train([*TINY, f"data.root={folder / 'walks'}", f"trajectory={kind}", f"run_dir={folder / kind}"])
        assert "val/action_error" in (folder / kind / "metrics.csv").read_text()
    return {kind: str(folder / kind / "checkpoints" / "last") for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_an_agent_is_evaluated_like_a_policy_guided_or_not(kind: str, agents: dict[str, str], tmp_path: Path) -> None:
    played = []
    for name, words in (("alone", []), ("guided", GUIDED[kind])):
        main([agents[kind], *SHORT, *words, "n_action_steps=3", f"out={tmp_path / name}"])
        summary = json.loads((tmp_path / name / "summary.json").read_text())
        assert summary["n_action_steps"] == 3
        assert summary["objective"]["passes"] == 3
        assert summary["chunk_ms"]["p50"] > 0
        played.append((tmp_path / name / "episodes.csv").read_text())
    assert summary["planner"]["name"] == kind
    assert played[0] != played[1]


def test_states_are_learnt_without_actions(tmp_path: Path) -> None:
    make_walks(tmp_path / "video", episodes=6)
    make_walks(tmp_path / "acted", episodes=2)
    both = [*TINY, f"data.root=[{tmp_path / 'video'},{tmp_path / 'acted'}]", "data.action_loss=[false,true]"]
    train([*both, "trajectory=decision_diffuser", f"run_dir={tmp_path / 'run'}"])
    agent = load_agent(tmp_path / "run" / "checkpoints" / "last")
    assert isinstance(agent, DecisionDiffuser)
    assert agent.card["data"]["imitated"] == "acted"
    with pytest.raises(InputError, match=r"data\.action_loss: expected none for a diffuser, found \[False, True\]"):
        train([*both, "trajectory=diffuser", f"run_dir={tmp_path / 'other'}"])


def test_mistakes_are_one_line(agents: dict[str, str], tmp_path: Path) -> None:
    diffuser, decision = agents["diffuser"], agents["decision_diffuser"]
    for words, message in (
        ([diffuser, *GUIDED["decision_diffuser"]], "planner: expected none or diffuser for such an agent, found"),
        ([diffuser, "planner=diffuser"], "expected 'observation.environment_state' for progress, found futures of"),
        ([diffuser, "planner=diffuser", "planner.objective=gentle"], "which needs their gradient, found Gentle"),
        ([diffuser, "planner=diffuser", "planner.guidance=null"], "planner.guidance: expected a number from 0 to"),
        (
            [decision, "planner=decision_diffuser", "planner.target_return=2"],
            "planner.target_return: expected a number",
        ),
        ([decision, "planner=decision_diffuser", "planner.objective=random"], "planner.objective: expected none with"),
        ([decision, "planner=dmpc", "planner.dynamics=x"], "planner: expected none or decision_diffuser for such an"),
        ([decision, "chunking=rtc"], "chunking: expected another one than rtc for an agent that plans trajectories"),
        ([decision, "update_card=true"], "update_card: expected none for an agent that plans trajectories, found True"),
    ):
        assert message in error_of(main, *words, f"out={tmp_path / 'out'}")
    assert not (tmp_path / "out").exists()
