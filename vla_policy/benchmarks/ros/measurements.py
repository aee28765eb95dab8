"""Measurements of the graph over DDS between processes: latency, jitter, and time to stop."""

from __future__ import annotations

import functools
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.progress import Progress

from vla_policy.graph import application
from vla_policy.interfaces import IMAGES, InputError
from vla_policy.models.loading import load_policy
from vla_policy.robot.contract import load_contract

if TYPE_CHECKING:
    from vla_policy.benchmarks.ros.measured import MeasuredEpisode
    from vla_policy.graph.running import Graph

TELEPORT = "block_teleport"
HOLD_WITHIN = 0.2  # seconds from a fault
ALARM_WITHIN = 0.1  # seconds from an alarm
SERVED_WITHIN = 1.0  # seconds from a fault of the server: three chunk intervals of the shipped policies, and the stop
JITTER = 10.0  # milliseconds, p99
CAMERA_SECONDS = 20.0  # that two cameras are recorded
NO_TARGET = ("robot state silent",)  # the simulation's contract has a long timeouts.state

Found = tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]  # times and counts by name


@dataclass
class RosConfig:
    """The ROS 2 graph."""

    only: list[str] = field(default_factory=list)
    """gate | storm | faults | server | teleport | success | recorder | cameras | soak; empty: all"""
    repeats: int = 20  # of each fault, and kills of the recorder
    n_episodes: int = 100  # of `success`, in real time: up to 30 s each
    soak_minutes: float = 20.0  # of `soak`
    seed: int = 100000  # of the first start; the others count up from it. Debug on others, below 100000
    monitor: str | None = None
    """folder of a calibrated surprise monitor, which `teleport` and killing it need; null: none runs"""
    max_steps: int = 300  # control periods an episode
    rearm: int = 10  # times an episode that the gate is armed again after it stopped the arm
    domain_id: int | None = 77  # ROS_DOMAIN_ID, one without a real arm; null: that of the environment
    out: str = "outputs/bench/ros"  # output folder

    def __post_init__(self) -> None:
        for key in ("repeats", "n_episodes", "max_steps"):
            if getattr(self, key) < 1:
                raise InputError(f"{key}: expected at least 1, found {getattr(self, key)}")
        unknown = set(self.only) - set(MEASUREMENTS)
        if unknown or not self.soak_minutes > 0:
            raise InputError(
                f"only, soak_minutes: expected some of {list(MEASUREMENTS)} and more than 0, "
                f"found {sorted(unknown)} and {self.soak_minutes}"
            )
        if "teleport" in self.only and self.monitor is None:
            raise InputError("monitor: expected a calibration for the measurement 'teleport', found none")

    @property
    def chosen(self) -> list[str]:
        """The measurements to make."""
        return self.only or [name for name in MEASUREMENTS if name != "teleport" or self.monitor is not None]


def load_results(path: Path, checkpoint: str, seed: int) -> dict[str, Any]:
    """The results file of an earlier call, or a new one without measurements."""
    from vla_policy.utils.files import read_json, write_json

    made_for = {"checkpoint": checkpoint, "seed": seed}
    if not path.is_file():
        write_json(path, {**made_for, "measurements": {}, "times": {}, "counts": {}})
    found: dict[str, Any] = read_json(path)
    if any(found.get(key) != value for key, value in made_for.items()):
        earlier = {key: found.get(key) for key in made_for}
        raise InputError(f"{path}: expected measurements of {made_for}, found {earlier}; choose another out=")
    return found


def measure(found: dict[str, Any], bench: Bench) -> None:
    """Run a measurement and add its results and conditions to the content of ros.json."""
    from vla_policy.utils.provenance import git_commit

    load, begin = os.getloadavg(), time.monotonic()
    times, counts = MEASUREMENTS[bench.name](bench)
    found["times"] |= times
    found["counts"] |= counts
    found["measurements"][bench.name] = {
        "config": asdict(bench.config),
        "cpus": len(os.sched_getaffinity(0)),
        "load_before": load,
        "load_after": os.getloadavg(),
        "seconds": time.monotonic() - begin,
        "git_commit": git_commit(),
    }


