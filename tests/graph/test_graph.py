"""The whole graph as processes over DDS with the shipped policy: what it computes, an episode, and how it stops."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from geometry_msgs.msg import PoseStamped
from helpers.ros import ROOT, Spinning, Waiting, Witness, image_message, own_domain, pose_message, wait_for
from sensor_msgs.msg import Image
from trajectory_msgs.msg import JointTrajectory

from sim import TASK, PushTEnv
from vla_policy.benchmarks.ros.fault_timing import measured, timed
from vla_policy.benchmarks.ros.measured import Hold
from vla_policy.data import LeRobotDataset, LeRobotWriter, WindowDataset
from vla_policy.graph.operator import ACTIVATE, CONFIGURE, Operator
from vla_policy.graph.processes import Processes
from vla_policy.interfaces import ACTION, IMAGES, STATE, Observation
from vla_policy.models import DiffusionPolicy
from vla_policy.nodes import common
from vla_policy.robot.messages import chunk_of

pytestmark = [pytest.mark.dds, pytest.mark.slow]
CHECKPOINT = ROOT / "checkpoints" / "pusht_image"
TOP = IMAGES + "top"
POLICY_SEED = 7
FRAMES = 24


@pytest.fixture(scope="module")
def policy() -> DiffusionPolicy:
    return DiffusionPolicy.from_pretrained(CHECKPOINT)


@pytest.fixture(scope="module")
def recorded(policy: DiffusionPolicy, tmp_path_factory: pytest.TempPathFactory) -> LeRobotDataset:
    """A few seconds of an episode, as a dataset has them: decoded from its video."""
    env = PushTEnv()
    observation, _ = env.reset(seed=3)
    columns: dict[str, list] = {STATE: [], ACTION: []}
    images = []
    for step in range(FRAMES):
        action = observation[STATE] + np.float32([0.01 * (step % 5), -0.01])
        columns[STATE].append(observation[STATE])
        columns[ACTION].append(action)
        images.append(observation[TOP])
        observation = env.step(action)[0]
    env.close()
    root = tmp_path_factory.mktemp("recorded") / "dataset"
    with LeRobotWriter(root, policy.interface) as writer:
        writer.add_episode({key: np.array(values) for key, values in columns.items()}, {TOP: np.array(images)}, TASK)
    return LeRobotDataset(root)


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Processes, Operator]]:
    with own_domain(), Processes(tmp_path_factory.mktemp("log")) as processes:
        processes.start("policy", checkpoint=str(CHECKPOINT), seed=POLICY_SEED)

        def check() -> None:
            assert processes["policy"].poll() is None, processes.last_words("policy")

        with Operator(check) as operator:
            yield processes, operator


class Player(Spinning):
    """Plays a recorded episode to the policy as a robot would, and keeps the chunks that come back."""

    def __init__(self, dataset: LeRobotDataset) -> None:
        super().__init__("player")
        self.images, self.states = dataset.frames(0, TOP), dataset.episode(0).columns[STATE]
        self.chunks: list = []
        self._image = self.create_publisher(Image, "/pusht_sim/camera/image_raw", common.IMAGE_QOS)
        self._state = self.create_publisher(PoseStamped, "/pusht_sim/ee_pose", common.STATE_QOS)
        names = ("x", "y")
        self.create_subscription(
            JointTrajectory, "policy/action_chunk", lambda m: self.chunks.append(chunk_of(m, names)), 10
        )

    def play(self, frame: int, t: float) -> None:
        self._image.publish(image_message(self.images[frame], t))
        self._state.publish(pose_message(self.states[frame], t))


def test_training_evaluation_and_node_make_the_same_chunk(
    graph: tuple[Processes, Operator], recorded: LeRobotDataset, policy: DiffusionPolicy
) -> None:
    _, operator = graph
    with Player(recorded) as player:
        operator.wait(lambda: operator.change("policy", CONFIGURE), "configuring")
        wait_for(lambda: player.count_publishers("policy/action_chunk") > 0, "the policy's chunks")
        begin = time.time()
        while not operator.change("policy", ACTIVATE):  # it wants observations first, which do not count
            player.play(0, time.time())
            assert time.time() < begin + 60
        time.sleep(0.05)
        first = time.time()
        again = policy.config.n_action_steps
        for frame in range(again + 1):  # the second chunk is asked for with the last two of them
            if frame == again:
                wait_for(lambda: player.chunks, "the first chunk", 20.0)  # a busy policy would not be asked
            time.sleep(max(0.0, first + 0.1 * frame - time.time()))
            player.play(frame, first + 0.1 * frame)
        wait_for(lambda: len(player.chunks) == 2, "two chunks", 20.0)

    histories = [[0, 0], [again - 1, again]]
    seen = [
        [Observation({STATE: player.states[k], TOP: player.images[k]}, TASK, first + 0.1 * k) for k in history]
        for history in histories
    ]
    generator = np.random.default_rng(POLICY_SEED)
    evaluated = [policy.predict([history], generator)[0] for history in seen]
    windows = WindowDataset(recorded, list(policy.interface.observations), 2, policy.config.horizon, 7)
    batch = windows[[windows.window(k)[1] for k in range(len(windows))].index(again)]
    generator = np.random.default_rng(POLICY_SEED)
    noise = [torch.Generator().manual_seed(int(generator.integers(2**63 - 1))) for _ in range(2)][1]
    one = {key: value[None] if torch.is_tensor(value) else [value] for key, value in batch.items()}
    trained = policy.sample(one, noise)[0].numpy()

    for chunk, expected, k in zip(player.chunks, evaluated, (0, again), strict=True):
        np.testing.assert_allclose(chunk.actions, expected.actions, atol=1e-6)
        assert chunk.t_obs == pytest.approx(first + 0.1 * k, abs=1e-5)
        assert chunk.dt == pytest.approx(0.1)
    np.testing.assert_allclose(player.chunks[1].actions, trained, atol=1e-6)


@pytest.fixture
def witness(graph: tuple[Processes, Operator]) -> Iterator[Witness]:
    with Witness() as witness:
        yield witness


def test_an_episode_then_a_silent_camera_then_a_killed_policy(
    graph: tuple[Processes, Operator], witness: Witness
) -> None:
    processes, operator = graph
    processes.start("command_gate", dry_run=False)
    processes.start("pusht_sim", seed=11)
    operator.wait(lambda: len(operator.coverages) > 3, "the simulation")

    begin = time.time()
    episode = operator.run_episode(max_steps=40, success_coverage=0.95, rearm=30)  # a busy computer stops it often
    assert episode.seed == 11
    assert episode.steps == 40 or episode.success
    assert witness.moved(begin) > 0.02
    sent = len(witness.commands)
    time.sleep(0.2)
    assert len(witness.commands) <= sent + 1  # nothing is sent after an episode

    def move() -> None:
        """Played for a moment; on a busy computer the arm may be stopped before."""

        def moving() -> bool:
            if witness.state != "running":
                operator.enable(False)
                operator.enable(True)
                time.sleep(0.8)
            return witness.state == "running"

        wait_for(moving, "a chunk being played", 30.0)

    def stop_robot() -> Hold:
        move()
        os.kill(processes["pusht_sim"].pid, signal.SIGSTOP)
        try:
            return timed(witness, time.time() + 0.1)  # its next frame would have come by then
        finally:
            os.kill(processes["pusht_sim"].pid, signal.SIGCONT)

    deadline, gate = 0.2, Waiting(processes["command_gate"].pid)
    hold = measured(stop_robot, "a stopped robot")
    assert hold.seconds is not None
    assert hold.reason
    assert hold.seconds < deadline + hold.stood_still + gate.seconds()
    time.sleep(0.5)
    assert witness.state == "holding"  # frames are back; nobody armed it

    move()
    killed = time.time()
    processes["policy"].kill()
    assert witness.seconds_to_hold(killed) < deadline + witness.stood_still(killed)
    assert "policy/stop is silent" in witness.reason
    assert processes["policy"].wait(5) == -signal.SIGKILL
    processes.stop()
    assert processes["command_gate"].returncode == 0
    assert processes["pusht_sim"].returncode == 0


def test_a_checkpoint_for_another_robot_is_refused_with_the_difference(tmp_path: Path) -> None:
    """Configured in vla-sim, whose error is what the user sees; no process is left behind."""
    with own_domain(3) as environment:
        robot = tmp_path / "robot.yaml"
        text = (ROOT / "config" / "pusht_sim.yaml").read_text()
        robot.write_text(text.replace("fps: 10 ", "fps: 20 "))
        words = [str(CHECKPOINT), f"contract={robot}", f"out={tmp_path / 'out'}", "domain_id=null"]
        result = subprocess.run(
            [sys.executable, "-m", "vla_policy.cli.sim", *words],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert result.returncode == 1
    assert "pusht_sim ended with status 2" in result.stderr
    assert "fps: expected 20, found 10" in result.stderr
    assert "Traceback" not in result.stderr


def test_one_interrupt_ends_all_processes(tmp_path: Path) -> None:
    with own_domain(3) as environment:
        words = [str(CHECKPOINT), f"out={tmp_path}", "domain_id=null"]
        program = subprocess.Popen(
            [sys.executable, "-m", "vla_policy.cli.sim", *words],
            env={**os.environ, **environment},
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            # whoever runs the tests in the background of a shell has it ignored, and so would the program
            preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        )
        wait_for(lambda: len(psutil.Process(program.pid).children(recursive=True)) == 3, "the nodes")
        nodes = psutil.Process(program.pid).children(recursive=True)
        program.send_signal(signal.SIGINT)
        assert program.wait(30) == 130
    assert program.stderr is not None
    assert program.stderr.read().strip() == "interrupted"
    assert psutil.wait_procs(nodes, timeout=5)[1] == []
