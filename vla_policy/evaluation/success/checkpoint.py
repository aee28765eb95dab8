"""The evaluation of a checkpoint, of a baseline, or of both on the same starts, from configuration to summaries."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from omegaconf import OmegaConf

from sim import TASK, make_disturbed_env
from sim.interface import pusht_interface
from sim.language.instructions import LANGUAGE_TASK
from vla_policy.conf.policy_config import PolicyConfig
from vla_policy.evaluation.success.evaluate import EvalConfig, evaluate
from vla_policy.interfaces import IMAGES, InputError, Policy
from vla_policy.models.checkpoint import POLICY, is_a, parse_config, read_checkpoint, update_card
from vla_policy.models.continuation import require_continuing
from vla_policy.models.loading import about, chosen_device, load_policy
from vla_policy.planning.options import PlannerConfig
from vla_policy.planning.planners import planned, steered
from vla_policy.rollouts.baselines import baseline_factory
from vla_policy.rollouts.progress import Progress, no_progress
from vla_policy.rollouts.watch import Watcher
from vla_policy.rollouts.workers import EnvFactory, PolicyFactory
from vla_policy.serving.checkpoint import remote_policy
from vla_policy.utils.configuration import typed_config
from vla_policy.world_model.trajectories.model import KIND as TRAJECTORY

if TYPE_CHECKING:
    from vla_policy.models import DiffusionPolicy
    from vla_policy.serving.client import RemotePolicy
    from vla_policy.world_model.trajectories.model import TrajectoryModel

log = logging.getLogger(__name__)


def evaluate_checkpoint(checkpoint: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Evaluate a checkpoint (a folder or hub name) in simulation; the summary, which is also in summary.json.

    `overrides` are those of `vla-eval rollout`, for instance
    `["n_episodes=50", "out=outputs/eval/mine"]`. Raises `InputError` for a mistake and `RolloutError` if a worker dies.
    """
    config = typed_config(EvalConfig, "eval", overrides)
    return summaries(str(checkpoint), config)[Path(checkpoint).name]


def summaries(
    checkpoint: str | None, config: EvalConfig, progress: Progress = no_progress
) -> dict[str, dict[str, Any]]:
    """Evaluate the checkpoint, `config.baseline` or both; the summaries by name.

    The checkpoint's files are in `config.out`, a baseline's in a folder below it if both are evaluated.
    """
    from vla_policy.evaluation.surprise.watchers import halting_monitors

    if checkpoint is None and config.baseline is None:
        raise InputError("vla-eval: expected a CHECKPOINT or baseline=hold|expert, found neither (see --help)")
    if config.monitor is not None and (checkpoint is None or config.baseline is not None):
        raise InputError("monitor: expected only the CHECKPOINT that it was calibrated for, found a baseline")
    if config.planner.name != "none" and checkpoint is None:
        raise InputError("planner: expected a CHECKPOINT whose proposals to rank, found none")
    if config.chunking == "rtc" and config.baseline is not None:
        raise InputError(f"chunking: expected another one than rtc for baseline={config.baseline}, found rtc")
    if config.draft is not None and checkpoint is None:
        raise InputError("draft: expected a CHECKPOINT to draft for, found none")
    for name in ("n_action_steps", "temperature"):
        if getattr(config, name) is not None and checkpoint is None:
            raise InputError(f"{name}: expected null without a CHECKPOINT, found {getattr(config, name)}")
    if checkpoint is None and config.server:
        raise InputError(f"server: expected the CHECKPOINT that it serves, found none for {config.server}")
    baseline = None if config.baseline is None else baseline_factory(config.baseline, config.pusht)
    out, found = Path(config.out), {}
    if checkpoint is not None:
        with _opened(checkpoint, config) as (policy, more):
            if config.monitor is not None:
                more["watcher"] = halting_monitors(config.monitor, checkpoint, policy.interface)
            if config.planner.name != "none":
                more["planner"] = asdict(config.planner)
            summary = _evaluate(policy, config, out, checkpoint, progress, **more)
        found[Path(checkpoint).name] = summary
        if config.update_card:
            _update_card(checkpoint, summary)
    if baseline is not None and config.baseline is not None:
        below = out if checkpoint is None else out / f"baseline_{config.baseline}"
        name = f"baseline {config.baseline}"
        found[name] = _evaluate(baseline(0), config, below, name, progress, policy_factory=baseline)
    OmegaConf.save(OmegaConf.structured(config), out / "config.yaml")
    return found


