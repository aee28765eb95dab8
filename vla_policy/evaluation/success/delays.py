"""What inference time costs: rollouts under injected delays, for each way to bridge them, on the same starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf
from rich.table import Table

from vla_policy.conf.policy_config import PolicyConfig
from vla_policy.evaluation.formats import percent
from vla_policy.evaluation.options import RolloutOptions, SceneOptions
from vla_policy.evaluation.success.checkpoint import require_here, summaries
from vla_policy.evaluation.success.compare import compare
from vla_policy.evaluation.success.evaluate import EvalConfig
from vla_policy.evaluation.success.report import read_summary
from vla_policy.interfaces import InputError
from vla_policy.models.checkpoint import POLICY, parse_config, read_checkpoint
from vla_policy.models.continuation import require_continuing
from vla_policy.models.loading import load_policy
from vla_policy.planning.options import PlannerConfig
from vla_policy.planning.planners import planned
from vla_policy.rollouts.progress import Progress
from vla_policy.utils.files import write_json
from vla_policy.utils.provenance import git_commit

TRAINED, FORESIGHT = "trained rtc", "foresight"
MEASURES = (
    *("n_episodes", "n_success", "success_rate", "success_ci95", "mean_max_reward", "mean_max_reward_ci95"),
    *("mean_seam_jump", "mean_seam_jump_ci95", "mean_jerk", "mean_jerk_ci95", "held_steps"),
)
ELSEWHERE = ("out", "device", "threads")  # options that do not decide what an episode is


@dataclass
class DelaysConfig(RolloutOptions, SceneOptions):
    """Rollouts under injected delays."""

    env: str = "pybullet"  # pybullet (the arm) | gym_pusht
    n_episodes: int = 50  # of each delay and each way to bridge it, on the same starts
    n_action_steps: int | None = None
    """control periods of a chunk that are executed before the next one; null: as in the checkpoint"""
    delays: list[int] = field(default_factory=lambda: [0, 1, 2, 3, 4, 5, 6, 7, 8])  # in control periods
    chunkings: list[str] = field(default_factory=lambda: ["wait", "async", "ensemble", "rtc"])
    """see chunking in vla-eval rollout; without a delay all are the same but for ensemble"""
    trained: str | None = None  # another checkpoint, with policy.prefix_steps, whose rtc is compared with the rest
    planner: PlannerConfig = field(default_factory=PlannerConfig)  # with planner=foresight its rtc is compared, too
    out: str = "outputs/delays/${now:%Y-%m-%d_%H-%M-%S}"  # folder of the results; what it has already is not run again

    def __post_init__(self) -> None:
        for name, values in (("delays", self.delays), ("chunkings", self.chunkings)):
            if not values or len(set(values)) < len(values):
                raise InputError(f"{name}: expected different ones, at least one, found {values}")
        if self.planner.name not in ("none", FORESIGHT):
            raise InputError(f"planner: expected none or foresight, found {self.planner.name!r}")
        for chunking in self.chunkings:
            for delay in (min(self.delays), max(self.delays)):
                self.cell(delay, chunking, Path(self.out))  # report a mistake before anything is loaded

    def cell(self, delay: int, chunking: str, out: Path, foresight: bool = False) -> EvalConfig:
        """The evaluation of one delay and one way to bridge it."""
        own = ("delays", "chunkings", "trained", "planner")
        shared = {key: value for key, value in asdict(self).items() if key not in own}
        cell = EvalConfig(**{**shared, "out": str(out)}, delay=delay, chunking=chunking, videos=0, latency_repeats=1)
        return replace(cell, planner=self.planner) if foresight else cell


def delay_study(checkpoint: str, config: DelaysConfig, progress: Progress) -> dict[str, Any]:
    """Evaluate every cell, each in a folder of its own below `config.out`, and write delays.json; its content.

    Each row has the paired difference in success to the same method without a delay, if that was run.
    """
    methods = {chunking: (checkpoint, chunking) for chunking in config.chunkings}
    _check(checkpoint, config.chunkings, max(config.delays))
    if config.trained is not None:
        _check_trained(config.trained, max(config.delays))
        methods[TRAINED] = (config.trained, "rtc")
    if config.planner.name == FORESIGHT:
        _check(checkpoint, ["rtc"], max(config.delays))
        policy = load_policy(checkpoint, config.device, config.threads)
        require_here(policy, config.planner, config.num_workers)  # report a mistake before anything runs
        planned(policy, config.planner)
        methods[FORESIGHT] = (checkpoint, "rtc")
    rows = []
    for method, (source, chunking) in methods.items():
        none: Path | None = None
        for delay in sorted(config.delays):
            folder, cell = _cell(config, method, chunking, delay)
            summary = _evaluated(source, cell, folder, progress)
            none = folder if delay == 0 else none
            lost = None if none is None or none == folder else _difference(compare(none, folder))
            measured = {key: summary[key] for key in MEASURES}
            rows.append({"method": method, "delay": delay, "folder": str(folder), **measured, "minus_no_delay": lost})
    about = {
        "checkpoint": checkpoint,
        "trained": config.trained,
        "planner": asdict(config.planner),
        "seed": config.seed,
    }
    found = {**about, "rows": rows}
    write_json(Path(config.out) / "delays.json", {**found, "git_commit": git_commit()})
    return found


def _cell(config: DelaysConfig, method: str, chunking: str, delay: int) -> tuple[Path, EvalConfig]:
    """A cell's folder and options. Without a delay there is nothing to bridge, and one cell stands for several."""
    if delay == 0 and chunking != "ensemble":
        chunking = "async"
    foresees = method == FORESIGHT and delay > 0
    name = "trained" if method == TRAINED else FORESIGHT if foresees else chunking
    folder = Path(config.out) / f"{name}_{delay}"
    return folder, config.cell(delay, chunking, folder, foresees)


