"""What a node that looks says of topics that it cannot hear."""

from __future__ import annotations

import pytest

rclpy = pytest.importorskip("rclpy")

from helpers.ros import Spinning, own_domain, wait_for  # noqa: E402
from sensor_msgs.msg import CompressedImage  # noqa: E402

from vla_policy.contract import load_contract  # noqa: E402
from vla_policy.interfaces import IMAGES  # noqa: E402
from vla_policy.nodes import common  # noqa: E402
from vla_policy.nodes.perception import Perception  # noqa: E402

pytestmark = pytest.mark.dds
TOPIC = "/pusht_sim/camera/image_raw"


def test_a_camera_of_another_type_is_named() -> None:
    with own_domain(1), Spinning("looks") as node, Spinning("camera") as camera:
        perception = Perception(node, load_contract("pusht_sim"), [IMAGES + "top"], lambda: None)
        wait_for(lambda: perception.problem() == f"{TOPIC} is silent", "silence")
        camera.create_publisher(CompressedImage, TOPIC, common.IMAGE_QOS)
        expected = f"{TOPIC} is silent ({TOPIC}: expected sensor_msgs/msg/Image, found sensor_msgs/msg/CompressedImage)"
        wait_for(lambda: perception.problem() == expected, "the type that was found")
        perception.close()