@dataclass(frozen=True)
class Bench:
    """Parameters of a measurement."""

    checkpoint: str
    config: RosConfig
    progress: Progress
    name: str

    @property
    def log(self) -> Path:
        return Path(self.config.out) / "log" / self.name

    @property
    def period(self) -> float:
        """Command period in seconds."""
        return float(1.0 / load_contract("pusht_sim").command.rate)

    def nodes(self, monitor: str | None, seed: int, disturbance: str = "") -> dict[str, dict[str, Any]]:
        """The graph's nodes, with the simulation's first seed and disturbance."""
        nodes = application.nodes(self.checkpoint, application.GraphConfig(seed=seed, monitor=monitor))
        nodes["pusht_sim"]["disturbance"] = disturbance
        return nodes

    def bar(self, total: float, more: str = "") -> Callable[..., None]:
        """A bar of its own; call the result at every step."""
        return functools.partial(self.progress.advance, self.progress.add_task(self.name + more, total=total, state=""))

    def stored_episodes(self) -> list[MeasuredEpisode]:
        """The episodes of an earlier call; `InputError` if another policy or configuration made them."""
        from vla_policy.benchmarks.ros.measured import MeasuredEpisode
        from vla_policy.utils.files import read_json

        if not self._file.is_file():
            return []
        stored = read_json(self._file)
        made_with = stored.get("made_with") if isinstance(stored, dict) else None
        if made_with != self.made_with:
            raise InputError(
                f"{self._file}: expected episodes made with {self.made_with}, found {made_with}; choose another out="
            )
        return [MeasuredEpisode(**episode) for episode in stored["episodes"]]

    @functools.cached_property
    def made_with(self) -> dict[str, Any]:
        """Policy and settings of episodes; episodes made with others are not counted together."""
        from vla_policy.models.checkpoint import POLICY, checkpoint_folder, model_digest

        digest = model_digest(checkpoint_folder(self.checkpoint), POLICY)
        chosen = {key: getattr(self.config, key) for key in ("seed", "max_steps", "rearm")}
        return {"policy": digest, **chosen}

    def run_episodes(
        self,
        graph: Graph,
        episodes: list[MeasuredEpisode],
        more: Callable[[], bool],
        on_episode: Callable[[MeasuredEpisode], None],
    ) -> None:
        """Run episodes while `more`, adding each to `episodes` and to a file."""
        from sim.geometry import SUCCESS_COVERAGE
        from vla_policy.benchmarks.ros.episodes import run_episode
        from vla_policy.benchmarks.ros.harness import Witness
        from vla_policy.utils.files import write_json

        with closing(Witness()) as witness:
            while more():
                episode = run_episode(graph, witness, self.config.max_steps, SUCCESS_COVERAGE, self.config.rearm)
                episodes.append(episode)
                write_json(self._file, {"made_with": self.made_with, "episodes": [asdict(each) for each in episodes]})
                on_episode(episode)

    @property
    def _file(self) -> Path:
        return Path(self.config.out) / f"{self.name}.json"


def _gate(bench: Bench) -> Found:
    from vla_policy.benchmarks.ros.fault_timing import FAULTS, fault_timing
    from vla_policy.benchmarks.ros.report import holds

    repeats = bench.config.repeats
    measured = fault_timing(repeats, bench.log, bench.bar(repeats * len(FAULTS)))
    within = {"alarm": ALARM_WITHIN} | dict.fromkeys(NO_TARGET)
    return {
        f"{name} to hold": holds(found, within.get(name, HOLD_WITHIN), FAULTS[name].reasons)
        for name, found in measured.items()
    }, {}


def _storm(bench: Bench) -> Found:
    from vla_policy.benchmarks.ros.fault_timing import storms
    from vla_policy.benchmarks.ros.report import jitter, storm_counts

    found = storms(bench.config.repeats, bench.log, bench.bar(bench.config.repeats))
    intervals = 1e3 * np.concatenate([storm.intervals for storm in found])
    times = {"jitter of commands in storms": jitter(intervals, 1e3 * bench.period, JITTER)}
    return times, storm_counts(found, bench.period)


def _faults(bench: Bench) -> Found:
    from vla_policy.benchmarks.ros.graph_timing import faults, graph_timing
    from vla_policy.benchmarks.ros.report import holds
    from vla_policy.graph.running import running

    config, wanted = bench.config, faults(monitored=bench.config.monitor is not None)
    advance = bench.bar(config.repeats * len(wanted))
    with running(bench.log, bench.nodes(config.monitor, config.seed)) as graph:
        measured = graph_timing(graph, wanted, config.repeats, np.random.default_rng(config.seed), advance)
    return {f"{name} to hold": holds(found, HOLD_WITHIN, wanted[name].reasons) for name, found in measured.items()}, {}


def _server(bench: Bench) -> Found:
    from vla_policy.benchmarks.ros.report import holds
    from vla_policy.benchmarks.ros.server_timing import FAULTS, STOPS, line, server_timing
    from vla_policy.graph.running import running

    config = bench.config
    advance = bench.bar(config.repeats * len(FAULTS))
    command = [sys.executable, "-m", "vla_policy.cli.serve", bench.checkpoint, "device=cpu"]
    with line(command, bench.log / "server.log") as served:
        nodes = bench.nodes(None, config.seed)
        nodes["policy"]["server"] = served.relay.address
        with running(bench.log, nodes) as graph:
            generator = np.random.default_rng(config.seed)
            measured = server_timing(graph, served, config.repeats, generator, advance)
    return {f"{name} to hold": holds(found, SERVED_WITHIN, STOPS) for name, found in measured.items()}, {}


