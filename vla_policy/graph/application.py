"""The simulation's graph as an application: nodes, parameters and process environment."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import asdict, dataclass, field
from typing import Any

from vla_policy.interfaces import InputError
from vla_policy.planning.options import PlannerConfig, aimed, require_used
from vla_policy.robot.contract import find_config
from vla_policy.serving.options import ServerOptions, require_together


@dataclass
class GraphConfig(ServerOptions):
    """Episodes through the ROS 2 graph in simulation."""

    n_episodes: int = 1  # played one after the other
    seed: int = 100000  # of the first start; the others count up from it
    policy_seed: int = 0  # of the policy's noise
    contract: str = "pusht_sim"  # robot contract: a name in config/ or a file
    scene: str = "pusht"  # pusht | pusht_language, with several goals
    instruction: str = ""  # of all episodes; empty: with several goals each has its own, else the contract's
    check_instruction: bool = True  # the policy requests a stop for an instruction that it does not understand
    chunking: str = "async"
    """what the arm does while a chunk is computed: async (the previous chunk) | wait (it stands still) | ensemble (as
    async, with the mean of all chunks so far) | rtc (as async, with chunks that continue the previous one)
    """
    monitor: str | None = None  # folder of a calibrated surprise monitor; null: none runs
    planner: PlannerConfig = field(default_factory=PlannerConfig)  # see planner=dmpc, planner=foresight
    max_steps: int = 300  # control periods an episode
    rearm: int = 10  # times an episode that the gate is armed again after it stopped the arm; stops are reported
    device: str = "cpu"  # cpu | cuda
    threads: int = 1  # torch's threads in the policy's process
    draft: str = ""  # checkpoint of a smaller policy that drafts its action tokens in another process; empty: none
    compile: bool = False  # the policy when it starts, for faster chunks; needs a C++ compiler
    domain_id: int | None = 77  # ROS_DOMAIN_ID, one without a real arm; null: that of the environment
    web: bool = False
    """true: no episodes; all is shown and operated in the browser, recorder included, until Ctrl-C"""
    host: str = "127.0.0.1"  # of the page; another than this computer's own is encrypted and asks for the token
    port: int = 8080  # of the page
    out: str = "outputs/sim/${now:%Y-%m-%d_%H-%M-%S}"  # output folder

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.planner.name not in ("none", "dmpc", "foresight"):
            found = self.planner.name
            raise InputError(
                f"planner: expected none, dmpc or foresight in the graph, found {found!r}, see vla-eval rollout"
            )
        require_used(self.planner)
        require_together(self.server, self.draft, self.planner.name, self.chunking, self.monitor, self.compile)


def require_ros() -> None:
    """`InputError` where rclpy is not installed."""
    if importlib.util.find_spec("rclpy") is None:
        raise InputError("rclpy: expected a sourced ROS 2 Jazzy or its wheels (pip install -e '.[ros]'), found neither")


def nodes(checkpoint: str, config: GraphConfig) -> dict[str, dict[str, Any]]:
    """The parameters of every node, by name; `InputError` for a planner that would not know which goal is meant."""
    planner = config.planner if config.scene == "pusht" else aimed(config.planner, [config.scene], [])
    watched = config.monitor is not None
    heartbeats = ["policy/stop", "surprise_monitor/stop"] if watched else ["policy/stop"]
    shared = {"contract": str(find_config(config.contract))}
    model = {**shared, "checkpoint": checkpoint, "threads": config.threads}
    found: dict[str, dict[str, Any]] = {
        "command_gate": {**shared, "dry_run": False, "heartbeats": heartbeats},
        "pusht_sim": {**shared, "scene": config.scene, "task": config.instruction, "seed": config.seed},
        "policy": {
            **model,
            "device": config.device,
            "draft": config.draft,
            "compile": config.compile,
            "task": config.instruction,
            "check_instruction": config.check_instruction,
            "chunking": config.chunking,
            "seed": config.policy_seed,
            "server": config.server,
            "jpeg": config.jpeg,
            **planner_parameters(planner),
        },
    }
    if watched:
        found["surprise_monitor"] = {**model, "calibration": config.monitor}
    if config.web:
        found["recorder"] = {**shared, "root": f"{config.out}/recordings", "task": config.instruction}
        found["web"] = {**shared, "control": True, "host": config.host, "port": config.port}
    return found


def planner_parameters(config: PlannerConfig) -> dict[str, Any]:
    """Those of the policy's node; what is not chosen is left to its defaults."""
    chosen = {key: value for key, value in asdict(config).items() if value is not None}
    return {f"planner.{key}": [float(n) for n in v] if isinstance(v, list) else v for key, v in chosen.items()}


def graph_environment(domain_id: int | None) -> dict[str, str]:
    """Environment of the nodes and this process: `domain_id`, the Fast DDS profile of `config/` and discovery on this
    computer alone, unless the user has set others. An exported ROS_DOMAIN_ID may be a real arm's: it is not used.
    """
    chosen = {
        "FASTRTPS_DEFAULT_PROFILES_FILE": str(find_config("fastdds", ".xml")),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
    }
    domain = {} if domain_id is None else {"ROS_DOMAIN_ID": str(domain_id)}
    return domain | {key: value for key, value in chosen.items() if key not in os.environ}
