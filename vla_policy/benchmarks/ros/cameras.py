"""Two cameras and the joints of an arm, for what has to keep up with them."""

from __future__ import annotations

import array
import multiprocessing
import time
from multiprocessing.connection import Connection

import numpy as np
from sensor_msgs.msg import Image, JointState

from vla_policy.benchmarks.pictures import picture
from vla_policy.benchmarks.ros.harness import Spinning
from vla_policy.nodes import common
from vla_policy.robot.contract import Contract
from vla_policy.robot.messages import seconds

TWO_CAMERAS = "so101"  # a contract with two cameras of 480 x 640 at 30 Hz


def image_message(pixels: bytes, size: tuple[int, int], t: float) -> Image:
    """An RGB image of height and width `size`."""
    message = Image(height=size[0], width=size[1], encoding="rgb8", step=3 * size[1])
    message.header.stamp = common.stamp(t)
    message.data = array.array("B", pixels)  # an ndarray is 200 times slower
    return message


class Joints(Spinning):
    """Joint states and commands at 50 Hz for a contract of joints."""

    def __init__(self, contract: Contract) -> None:
        super().__init__("joints")
        self._names = list(contract.interface.action.names)
        topics = [*(stream.source.topic for stream in contract.streams if not stream.is_camera), "command/executed"]
        self._joints = [self.create_publisher(JointState, topic, common.STATE_QOS) for topic in topics]
        self._ticker = common.Ticker(0.02, self._publish)

    def close(self) -> None:
        self._ticker.close()
        super().close()

    def _publish(self) -> None:
        message = JointState(name=self._names, position=[0.0] * len(self._names))
        message.header.stamp = common.stamp(time.time())
        for publisher in self._joints:
            publisher.publish(message)


class Cameras:
    """Those of a contract, at its rate: one process per camera, like drivers."""

    def __init__(self, contract: Contract) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes: dict[str, Connection] = {}
        self._processes = []
        for stream in contract.streams:
            if not stream.is_camera:
                continue
            topic, size = stream.source.topic, stream.feature.shape[:2]
            self._pipes[topic], theirs = context.Pipe()
            arguments = topic, size, contract.interface.fps, theirs
            process = context.Process(target=_publish_images, args=arguments, daemon=True)
            process.start()
            self._processes.append(process)

    def stop(self) -> dict[str, list[float]]:
        """Stop, and return the stamps of all frames sent, by topic."""
        for pipe in self._pipes.values():
            pipe.send("stop")
        return {topic: pipe.recv() for topic, pipe in self._pipes.items()}

    def __enter__(self) -> Cameras:
        return self

    def __exit__(self, *exception: object) -> None:
        for process in self._processes:
            process.terminate()
            process.join()


def _publish_images(topic: str, size: tuple[int, int], fps: float, pipe: Connection) -> None:
    """Publish a picture until a message arrives on the pipe, then send the stamps."""
    camera = Spinning("camera" + topic.replace("/", "_"))
    publisher = camera.create_publisher(Image, topic, common.IMAGE_QOS)
    message = image_message(picture(size, np.random.default_rng(0)).tobytes(), size, 0.0)
    stamps: list[float] = []

    def send() -> None:
        message.header.stamp = common.stamp(time.time())
        publisher.publish(message)
        stamps.append(seconds(message.header.stamp))

    ticker = common.Ticker(1.0 / fps, send)
    pipe.recv()
    ticker.close()
    pipe.send(stamps)
    camera.close()