@contextmanager
def _opened(checkpoint: str, config: EvalConfig) -> Iterator[tuple[Policy, dict[str, Any]]]:
    """The player of a checkpoint, and what the summary says of it."""
    if not config.server and is_a(checkpoint, TRAJECTORY):
        agent = _agent(checkpoint, config)
        yield steered(agent, config.planner), about(agent)
        return
    with _policy(checkpoint, config) as (policy, more):
        if config.check_instruction and policy.unchecked:
            log.warning(policy.unchecked)
        elif config.check_instruction and policy.reads:
            more["unreadable"] = policy.unreadable
        if config.planner.name == "none":
            yield policy, more
        else:  # a server is refused with it
            require_here(policy, config.planner, config.num_workers)
            simulated = pusht_interface({}, goals=bool(config.pusht.goals))
            yield planned(cast("DiffusionPolicy", policy), config.planner, simulated), more


def require_here(policy: Policy, planner: PlannerConfig, num_workers: int) -> None:
    """`InputError` if the policy's encoder would have to look at what other processes see."""
    if planner.name == "foresight" and policy.interface.cameras and num_workers:
        raise InputError(
            "num_workers: expected 0 with planner=foresight for a policy that sees pictures, which it looks at again "
            f"when its chunk comes, found {num_workers}"
        )


def _agent(checkpoint: str, config: EvalConfig) -> TrajectoryModel:
    """Diffuser or Decision Diffuser; `InputError` for options that they do not have."""
    from vla_policy.world_model.trajectories.agents import load_agent

    for name in ("draft", "monitor", "update_card"):
        if value := getattr(config, name):
            raise InputError(f"{name}: expected none for an agent that plans trajectories, found {value}")
    if config.chunking == "rtc":
        raise InputError("chunking: expected another one than rtc for an agent that plans trajectories, found rtc")
    agent = load_agent(checkpoint).to(chosen_device(config.device, config.threads))
    if config.n_action_steps is not None:
        agent.set_n_action_steps(config.n_action_steps)
    if config.temperature is not None:
        agent.set_temperature(config.temperature)
    return agent


@contextmanager
def _policy(checkpoint: str, config: EvalConfig) -> Iterator[tuple[DiffusionPolicy | RemotePolicy, dict[str, Any]]]:
    """The checkpoint's policy, here or at its server, and what the summary says of it."""
    if config.server:
        if config.chunking == "rtc":
            require_continuing(parse_config(PolicyConfig.from_dict, read_checkpoint(checkpoint, POLICY)), config.delay)
        with closing(remote_policy(config.server, config.jpeg, checkpoint)) as remote:
            yield remote, {**remote.served.about, "server": config.server, "jpeg": config.jpeg}
        return
    policy = load_policy(checkpoint, config.device, config.threads, config.draft)
    if config.n_action_steps is not None:
        policy.set_n_action_steps(config.n_action_steps)
    if config.temperature is not None:
        policy.set_temperature(config.temperature)
    if config.chunking == "rtc":
        require_continuing(policy.config, config.delay)
    yield policy, about(policy)


def env_factory(config: EvalConfig, policy: Policy, watched: Sequence[str] = ()) -> EnvFactory:
    """A picklable factory of the environment with the cameras that the policy and a watcher need."""
    cameras = [key.removeprefix(IMAGES) for key in dict.fromkeys([*policy.interface.cameras, *watched])]
    factory = functools.partial(make_disturbed_env, config.env, cameras, config.pusht, config.event)
    env = factory()  # report a mistake here rather than in several workers
    try:
        policy.interface.require(env.interface, "the policy", f"env {config.env}")
    finally:
        env.close()
    return factory


def _evaluate(
    policy: Policy,
    config: EvalConfig,
    out: Path,
    checkpoint: str,
    progress: Progress,
    policy_factory: PolicyFactory | None = None,
    watcher: Watcher | None = None,
    **more: Any,
) -> dict[str, Any]:
    watched = watcher.cameras if watcher is not None else ()
    with progress(Path(checkpoint).name, config.n_episodes) as callbacks:
        return evaluate(
            policy,
            env_factory(config, policy, watched),
            config,
            out,
            checkpoint=checkpoint,
            task=LANGUAGE_TASK if config.pusht.goals else TASK,
            policy_factory=policy_factory,
            callbacks=callbacks,
            watcher=watcher,
            **more,
        )


def _update_card(checkpoint: str, summary: dict[str, Any]) -> None:
    keys = "env task paraphrases n_episodes n_success seed success_rate success_ci95 mean_max_reward mean_max_coverage"
    measured = {key: summary[key] for key in [*keys.split(), "mean_steps", "git_commit"] if key in summary}
    update_card(checkpoint, measured | {"chunk_ms": {k: summary["chunk_ms"][k] for k in ("p50", "p95")}})
