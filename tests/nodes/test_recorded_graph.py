"""A person's demonstration in the real graph: recorded, imported, trained on for a step, and evaluated."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
from helpers.commands import train
from helpers.ros import ROOT, own_domain
from helpers.small_runs import SHORT_RUN, SMALL_POLICY
from sensor_msgs.msg import Joy

from vla_policy.benchmarks.ros.recorder_bench import RecorderClient
from vla_policy.cli.dataset import main as vla_dataset
from vla_policy.cli.eval import main as vla_eval
from vla_policy.data import LeRobotDataset
from vla_policy.graph.operator import GraphError, Operator
from vla_policy.graph.processes import Processes
from vla_policy.interfaces import ACTION, STATE
from vla_policy.nodes import common

pytestmark = [pytest.mark.dds, pytest.mark.slow]
SEES = "policy.observation_keys=[observation.state,observation.images.top]"
SMALL = [SEES, *SMALL_POLICY, *SHORT_RUN, "trainer.steps=1", "data.val_episodes=1"]
DEADMAN = 4


class Thumb:
    """On a gamepad's stick, forwards and backwards, with the deadman's button held."""

    def __init__(self, operator: Operator) -> None:
        self._joy = operator.node.create_publisher(Joy, "joy", common.STATE_QOS)
        self._begin = time.monotonic()
        self._ticker = common.Ticker(0.04, self._push)

    def close(self) -> None:
        self._ticker.close()

    def _push(self) -> None:
        way = float(np.sin(2.0 * (time.monotonic() - self._begin)))
        self._joy.publish(Joy(axes=[way, 0.5 * way], buttons=[int(k == DEADMAN) for k in range(8)]))


def record(processes: Processes, root: Path, contract: Path, episodes: int) -> list[Path]:
    """The bags of some episodes through simulation, teleoperation, gate and recorder."""
    shared = {"contract": str(contract)}
    processes.start("command_gate", **shared, dry_run=False, heartbeats=[""])
    processes.start("pusht_sim", **shared, seed=11)
    processes.start("teleop", **shared, keyboard=False, deadman_button=DEADMAN)
    processes.start("recorder", **shared, root=str(root))

    def check() -> None:
        assert processes.dead() == {}, {name: processes.last_words(name) for name in processes.dead()}

    bags = []
    with Operator(check) as operator:
        thumb, client = Thumb(operator), RecorderClient(operator.node)
        operator.wait(lambda: len(operator.coverages) > 3, "the simulation")
        for _ in range(episodes):
            client.start()
            end = time.monotonic() + 3.0
            while time.monotonic() < end:
                if operator.gate_state != "running":  # a busy computer stops it more than once
                    try_to_enable(operator)
                time.sleep(0.05)
            ok, bag = client.end()
            assert ok, bag
            bags.append(Path(bag))
        thumb.close()
    return bags


def try_to_enable(operator: Operator) -> None:
    try:
        operator.enable(False)
        operator.enable(True)
    except GraphError:
        pass


def test_a_demonstration_becomes_a_policy_that_is_evaluated(tmp_path: Path) -> None:
    contract = tmp_path / "patient.yaml"  # a robot that may stand still as long as a busy computer does
    contract.write_text((ROOT / "config" / "pusht_sim.yaml").read_text().replace("max_age: 0.5", "max_age: 2.0"))
    dataset, run, out = tmp_path / "dataset", tmp_path / "run", tmp_path / "eval"
    with own_domain(), Processes(tmp_path / "log") as processes:
        bags = record(processes, tmp_path / "recordings", contract, 2)
    vla_dataset(["import-bag", str(bags[0].parent), str(dataset), f"contract={contract}"])
    demonstrations = LeRobotDataset(dataset)
    assert demonstrations.num_episodes == 2
    assert min(demonstrations.lengths) > 10
    columns = demonstrations.episode(0).columns
    assert np.ptp(columns[ACTION], axis=0).max() > 0.005  # a person led the arm
    assert np.ptp(columns[STATE], axis=0).max() > 0.005  # and it went along
    recordings = json.loads((dataset / "recordings.json").read_text())
    assert all(about["interventions"] and about["ended"] for about in recordings)

    trained = train(f"data.root={dataset}", f"run_dir={run}", *SMALL)
    assert trained.returncode == 0, trained.stderr
    checkpoint = run / "checkpoints" / "last"
    small = ["n_episodes=1", "seed=50000", "num_workers=0", "latency_repeats=1", "scene.max_episode_steps=10"]
    vla_eval([str(checkpoint), *small, f"out={out}"])
    assert json.loads((out / "summary.json").read_text())["n_episodes"] == 1
