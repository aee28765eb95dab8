"""What a node that looks says of topics that it cannot hear."""

from __future__ import annotations

import re
import time
from contextlib import closing

import numpy as np
import pytest
from geometry_msgs.msg import PoseStamped
from helpers.ros import Spinning, image_message, own_domain, pose_message, wait_for
from sensor_msgs.msg import CompressedImage, Image

from vla_policy.interfaces import IMAGES, STATE
from vla_policy.nodes import common
from vla_policy.nodes.perception import Perception
from vla_policy.robot.contract import load_contract

pytestmark = pytest.mark.dds
TOPIC, STATE_TOPIC = "/pusht_sim/camera/image_raw", "/pusht_sim/ee_pose"
COMPRESSED = "sensor_msgs/msg/CompressedImage"


def test_a_camera_of_another_type_is_named() -> None:
    with own_domain(1), Spinning("looks") as node, Spinning("camera") as camera:
        perception = Perception(node, load_contract("pusht_sim"), [IMAGES + "top"], lambda: None)
        wait_for(lambda: perception.problem() == f"no picture from {TOPIC} yet", "silence")
        camera.create_publisher(CompressedImage, TOPIC, common.IMAGE_QOS)
        expected = f"no picture from {TOPIC} yet (expected sensor_msgs/msg/Image, found {COMPRESSED})"
        wait_for(lambda: perception.problem() == expected, "the type that was found")
        perception.close()


def test_lagging_and_silent_streams_are_named() -> None:
    with own_domain(1), Spinning("looks") as node, Spinning("robot") as robot:
        perception = Perception(node, load_contract("pusht_sim"), [STATE, IMAGES + "top"], lambda: None)
        camera = robot.create_publisher(Image, TOPIC, common.IMAGE_QOS)
        state = robot.create_publisher(PoseStamped, STATE_TOPIC, common.STATE_QOS)
        age, off = 0.0, 0.0
        black = np.zeros((96, 96, 3), np.uint8)

        def tell() -> None:
            camera.publish(image_message(black, time.time() - age))
            if off is not None:
                state.publish(pose_message(np.zeros(2), time.time() - off))

        with closing(common.Ticker(0.1, tell)):
            wait_for(lambda: perception.problem() == "", "observations")
            off = 0.05
            apart = f"the {IMAGES}top nearest to the newest {STATE}, "
            wait_for(lambda: perception.problem().startswith(apart), "streams out of phase")
            off, age = 0.0, 1.0
            old = re.compile(rf"no valid picture from {TOPIC} since .* s: they are 1\.0\d s old when they come")
            wait_for(lambda: old.match(perception.problem()), "old pictures")
            off, age = None, 0.0
            silent = re.compile(rf"no message from {STATE_TOPIC} since \d+\.\d s$")
            wait_for(lambda: silent.match(perception.problem()), "silence")
        perception.close()