def _evaluated(checkpoint: str, cell: EvalConfig, folder: Path, progress: Progress) -> dict[str, Any]:
    """The summary of a cell, which is run unless its folder has it."""
    options = folder / "config.yaml"  # written last
    if not options.exists():
        (summary,) = summaries(checkpoint, cell, partial(_named, progress, folder.name)).values()
        return summary
    summary = read_summary(folder)
    before = {**_values(OmegaConf.load(options)), "checkpoint": summary["checkpoint"]}
    for key, value in {**_values(OmegaConf.structured(cell)), "checkpoint": checkpoint}.items():
        if key not in ELSEWHERE and before.get(key) != value:
            raise InputError(f"{folder}: expected {key} {before.get(key)!r} to continue with, found {value!r}")
    return summary


def _values(config: Any) -> dict[str, Any]:
    return cast(dict[str, Any], OmegaConf.to_container(config))


def _named(progress: Progress, name: str, _checkpoint: str, n_episodes: int) -> Any:
    """The progress of a cell, under its own name."""
    return progress(name, n_episodes)


def _check(checkpoint: str, chunkings: Sequence[str], delay: int) -> PolicyConfig:
    """The policy's configuration; `InputError` unless it can be played with the longest delay in each of these ways."""
    policy = parse_config(PolicyConfig.from_dict, read_checkpoint(checkpoint, POLICY))
    rows = policy.rows - policy.past_rows
    if delay >= rows and set(chunkings) != {"wait"}:
        raise InputError(f"delays: expected less than a chunk, {rows} control periods, found {delay}")
    if "rtc" in chunkings:
        require_continuing(policy, delay)
    return policy


def _check_trained(checkpoint: str, delay: int) -> None:
    """`InputError` unless this policy was trained to continue what is executed during a delay."""
    if not _check(checkpoint, ["rtc"], delay).prefix_steps:
        raise InputError(f"trained: expected a checkpoint with policy.prefix_steps above 0, found none in {checkpoint}")


def _difference(found: dict[str, Any]) -> dict[str, Any]:
    return {key: found[key] for key in ("difference", "ci95", "p_value")}


def delay_tables(found: dict[str, Any]) -> list[Table]:
    """A table for each measure: a row for each way to bridge a delay, a column for each delay."""
    n = found["rows"][0]["n_episodes"]
    titles: dict[str, Callable[[dict[str, Any]], str]] = {
        f"success, % of n = {n} a cell": lambda row: percent(row["success_rate"]),
        "mean max reward": lambda row: f"{row['mean_max_reward']:.3f}",
        "jump of the command between chunks, mm": lambda row: _scaled(row["mean_seam_jump"], 1e3, 2),
        "jerk of the commands, m / s^3": lambda row: _scaled(row["mean_jerk"], 1.0, 1),
    }
    return [_table(found["rows"], title, show) for title, show in titles.items()]


def _table(rows: list[dict[str, Any]], title: str, show: Callable[[dict[str, Any]], str]) -> Table:
    shown = {(row["method"], row["delay"]): show(row) for row in rows}
    delays = sorted({row["delay"] for row in rows})
    table = Table("delay in control periods", title=title, title_justify="left")
    for delay in delays:
        table.add_column(str(delay), justify="right")
    for method in dict.fromkeys(row["method"] for row in rows):
        table.add_row(method, *(shown[method, delay] for delay in delays))
    return table


def _scaled(value: float | None, scale: float, digits: int) -> str:
    return "-" if value is None else f"{scale * value:.{digits}f}"
