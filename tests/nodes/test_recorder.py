"""The recorder as a process: episodes of a robot that never tires, ended, discarded, and interrupted by SIGKILL."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy")

from helpers.ros import FakeRobot, image_message, own_domain, wait_for  # noqa: E402
from sensor_msgs.msg import Image, JointState  # noqa: E402
from std_msgs.msg import String  # noqa: E402
from std_srvs.srv import SetBool, Trigger  # noqa: E402

from vla_policy.contract import load_contract  # noqa: E402
from vla_policy.data import LeRobotDataset  # noqa: E402
from vla_policy.data.bag_import import bag_episode  # noqa: E402
from vla_policy.interfaces import ACTION, STATE  # noqa: E402
from vla_policy.nodes import common  # noqa: E402
from vla_policy.nodes.processes import Processes  # noqa: E402

pytestmark = [pytest.mark.xdist_group("dds"), pytest.mark.slow]


class Filmed(FakeRobot):
    """With a camera at 10 Hz, and commands at 50 Hz that are as good as executed."""

    def __init__(self) -> None:
        super().__init__()
        self.filming, self.status, self.frame = True, [""], 0
        self._called: dict = {}
        self._pictures = self.create_publisher(Image, "/pusht_sim/camera/image_raw", common.IMAGE_QOS)
        self._executed = self.create_publisher(JointState, "command/executed", 10)
        self.create_subscription(String, "recorder/status", lambda m: self.status.append(m.data), common.LATCHED_QOS)
        self._film_ticker = common.Ticker(0.1, self._film)
        self._command_ticker = common.Ticker(0.02, self._command)

    def close(self) -> None:
        self._film_ticker.close()
        self._command_ticker.close()
        super().close()

    def call(self, service: str, kind: type = Trigger, **request: bool) -> tuple[bool, str]:
        if service not in self._called:
            self._called[service] = self.create_client(kind, f"recorder/{service}")
        client = self._called[service]
        wait_for(client.service_is_ready, service)
        future = client.call_async(kind.Request(**request))
        wait_for(future.done, f"answer of {service}")
        return future.result().success, future.result().message

    def start(self) -> None:
        wait_for(lambda: self.call("start_episode")[0], "the start of an episode")

    def said(self, text: str) -> bool:
        return any(text in status for status in self.status)

    def _film(self) -> None:
        if self.filming:
            self.frame += 1
            self._pictures.publish(image_message(np.full((96, 96, 3), self.frame % 256, np.uint8), self.now()))

    def _command(self) -> None:
        executed = JointState(name=["x", "y"], position=self.pose.tolist())
        executed.header.stamp = common.stamp(self.now())
        self._executed.publish(executed)


@pytest.fixture
def robot() -> Iterator[Filmed]:
    with own_domain():
        robot = Filmed()
        yield robot
        robot.close()


def test_episodes_survive_a_kill_and_become_a_dataset(robot: Filmed, tmp_path: Path) -> None:
    root = tmp_path / "recordings"
    with Processes(tmp_path / "log") as processes:
        processes.start("recorder", root=str(root), task="keep still")
        robot.start()
        time.sleep(1.5)
        assert robot.call("start_episode") == (False, "start_episode: expected no episode in progress, found one")
        assert robot.call("end_episode", SetBool, data=True)[0]

        robot.start()
        time.sleep(0.3)
        assert robot.call("discard_episode")[0]

        robot.start()
        time.sleep(0.5)
        robot.filming = False
        wait_for(lambda: robot.said("recording, but /pusht_sim/camera/image_raw is silent"), "the missing camera", 5.0)
        ok, why = robot.call("end_episode", SetBool, data=False)
        assert ok
        assert why.endswith("episode_000001.mcap")
        ok, why = robot.call("start_episode")
        assert not ok
        assert "/pusht_sim/camera/image_raw is silent" in why
        robot.filming = True

        robot.start()
        begin = time.time()
        time.sleep(2.0)
        processes["recorder"].kill()
        killed = time.time()
        assert processes["recorder"].wait(10) == -signal.SIGKILL
        names = sorted(path.name for path in (root / "bags").iterdir())
        assert names == ["episode_000000.mcap", "episode_000001.mcap", "episode_000002.mcap.part"]

        processes.start("recorder", root=str(root))
        wait_for(lambda: robot.said("an interrupted episode was found"), "the repair")
        interrupted = bag_episode(root / "bags" / "interrupted" / "episode_000002.mcap", load_contract("pusht_sim"))
        assert interrupted.length / 10 > killed - begin - 1.0  # at most a second is lost
        wait_for(lambda: robot.said("1 episodes, "), "the import", 120.0)

    dataset = LeRobotDataset(root / "dataset")
    assert dataset.tasks == ["keep still"]
    assert dataset.num_episodes == 1  # the success; neither the failure nor the interrupted one
    columns = dataset.episode(0).columns
    assert len(columns[ACTION]) >= 12
    np.testing.assert_allclose(columns[STATE], np.float32([[0.45, 0.0]]).repeat(len(columns[STATE]), axis=0), atol=1e-6)
