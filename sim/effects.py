"""The effects of disturbances: one small class per kind, instantiated for every episode."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import gymnasium
import numpy as np
import shapely

from sim.bullet import pb
from sim.cameras import Camera, Light
from sim.config import FPS
from sim.env import PushTEnv
from sim.geometry import PUSHER_RADIUS, WORKSPACE_CENTRE, WORKSPACE_HALF, WORKSPACE_HIGH, WORKSPACE_LOW, block_polygon
from sim.interface import CLEARANCE, WALL
from vla_policy.interfaces import IMAGES, InputError

ATTEMPTS = 2000  # at a free place
SKIN = (0.85, 0.62, 0.48)

T = TypeVar("T")
Observation = dict[str, np.ndarray]


class Effect:
    """Base class of disturbances; does nothing. `begin` is called before the event's step is simulated."""

    unit = ""
    """Of the magnitude, in words where it has no SI unit; "" where the kind has no magnitude."""
    default: float | None = None
    most = math.inf
    """The largest magnitude that makes sense."""

    def __init__(self, env: gymnasium.Env, magnitude: float | None, generator: np.random.Generator) -> None:
        self.env: Any = env
        self.magnitude, self.generator = magnitude or 0.0, generator

    def begin(self) -> None:
        """Change the scene once."""

    def advance(self, steps: int) -> None:
        """Change the scene before each later step, `steps` after the event."""

    def act(self, action: np.ndarray, info: dict[str, Any]) -> np.ndarray:
        """The action (2,) to execute instead; `info` is the last step's."""
        return action

    def see(self, observation: Observation, before: Observation) -> Observation:
        """The observation to return instead; `before` was returned last."""
        return observation

    def undo(self) -> None:
        """Undo changes that a reset of the environment does not."""


class SceneEffect(Effect):
    """An effect on the simulated scene of `PushTEnv`."""

    env: PushTEnv

    def change_block(self, **dynamics: Any) -> None:
        """PyBullet's `changeDynamics` of the block."""
        scene = self.env.scene
        pb.changeDynamics(scene.block, -1, physicsClientId=scene.client, **dynamics)

    def set_cameras(self, change: Callable[[Camera], Camera]) -> None:
        """Replace the observed cameras until the episode ends."""
        self._cameras = self.env.cameras
        self.env.cameras = {name: change(camera) for name, camera in self._cameras.items()}

    def undo(self) -> None:
        if hasattr(self, "_cameras"):
            self.env.cameras = self._cameras

    def pusher(self) -> np.ndarray:
        return self.env.scene.pusher_state()[0][:2]

    def direction(self) -> np.ndarray:
        """A random unit vector (2,)."""
        angle = self.generator.uniform(-np.pi, np.pi)
        return np.array([np.cos(angle), np.sin(angle)])

    def draw(self, candidate: Callable[[], T], is_free: Callable[[T], bool]) -> T:
        """The first candidate that is free."""
        for _ in range(ATTEMPTS):
            found = candidate()
            if is_free(found):
                return found
        raise InputError(f"{type(self).__name__}: expected a free place with {self.magnitude} {self.unit}, found none")


class BlockTeleport(SceneEffect):
    """The block's centre of mass jumps by the magnitude in a random direction, and its angle becomes random."""

    unit, default, most = "m", 0.08, 0.1

    def begin(self) -> None:
        self.env.scene.place_block(self.draw(self._candidate, self._is_free))

    def _candidate(self) -> np.ndarray:
        x, y, angle = self.env.scene.block_pose()
        lever = self.env.config.physics.centre_of_mass
        turned = angle + self.generator.uniform(-np.pi, np.pi)
        # the pose is that of a point `lever` ahead of the centre of mass
        ahead = lever * np.array([np.cos(turned) - np.cos(angle), np.sin(turned) - np.sin(angle)])
        return np.append(np.array([x, y]) + ahead + self.magnitude * self.direction(), turned)

    def _is_free(self, pose: np.ndarray) -> bool:
        block, pusher = block_polygon(pose), shapely.Point(self.pusher())
        return _inside_walls(block) and block.distance(pusher) > PUSHER_RADIUS + CLEARANCE


class PusherTeleport(SceneEffect):
    """The arm jumps so that the pusher moves by the magnitude in a random direction."""

    unit, default, most = "m", 0.08, 0.15

    def begin(self) -> None:
        start, block = self.pusher(), block_polygon(self.env.scene.block_pose())

        def is_free(place: np.ndarray) -> bool:
            inside = ((place > WORKSPACE_LOW) & (place < WORKSPACE_HIGH)).all()
            return bool(inside) and block.distance(shapely.Point(place)) > PUSHER_RADIUS + CLEARANCE

        self.env.place_pusher(self.draw(lambda: start + self.magnitude * self.direction(), is_free))


