"""vla-eval: measure a policy by rollouts, compare measurements, swap instructions, look at recorded episodes."""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf
from rich.console import Console

from vla_policy.cli.common import stdout, user_errors
from vla_policy.cli.eval.answers import answers
from vla_policy.cli.eval.plan import plan
from vla_policy.cli.eval.refusals import refusals
from vla_policy.cli.eval.surprise import surprise
from vla_policy.cli.eval.swap import swap
from vla_policy.cli.eval.world_model import world_model
from vla_policy.cli.help import checkpoint_arguments, config_parser
from vla_policy.cli.load import typed_config
from vla_policy.cli.progress import bar, rollout_bar
from vla_policy.interfaces import IMAGES, InputError, Policy
from vla_policy.models.loading import described, load_policy, machine

# torch and the simulation are imported where they are used: every worker process reads this module anew.
if TYPE_CHECKING:
    from vla_policy.evaluation.success.evaluate import EvalConfig
    from vla_policy.rollouts.watch import WatchFactory
    from vla_policy.rollouts.workers import EnvFactory, PolicyFactory

console = stdout()

OTHERS = """other commands, each with a --help of its own:
  vla-eval compare A B                        the difference between two results, paired start by start
  vla-eval swap CHECKPOINT ...                the same starts under different instructions
  vla-eval surprise POLICY WORLD_MODEL ...    false alarms of the surprise monitor, and what it detects
  vla-eval open_loop CHECKPOINT DATASET ...   the error on recorded episodes, for robots without a simulator
  vla-eval answers CHECKPOINT DATASET ...     how often its language head is right about what it sees
  vla-eval refusals CHECKPOINT ...            how many sentences it refuses that it can, and that it cannot read
  vla-eval world_model CHECKPOINT DATASET ... what a world model imagines, and what can be read from its latents
  vla-eval plan WORLD_MODEL DATASET ...       how often planning with a world model reaches a goal picture
"""


