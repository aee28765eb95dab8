"""The PushT table in one PyBullet client: rebuilt for every episode, stepped, read, saved and restored."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sim.arm import JOINT_FORCES, JOINTS, inverse_kinematics, write_urdf
from sim.bullet import pb
from sim.config import FPS, TABLE_HALF, GoalConfig, PushTConfig
from sim.geometry import BAR, STEM, WORKSPACE_CENTRE, WORKSPACE_HALF, transform
from sim.overrides import Vector

RIM_INSET = 7 * 0.75e-3  # gym-pusht's walls, 5 px from the edge with a radius of 2 px
RIM_WIDTH = 0.012
RIM_HEIGHT = 0.008
GOAL_THICKNESS = 0.0005
SOLVER_ITERATIONS = 20  # joints and set-points agree to 0.01 mm with these


@dataclass(frozen=True)
class SceneState:
    """The dynamic state: joint angles and velocities (6,), the block's base pose (7,) and velocities (6,)."""

    joints: np.ndarray
    joint_velocities: np.ndarray
    block: np.ndarray
    block_velocities: np.ndarray


class Scene:
    """Owns a PyBullet client. Poses (3,) are x, y in metres and the angle of the block in radians."""

    def __init__(self, config: PushTConfig) -> None:
        self.config = config
        self.client = pb.connect(pb.DIRECT)
        self._folder = tempfile.TemporaryDirectory(prefix="pusht-")
        self._urdf = Path(self._folder.name) / "xarm6_pusher.urdf"
        write_urdf(self._urdf, config.arm.stick_length, config.colours)

    def close(self) -> None:
        """Disconnect; safe to call twice."""
        if self.client >= 0:
            pb.disconnect(physicsClientId=self.client)
            self._folder.cleanup()
            self.client = -1

    def rebuild(self, pusher: np.ndarray, block_pose: np.ndarray, block_colour: Vector | None = None) -> None:
        """Rebuild the world with the pusher (2,) and the block (3,) at rest, the block in `block_colour` if given.

        This discards the solver's state, so that equal starts give bitwise equal trajectories.
        """
        cid, physics = self.client, self.config.physics
        pb.resetSimulation(physicsClientId=cid)
        pb.setGravity(0, 0, -9.81, physicsClientId=cid)
        pb.setPhysicsEngineParameter(
            fixedTimeStep=1 / (FPS * physics.substeps),
            numSolverIterations=SOLVER_ITERATIONS,
            deterministicOverlappingPairs=1,
            physicsClientId=cid,
        )
        self._add_table()
        self.arm = pb.loadURDF(str(self._urdf), useFixedBase=True, physicsClientId=cid)
        self.joints = [
            index
            for index in range(pb.getNumJoints(self.arm, physicsClientId=cid))
            if pb.getJointInfo(self.arm, index, physicsClientId=cid)[2] == pb.JOINT_REVOLUTE
        ]
        self.tip = pb.getNumJoints(self.arm, physicsClientId=cid) - 1
        self.block = self._add_block(block_pose, block_colour or self.config.colours.block)
        pb.changeDynamics(self.arm, self.tip, lateralFriction=physics.pusher_friction, physicsClientId=cid)
        pb.setCollisionFilterPair(self.arm, self.rim, self.tip, -1, 0, physicsClientId=cid)
        self.place_pusher(np.asarray(pusher))

    def place_pusher(self, pusher: np.ndarray) -> None:
        """Put the arm at rest with the pusher at `pusher` (2,), without collision checks."""
        for joint, angle in zip(self.joints, self.joint_targets(pusher), strict=True):
            pb.resetJointState(self.arm, joint, angle, physicsClientId=self.client)

    def place_block(self, pose: np.ndarray) -> None:
        """Put the block at rest at a pose (3,), without collision checks."""
        position, quaternion = self._block_base(pose)
        pb.resetBasePositionAndOrientation(self.block, position, quaternion, physicsClientId=self.client)
        pb.resetBaseVelocity(self.block, (0, 0, 0), (0, 0, 0), physicsClientId=self.client)

    def make_pushable(self, body: int, **dynamics: Any) -> None:
        """Give a body the block's friction and damping, and other `dynamics` of PyBullet's `changeDynamics`."""
        physics = self.config.physics
        pb.changeDynamics(
            body,
            -1,
            lateralFriction=physics.table_friction,
            linearDamping=physics.linear_damping,
            angularDamping=physics.angular_damping,
            activationState=pb.ACTIVATION_STATE_DISABLE_SLEEPING,
            physicsClientId=self.client,
            **dynamics,
        )

    def joint_targets(self, pusher: np.ndarray) -> np.ndarray:
        """Joint angles (..., 6) for pusher positions (..., 2)."""
        arm = self.config.arm
        height = np.full((*pusher.shape[:-1], 1), arm.tip_height)
        return inverse_kinematics(np.concatenate([pusher, height], axis=-1), arm.stick_length)

    def step(self, path: np.ndarray) -> None:
        """Move the pusher along positions (N, 2), one per physics step.

        Position control with both gains at 1 sets the velocity that closes the error within the step.
        """
        ones = [1.0] * JOINTS
        for targets in self.joint_targets(path).tolist():
            pb.setJointMotorControlArray(
                self.arm,
                self.joints,
                pb.POSITION_CONTROL,
                targetPositions=targets,
                positionGains=ones,
                velocityGains=ones,
                forces=JOINT_FORCES,
                physicsClientId=self.client,
            )
            pb.stepSimulation(physicsClientId=self.client)

    def pusher_state(self) -> tuple[np.ndarray, np.ndarray]:
        """Position (3,) of the tip in metres and its velocity (3,) in metres a second."""
        state = pb.getLinkState(
            self.arm, self.tip, computeLinkVelocity=1, computeForwardKinematics=1, physicsClientId=self.client
        )
        return np.array(state[4]), np.array(state[6])

    def block_pose(self) -> np.ndarray:
        """Pose (3,) of the block: the middle of the bar's outer edge, and the angle about the vertical."""
        position, quaternion = pb.getBasePositionAndOrientation(self.block, physicsClientId=self.client)
        angle = pb.getEulerFromQuaternion(quaternion)[2]
        centre = np.array([position[0], position[1], angle])
        return np.append(transform(np.array([[self.config.physics.centre_of_mass, 0.0]]), centre)[0], angle)

    def n_contacts(self) -> int:
        """Number of contact points between pusher and block."""
        return len(pb.getContactPoints(self.arm, self.block, physicsClientId=self.client))

    def save(self) -> SceneState:
        joints = pb.getJointStates(self.arm, self.joints, physicsClientId=self.client)
        base = pb.getBasePositionAndOrientation(self.block, physicsClientId=self.client)
        velocities = pb.getBaseVelocity(self.block, physicsClientId=self.client)
        return SceneState(
            np.array([joint[0] for joint in joints]),
            np.array([joint[1] for joint in joints]),
            np.concatenate(base),
            np.concatenate(velocities),
        )

    def restore(self, state: SceneState, block_colour: Vector) -> None:
        """Rebuild the world at `state`; restores of one state are bitwise identical."""
        self.rebuild(WORKSPACE_CENTRE, np.zeros(3), block_colour)
        for joint, angle, velocity in zip(self.joints, state.joints, state.joint_velocities, strict=True):
            pb.resetJointState(self.arm, joint, angle, velocity, physicsClientId=self.client)
        pb.resetBasePositionAndOrientation(self.block, state.block[:3], state.block[3:], physicsClientId=self.client)
        pb.resetBaseVelocity(
            self.block, state.block_velocities[:3], state.block_velocities[3:], physicsClientId=self.client
        )

    def _add_table(self) -> None:
        cid, colours = self.client, self.config.colours
        x, y = WORKSPACE_CENTRE
        self.table = self._add_boxes([(TABLE_HALF, (0, 0, 0))], None, (x, y, -TABLE_HALF[2]))
        pb.changeDynamics(self.table, -1, lateralFriction=1.0, physicsClientId=cid)
        inner = WORKSPACE_HALF - RIM_INSET + RIM_WIDTH / 2
        outer = WORKSPACE_HALF - RIM_INSET + RIM_WIDTH
        long, across = (RIM_WIDTH / 2, outer, RIM_HEIGHT / 2), (outer, RIM_WIDTH / 2, RIM_HEIGHT / 2)
        rim = [(long, (s * inner, 0, 0)) for s in (-1, 1)] + [(across, (0, s * inner, 0)) for s in (-1, 1)]
        self.rim = self._add_boxes(rim, colours.rim, (x, y, RIM_HEIGHT / 2))
        pb.changeDynamics(self.rim, -1, lateralFriction=0.0, physicsClientId=cid)
        goals = self.config.goals or {"": GoalConfig(self.config.goal_pose, colours.goal)}
        self.goals = {name: self._add_goal(goal) for name, goal in goals.items()}

    def _add_goal(self, goal: GoalConfig) -> int:
        (x, y, angle), boxes = goal.pose, _t_boxes(GOAL_THICKNESS, 0.0)
        return self._add_boxes(boxes, goal.colour, (x, y, GOAL_THICKNESS / 2), angle, solid=False)

    def _add_block(self, pose: np.ndarray, colour: Vector) -> int:
        physics = self.config.physics
        boxes = _t_boxes(physics.block_height, physics.centre_of_mass)
        position, _ = self._block_base(pose)
        block = self._add_boxes(boxes, colour, position, float(pose[2]), mass=physics.block_mass)
        about_z = physics.block_mass * physics.gyration_radius**2
        self.make_pushable(block, mass=physics.block_mass, localInertiaDiagonal=[about_z / 2, about_z / 2, about_z])
        return block

    def _block_base(self, pose: np.ndarray) -> tuple[tuple, tuple]:
        """Position (3,) and quaternion (4,) of the block's body, whose origin is its centre of mass."""
        physics = self.config.physics
        centre = transform(np.array([[-physics.centre_of_mass, 0.0]]), pose)[0]
        position = (*centre.tolist(), physics.block_height / 2)
        return position, pb.getQuaternionFromEuler((0.0, 0.0, float(pose[2])))

    def _add_boxes(
        self,
        boxes: list[tuple[tuple, tuple]],
        colour: tuple | None,
        position: tuple,
        angle: float = 0.0,
        mass: float = 0.0,
        solid: bool = True,
    ) -> int:
        """One body of boxes, each given by half extents and centre in the body's frame (metres).

        Without a colour it is transparent (cameras paint the table themselves); not solid, it is only drawn.
        """
        cid = self.client
        halves, centres = [half for half, _ in boxes], [centre for _, centre in boxes]
        kinds = [pb.GEOM_BOX] * len(boxes)
        collision = -1
        visual = pb.createVisualShapeArray(
            kinds,
            halfExtents=halves,
            visualFramePositions=centres,
            rgbaColors=[(0.0, 0.0, 0.0, 0.0) if colour is None else (*colour, 1.0)] * len(boxes),
            physicsClientId=cid,
        )
        if solid:
            collision = pb.createCollisionShapeArray(
                kinds, halfExtents=halves, collisionFramePositions=centres, physicsClientId=cid
            )
        return pb.createMultiBody(
            mass,
            collision,
            visual,
            position,
            pb.getQuaternionFromEuler((0.0, 0.0, angle)),
            useMaximalCoordinates=solid,
            physicsClientId=cid,
        )


def _t_boxes(height: float, centre_of_mass: float) -> list[tuple[tuple, tuple]]:
    """Half extents and centres of bar and stem, `centre_of_mass` metres behind the bar's outer edge as origin."""
    boxes = []
    for shape in (BAR, STEM):
        low_x, low_y, high_x, high_y = shape.bounds
        half = ((high_x - low_x) / 2, (high_y - low_y) / 2, height / 2)
        boxes.append((half, ((low_x + high_x) / 2 + centre_of_mass, (low_y + high_y) / 2, 0.0)))
    return boxes