class Recolour(SceneEffect):
    """The block's colour is mixed with another hue, with the magnitude as the fraction."""

    unit, default, most = "share of the new colour", 1.0, 1.0

    def begin(self) -> None:
        scene = self.env.scene
        old = pb.getVisualShapeData(scene.block, physicsClientId=scene.client)[0][7][:3]
        hue = colorsys.rgb_to_hsv(*old)[0] + self.generator.uniform(0.25, 0.75)
        new = colorsys.hsv_to_rgb(hue % 1.0, 0.85, 0.85)
        mixed = (1 - self.magnitude) * np.array(old) + self.magnitude * np.array(new)
        pb.changeVisualShape(scene.block, -1, rgbaColor=(*mixed.tolist(), 1.0), physicsClientId=scene.client)


class SwapLight(SceneEffect):
    """The lamp moves to another side and lower, and the scene becomes darker, in proportion to the magnitude."""

    unit, default, most = "share of the new light", 1.0, 1.0

    def begin(self) -> None:
        old, new = Light(), Light((*self.direction().tolist(), 0.6), ambient=0.3, diffuse=0.5)
        share = self.magnitude
        direction = [(1 - share) * a + share * b for a, b in zip(old.direction, new.direction, strict=True)]
        light = Light(
            (direction[0], direction[1], direction[2]),
            (1 - share) * old.ambient + share * new.ambient,
            (1 - share) * old.diffuse + share * new.diffuse,
        )
        self.set_cameras(lambda camera: Camera(camera.config, self.env.config.colours, light))
        self._video = self.env.video
        self.env.video = Camera(self._video.config, self.env.config.colours, light)

    def undo(self) -> None:
        super().undo()
        if hasattr(self, "_video"):
            self.env.video = self._video


class CameraShift(SceneEffect):
    """Every observed camera is translated in its image plane by the magnitude."""

    unit, default, most = "m", 0.02, 0.5

    def begin(self) -> None:
        in_image = self.magnitude * self.direction()
        self.set_cameras(lambda camera: self._moved(camera, in_image))

    def _moved(self, camera: Camera, in_image: np.ndarray) -> Camera:
        offset = in_image @ camera.extrinsics[:2, :3]  # its x and y axes
        position, target = (
            tuple((np.array(p) + offset).tolist()) for p in (camera.config.position, camera.config.target)
        )
        return Camera(replace(camera.config, position=position, target=target), self.env.config.colours)


class FrozenCamera(Effect):
    """Every camera repeats its last image."""

    def see(self, observation: Observation, before: Observation) -> Observation:
        return {key: before[key] if key.startswith(IMAGES) else value for key, value in observation.items()}


class DroppedFrames(Effect):
    """Each image repeats its predecessor with this probability."""

    unit, default, most = "probability", 0.5, 1.0

    def see(self, observation: Observation, before: Observation) -> Observation:
        kept = dict(observation)
        for key in observation:
            if key.startswith(IMAGES) and self.generator.random() < self.magnitude:
                kept[key] = before[key]
        return kept


class DroppedActions(Effect):
    """Each action is lost with this probability, and the arm holds its measured position."""

    unit, default, most = "probability", 1.0, 1.0

    def act(self, action: np.ndarray, info: dict[str, Any]) -> np.ndarray:
        return info["pos_agent"] if self.generator.random() < self.magnitude else action


class BiasedActions(Effect):
    """Every action has an offset of this length in one random direction."""

    unit, default, most = "m", 0.03, 0.2

    def begin(self) -> None:
        angle = self.generator.uniform(-np.pi, np.pi)
        self._offset = self.magnitude * np.array([np.cos(angle), np.sin(angle)])

    def act(self, action: np.ndarray, info: dict[str, Any]) -> np.ndarray:
        return action + self._offset


class StuckBlock(SceneEffect):
    """The block becomes immovable."""

    def begin(self) -> None:
        self.change_block(mass=0.0)  # which makes a body static


class SlipperyBlock(SceneEffect):
    """A pushed block slides on; its speed decays to 1/e in this time instead of at once."""

    unit, default, most = "s", 0.3, 10.0

    def begin(self) -> None:
        lost = 1 - math.exp(-1 / self.magnitude)  # in a second
        self.change_block(linearDamping=lost, angularDamping=lost)


class HeavyBlock(SceneEffect):
    """The block has this mass, and the arm lags when it pushes.

    A block that has lost its speed at every physics step (damping 1) resists like a viscous one: to push it at v takes
    mass * v / time step: 120 N at 5 kg and 0.1 m/s, about what the arm's motors can give. Where the block goes for
    a given way of the pusher hardly depends on its mass, so that below 1 kg there is nothing to be seen.
    """

    unit, default, most = "kg", 5.0, 1000.0

    def begin(self) -> None:
        about_z = self.magnitude * self.env.config.physics.gyration_radius**2
        self.change_block(mass=self.magnitude, localInertiaDiagonal=[about_z / 2, about_z / 2, about_z])