def _teleport(bench: Bench) -> Found:
    from vla_policy.benchmarks.ros.graph_timing import teleport_timing
    from vla_policy.benchmarks.ros.measured import MONITOR
    from vla_policy.benchmarks.ros.report import holds
    from vla_policy.graph.running import running

    config = bench.config
    two_steps = 2.0 / load_contract("pusht_sim").interface.fps
    with running(bench.log, bench.nodes(config.monitor, config.seed, TELEPORT)) as graph:
        found = teleport_timing(graph, config.repeats, bench.bar(config.repeats))
    return {"teleport, from its first picture to hold": holds(found, two_steps, [MONITOR])}, {}


def _success(bench: Bench) -> Found:
    """Episodes of an earlier call, in success.json, are not run again."""
    from vla_policy.benchmarks.ros.report import jitter, paired_success, percentile
    from vla_policy.graph.running import running

    config, episodes = bench.config, bench.stored_episodes()[: bench.config.n_episodes]
    advance = bench.bar(config.n_episodes)
    advance(len(episodes))
    if len(episodes) < config.n_episodes:
        with running(bench.log, bench.nodes(None, config.seed + len(episodes))) as graph:
            bench.run_episodes(graph, episodes, lambda: len(episodes) < config.n_episodes, lambda _: advance())
    control_period = 1e3 / load_contract("pusht_sim").interface.fps
    latency = _measured_by_node(episodes[-1], "command_gate", "observation_to_command_ms")
    delay = math.floor(latency["p50"] / control_period)
    intervals = np.concatenate([episode.intervals for episode in episodes])
    times = {
        "camera stamp to first command of its chunk": percentile(latency, "p95", control_period),
        "jitter of commands": jitter(intervals, 1e3 * bench.period, JITTER),
        "inference": {**_measured_by_node(episodes[-1], "policy", "inference_ms"), "target": "", "met": None},
    }
    paired = paired_success(episodes, _in_process(bench, [episode.seed for episode in episodes], delay), delay)
    return times, {"success, graph - in process": paired}


def _measured_by_node(episode: MeasuredEpisode, node: str, name: str) -> dict[str, float]:
    """Rolling percentiles of a node's own measurements, from its diagnostics."""
    return {key: float(episode.diagnostics[node][f"{name}.{key}"]) for key in ("n", "p50", "p95", "p99", "max")}


def _in_process(bench: Bench, seeds: list[int], delay: int) -> dict[int, bool]:
    """Success by seed in one process, where the simulation waits for the policy."""
    from sim import PushTConfig, make_env
    from vla_policy.rollouts.progress import ProgressCallbacks
    from vla_policy.rollouts.rollout import rollout

    policy = load_policy(bench.checkpoint, "cpu")
    cameras = [key.removeprefix(IMAGES) for key in policy.interface.cameras]
    advance = bench.bar(len(seeds), ", in process")
    results = rollout(
        policy,
        functools.partial(make_env, "pybullet", cameras, PushTConfig(max_episode_steps=bench.config.max_steps)),
        seeds,
        callbacks=ProgressCallbacks(on_episode=lambda _: advance()),
        delay=delay,
    )
    return {result.seed: result.success for result in results}


def _soak(bench: Bench) -> Found:
    from vla_policy.benchmarks.ros.report import deadlines, false_holds, jitter, memory_growth
    from vla_policy.graph.running import running

    config = bench.config
    episodes: list[MeasuredEpisode] = []
    advance = bench.bar(config.soak_minutes)
    with running(bench.log, bench.nodes(config.monitor, config.seed)) as graph:
        end = time.monotonic() + 60 * config.soak_minutes
        bench.run_episodes(
            graph, episodes, lambda: time.monotonic() < end, lambda episode: advance(episode.seconds / 60)
        )
    intervals = np.concatenate([episode.intervals for episode in episodes])
    counts = {
        "missed deadlines unaccounted for": deadlines(episodes, 1e3 * bench.period),
        "false holds": false_holds(episodes),
        **memory_growth(episodes),
    }
    return {"jitter of commands in the soak": jitter(intervals, 1e3 * bench.period, JITTER)}, counts


def _kills(bench: Bench) -> Found:
    from vla_policy.benchmarks.ros.recorder_bench import survive_kills
    from vla_policy.benchmarks.ros.report import kept_of_kills

    repeats, seed = bench.config.repeats, bench.config.seed
    with tempfile.TemporaryDirectory() as root:
        found = survive_kills(repeats, Path(root), bench.log, "pusht_sim", seed, bench.bar(repeats))
    return {}, {"recorder killed": kept_of_kills(found)}


def _cameras(bench: Bench) -> Found:
    from vla_policy.benchmarks.ros.recorder_bench import two_cameras
    from vla_policy.benchmarks.ros.report import kept_of_cameras

    with tempfile.TemporaryDirectory() as root:
        found = two_cameras(CAMERA_SECONDS, Path(root), bench.log)
    return {}, {"two cameras of 480 x 640 recorded": kept_of_cameras(found)}


MEASUREMENTS: dict[str, Callable[[Bench], Found]] = {
    "gate": _gate,
    "storm": _storm,
    "faults": _faults,
    "server": _server,
    "teleport": _teleport,
    "success": _success,
    "recorder": _kills,
    "cameras": _cameras,
    "soak": _soak,
}