@user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """Run one of the commands or, without its word, rollouts."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    commands = {
        "compare": _compare,
        "swap": swap,
        "surprise": surprise,
        "open_loop": _open_loop,
        "answers": answers,
        "world_model": world_model,
        "plan": plan,
        "refusals": refusals,
    }
    if arguments and arguments[0] in commands:
        commands[arguments[0]](arguments[1:])
    else:
        _rollouts(arguments)


def _rollouts(arguments: Sequence[str]) -> None:
    description = "Play a checkpoint in simulation and report its success rate with an exact interval."
    parser = config_parser("vla-eval", description, "eval", OTHERS)
    checkpoint, overrides = checkpoint_arguments(parser, arguments)

    from vla_policy.evaluation.success.evaluate import EvalConfig
    from vla_policy.evaluation.success.report import summary_table
    from vla_policy.rollouts.workers import RolloutError

    config = typed_config(EvalConfig, "eval", overrides)
    if checkpoint is None and config.baseline is None:
        raise InputError("vla-eval: expected a CHECKPOINT or baseline=hold|expert, found neither (see --help)")
    out = Path(config.out)
    try:
        summaries = _summaries(checkpoint, config, out)
    except RolloutError as error:
        Console(stderr=True).print(f"error: {error}\nfinished episodes are in {out}", markup=False, highlight=False)
        raise SystemExit(1) from None
    OmegaConf.save(OmegaConf.structured(config), out / "config.yaml")
    title = f"{config.n_episodes} episodes in {config.env}, seeds {config.seeds[0]} to {config.seeds[-1]}"
    console.print(summary_table(summaries, title))
    console.print(f"summary.json, episodes.csv and pictures are in {out}", markup=False, highlight=False)


def _summaries(checkpoint: str | None, config: EvalConfig, out: Path) -> dict[str, dict[str, Any]]:
    """One summary a table column; the checkpoint's files lie in `out`, a baseline's below it when both are run."""
    from vla_policy.evaluation.surprise.watches import guard
    from vla_policy.rollouts.baselines import baseline_factory

    if config.monitor is not None and (checkpoint is None or config.baseline is not None):
        raise InputError("monitor: expected a CHECKPOINT alone, which it was calibrated for, found a baseline")
    if config.n_action_steps is not None and checkpoint is None:
        raise InputError(f"n_action_steps: expected null without a CHECKPOINT, found {config.n_action_steps}")
    baseline = None if config.baseline is None else baseline_factory(config.baseline, config.pusht)
    summaries = {}
    if checkpoint is not None:
        policy = load_policy(checkpoint, config.device, config.threads)
        if config.n_action_steps is not None:
            policy.play(config.n_action_steps)
        more = described(policy)
        name = Path(checkpoint).name
        watch = None
        if config.monitor is not None:
            watch = functools.partial(guard, config.monitor, checkpoint, policy.interface)
        if config.check_instruction and policy.unchecked:
            console.print(policy.unchecked, markup=False, highlight=False)
        elif config.check_instruction and policy.reads:
            more["unreadable"] = policy.unreadable
        summaries[name] = _evaluate(policy, config, out, checkpoint, watch=watch, timing=machine(policy), **more)
        if config.update_card:
            _update_card(checkpoint, summaries[name])
    if baseline is not None and config.baseline is not None:
        below = out if checkpoint is None else out / f"baseline_{config.baseline}"
        named = f"baseline {config.baseline}"
        summaries[named] = _evaluate(baseline(0), config, below, named, policy_factory=baseline)
    return summaries


def _evaluate(
    policy: Policy,
    config: EvalConfig,
    out: Path,
    checkpoint: str,
    policy_factory: PolicyFactory | None = None,
    watch: WatchFactory | None = None,
    **more: Any,
) -> dict[str, Any]:
    from sim import TASK
    from sim.instructions import LANGUAGE_TASK
    from vla_policy.evaluation.success.evaluate import evaluate

    watched = watch().cameras if watch is not None else ()  # and a calibration that does not fit is met here
    with rollout_bar(console, Path(checkpoint).name, config.n_episodes, then=", timing and filming") as hear:
        return evaluate(
            policy,
            env_factory(config, policy, watched),
            config,
            out,
            checkpoint=checkpoint,
            task=LANGUAGE_TASK if config.pusht.goals else TASK,
            policy_factory=policy_factory,
            on_episode=hear[0],
            on_steps=hear[1],
            watch_factory=watch,
            **more,
        )


def env_factory(config: EvalConfig, policy: Policy, watched: Sequence[str] = ()) -> EnvFactory:
    """Makes the environment with the cameras that the policy, or a watch, looks through; picklable."""
    from sim import make_env

    cameras = [key.removeprefix(IMAGES) for key in dict.fromkeys([*policy.interface.cameras, *watched])]
    factory = functools.partial(make_env, config.env, cameras, config.pusht, disturbance=config.event)
    env = factory()  # a mistake of the user's is better met here than in several workers
    try:
        policy.interface.require(env.interface, "the policy", f"env {config.env}")
    finally:
        env.close()
    return factory


def _update_card(checkpoint: str, summary: dict[str, Any]) -> None:
    from vla_policy.models.checkpoint import update_card

    keys = "env task paraphrases n_episodes n_success seed success_rate success_ci95 mean_max_reward mean_max_coverage"
    measured = {key: summary[key] for key in [*keys.split(), "mean_steps", "git_commit"] if key in summary}
    update_card(checkpoint, measured | {"chunk_ms": {k: summary["chunk_ms"][k] for k in ("p50", "p95")}})


def _compare(arguments: Sequence[str]) -> None:
    description = "Success of B minus success of A on the same starts, with its interval and an exact test."
    parser = config_parser("vla-eval compare", description)
    parser.add_argument("A", type=Path, help="folder of an evaluation")
    parser.add_argument("B", type=Path, help="folder of another one; comparison.json is written there")
    options = parser.parse_args(arguments)

    from vla_policy.evaluation.formats import write_json
    from vla_policy.evaluation.success.compare import compare, comparison_table

    found = compare(options.A, options.B)
    write_json(options.B / "comparison.json", found)
    console.print(comparison_table(found))


def _open_loop(arguments: Sequence[str]) -> None:
    description = "Error of predicted chunks on held-out episodes, against holding the last action."
    parser = config_parser("vla-eval open_loop", description, "open_loop")
    parser.add_argument("CHECKPOINT", help="folder or hub name")
    parser.add_argument("DATASET", type=Path, help="folder of a LeRobotDataset")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    options = parser.parse_args(arguments)

    from vla_policy.data import LeRobotDataset
    from vla_policy.evaluation.success.open_loop import (
        OpenLoopConfig,
        held_out_episodes,
        open_loop,
        open_loop_table,
        summarize_open_loop,
        write_open_loop,
    )

    config = typed_config(OpenLoopConfig, "open_loop", options.overrides)
    policy = load_policy(options.CHECKPOINT, config.device)
    dataset = LeRobotDataset(options.DATASET)
    episodes = held_out_episodes(config.episodes, policy.card, dataset)
    with bar(console) as progress:
        task = progress.add_task("episodes", total=len(episodes), state="")
        errors = open_loop(
            policy, dataset, episodes, config.policy_seed, config.batch_size, lambda _: progress.advance(task)
        )
    summary = summarize_open_loop(errors, policy, checkpoint=options.CHECKPOINT, dataset=str(options.DATASET))
    write_open_loop(Path(config.out), errors, summary)
    console.print(open_loop_table(summary))
    console.print(f"summary.json and episodes.csv are in {config.out}", markup=False, highlight=False)


if __name__ == "__main__":
    main()