class Occluder(SceneEffect):
    """A visual-only hand reaches this far over the table within half a second and then sways there."""

    unit, default, most = "m", 0.2, 0.4
    arrival = 0.5  # seconds
    height = 0.06  # metres above the table
    sway = 0.015  # metres

    def begin(self) -> None:
        self._angle = float(self.generator.choice([-np.pi / 2, np.pi / 2, np.pi]))  # not from behind the arm
        self._aside = self.generator.uniform(-0.08, 0.08)
        self._body = _hand(self.env.scene.client)

    def advance(self, steps: int) -> None:
        seconds = (steps + 1) / FPS  # when it will be seen
        reach = self.magnitude * min(1.0, seconds / self.arrival) - WORKSPACE_HALF
        aside = self._aside + self.sway * math.sin(np.pi * seconds)
        c, s = math.cos(self._angle), math.sin(self._angle)
        x, y = WORKSPACE_CENTRE + np.array([c * reach - s * aside, s * reach + c * aside])
        pb.resetBasePositionAndOrientation(
            self._body,
            (x, y, self.height),
            pb.getQuaternionFromEuler((0.0, 0.0, self._angle)),
            physicsClientId=self.env.scene.client,
        )


class UnknownObject(SceneEffect):
    """A coloured box or cylinder of this width appears on the table; it can be pushed like the block."""

    unit, default, most = "m", 0.04, 0.1

    def begin(self) -> None:
        block = block_polygon(self.env.scene.block_pose())
        pusher = shapely.Point(self.pusher()).buffer(PUSHER_RADIUS)
        around = self.magnitude * math.sqrt(0.5)  # the radius of the circle around a box

        def is_free(place: np.ndarray) -> bool:
            disc = shapely.Point(place).buffer(around)
            return _inside_walls(disc) and disc.distance(block) > CLEARANCE and disc.distance(pusher) > CLEARANCE

        place = self.draw(lambda: self.generator.uniform(WORKSPACE_LOW, WORKSPACE_HIGH), is_free)
        self._add(place, self.generator.random() < 0.5, colorsys.hsv_to_rgb(self.generator.random(), 0.9, 0.9))

    def _add(self, place: np.ndarray, is_box: bool, colour: tuple[float, float, float]) -> None:
        cid, physics, width = self.env.scene.client, self.env.config.physics, self.magnitude
        height = 2 * physics.block_height
        if is_box:
            shape = {"shapeType": pb.GEOM_BOX, "halfExtents": (width / 2, width / 2, height / 2)}
            visual = collision = shape
        else:
            shape = {"shapeType": pb.GEOM_CYLINDER, "radius": width / 2}
            visual, collision = shape | {"length": height}, shape | {"height": height}
        body = pb.createMultiBody(
            physics.block_mass,
            pb.createCollisionShape(**collision, physicsClientId=cid),
            pb.createVisualShape(**visual, rgbaColor=(*colour, 1.0), physicsClientId=cid),
            (*place.tolist(), height / 2),
            useMaximalCoordinates=True,
            physicsClientId=cid,
        )
        self.env.scene.make_pushable(body)


def _inside_walls(shape: shapely.Geometry) -> bool:
    inset = WALL + CLEARANCE
    return shapely.box(*(WORKSPACE_LOW + inset), *(WORKSPACE_HIGH - inset)).contains(shape)


def _hand(client: int) -> int:
    """A body of palm, fingers, thumb and forearm, fingertips at the origin and pointing to +x."""
    boxes = [((0.040, 0.038, 0.012), (-0.105, 0.0, 0.0)), ((0.150, 0.026, 0.022), (-0.280, 0.0, 0.0))]
    for k, length in enumerate((0.062, 0.075, 0.070, 0.055)):
        y = 0.019 * (k - 1.5)
        boxes.append(((length / 2, 0.0075, 0.008), (length / 2 - 0.075, y, 0.0)))
    boxes.append(((0.030, 0.009, 0.009), (-0.100, 0.048, 0.0)))
    visual = pb.createVisualShapeArray(
        [pb.GEOM_BOX] * len(boxes),
        halfExtents=[half for half, _ in boxes],
        visualFramePositions=[centre for _, centre in boxes],
        rgbaColors=[(*SKIN, 1.0)] * len(boxes),
        physicsClientId=client,
    )
    return pb.createMultiBody(0, -1, visual, (0.0, 0.0, -1.0), physicsClientId=client)
