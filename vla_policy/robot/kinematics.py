"""Forward and inverse kinematics, for policies in tip coordinates on arms with joint commands.

Forward kinematics by Pinocchio from the robot's URDF; inverse kinematics by Pink, a quadratic program within the joint
limits. Both are imported on first use. No ROS.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vla_policy.interfaces import Failure, InputError

TOLERANCE = 1e-5  # error of the tip pose at convergence, metres and radians
ITERATIONS = 30  # of the solver; the next target of a path takes one or two
FOLLOWING = 0.5  # following error of a joint, in seconds at its maximum speed
BEHIND = 0.03  # metres that the tip may lag its target because of slow joints: how far it moves on after a hold
FAR = 0.5  # radians or metres between successive joint targets: beyond is another solution branch


class NoSolution(Failure):
    """No joints within the limits bring the tip to its target in time."""


class Kinematics:
    """The chain of joints from the link `base` to the link `tip` of a URDF.

    `joints` (n) names all movable joints between them, in the order of all arrays (n,) here: radians, or metres for a
    prismatic joint. `low`, `high` and `speed` are the URDF's limits, the last one lowered by `speed` if given. Poses
    (7,) are x, y, z in metres and a quaternion qx, qy, qz, qw, of the tip in the base frame. Stateless and thus
    thread-safe. `InputError` for an unreadable URDF, a missing link or joint, a joint without limits.
    """

    def __init__(
        self, urdf: Path, base: str, tip: str, joints: Sequence[str], speed: Sequence[float] | None = None
    ) -> None:
        pin = _pinocchio()
        try:
            whole = pin.buildModelFromUrdf(str(urdf))
        except ValueError:
            raise InputError(f"kinematics: urdf: expected a robot description, found {str(urdf)!r}") from None
        for link in (base, tip):
            if not whole.existBodyName(link):
                known = [frame.name for frame in whole.frames if frame.type == pin.BODY]
                raise InputError(f"kinematics: {urdf.name}: expected the link {link!r}, found {known}")
        self.joints, self._tip, self._base = tuple(joints), tip, base
        chain = [whole.names[k] for k in whole.supports[whole.frames[whole.getFrameId(tip)].parentJoint] if k > 0]
        if sorted(chain) != sorted(self.joints):
            raise InputError(
                f"kinematics: joints: expected those that move {tip!r} of {urdf.name}, {chain}, found {list(joints)}"
            )
        still = [k for k, name in enumerate(whole.names) if k > 0 and name not in chain]
        self._model = pin.buildReducedModel(whole, still, pin.neutral(whole))
        if self._model.frames[self._model.getFrameId(base)].parentJoint != 0:
            raise InputError(f"kinematics: {urdf.name}: expected a base that does not move, found {base!r}")
        self._joint_limits = _pink().limits.ConfigurationLimit(self._model, config_limit_gain=1.0)
        self._limits(speed)

    def _limits(self, speed: Sequence[float] | None) -> None:
        model = self._model
        numbers = [model.joints[model.getJointId(name)] for name in self.joints]
        endless = [name for name, joint in zip(self.joints, numbers, strict=True) if joint.nq != 1]
        if endless:
            raise InputError(f"kinematics: joints: expected joints with limits, found continuous ones {endless}")
        self._places = [joint.idx_q for joint in numbers]
        self.low, self.high = (limit[self._places] for limit in (model.lowerPositionLimit, model.upperPositionLimit))
        self.speed = model.velocityLimit[self._places]
        if speed is not None:
            given = np.asarray(speed, float)
            if given.shape != self.speed.shape or not (given > 0).all():
                raise InputError(f"kinematics: speed: expected {len(self.joints)} numbers above 0, found {speed}")
            self.speed = np.minimum(self.speed, given)
        if not (self.low < self.high).all() or not (self.speed > 0).all():
            raise InputError(f"kinematics: expected low < high and a speed above 0 of all the joints {self.joints}")

    def pose(self, joints: np.ndarray) -> np.ndarray:
        """The pose (7,) of the tip at these joints (n,)."""
        pin, model = _pinocchio(), self._model
        data = model.createData()
        pin.framesForwardKinematics(model, data, self._inward(joints))
        base, tip = (data.oMf[model.getFrameId(link)] for link in (self._base, self._tip))
        return np.asarray(pin.SE3ToXYZQUAT(base.actInv(tip)))

    def solve(self, pose: np.ndarray, near: np.ndarray) -> np.ndarray:
        """The joints (n,) with the tip at a pose (7,), found by iterating from the joints `near` (n,).

        `NoSolution` where there are none within the limits.
        """
        pin, pink = _pinocchio(), _pink()
        target = pin.XYZQUATToSE3(_unit(pose))
        model = self._model
        start = np.clip(self._inward(near), model.lowerPositionLimit, model.upperPositionLimit)
        configuration = pink.Configuration(model, model.createData(), start, copy_data=False)
        task = pink.tasks.FrameTask(self._tip, position_cost=1.0, orientation_cost=1.0, lm_damping=1e-6)
        task.set_target(configuration.get_transform_frame_to_world(self._base) * target)
        for _ in range(ITERATIONS):
            if np.abs(task.compute_error(configuration)).max() < TOLERANCE:
                return np.asarray(configuration.q[self._places])
            try:
                step = pink.solve_ik(configuration, [task], 1.0, "daqp", limits=[self._joint_limits])
            except pink.exceptions.PinkError:
                break
            configuration.integrate_inplace(step, 1.0)
        raise NoSolution(
            f"kinematics: expected a pose that {self._tip!r} can reach, found {np.round(pose, 4).tolist()}"
        )

    def _inward(self, joints: np.ndarray) -> np.ndarray:
        """Joints (n,) in the model's order."""
        q = np.empty(len(self.joints))
        q[self._places] = joints
        return q


class JointTargets:
    """Joint targets for a path of the tip, at `rate` Hz, beginning at the measured joints.

    Each solution starts from the last one, so that the arm stays on its solution branch, within the joints' speed
    limits. The measured joints have to follow the targets, unless they are not `followed`, as in a dry run.
    """

    def __init__(self, kinematics: Kinematics, rate: float, followed: bool = True) -> None:
        self.kinematics, self._rate, self._followed = kinematics, rate, followed
        self._measured: np.ndarray | None = None
        self._last: np.ndarray | None = None
        self.velocity = np.zeros(len(kinematics.joints))  # (n,) of the last targets, units / s

    def measure(self, joints: np.ndarray) -> None:
        """Set the measured joints (n,); ignored if not finite."""
        if np.isfinite(joints).all():
            self._measured = joints

    def reset(self) -> None:
        """Start again from the measured joints."""
        self._last = None

    def hold(self) -> np.ndarray:
        """The last targets (n,), or the measured joints if there are none."""
        held = self._measured if self._last is None else self._last
        if held is None:
            raise NoSolution("kinematics: expected measured joints, found none yet")
        return held

    def follow(self, pose: np.ndarray) -> np.ndarray:
        """The next joints (n,) on the way to a tip's pose (7,); without any `NoSolution`, and the last targets stay.

        Where a joint would exceed its speed the tip moves a part of its straight path: interpolating between distant
        joint targets would leave that path, for instance towards the table.
        """
        self.velocity = np.zeros_like(self.velocity)
        kinematics, last = self.kinematics, self.hold()
        if late := self._following_error(last):
            self.reset()
            raise NoSolution(late)
        step = kinematics.solve(pose, last) - last
        largest = int(np.argmax(np.abs(step)))
        if abs(step[largest]) > FAR:
            raise NoSolution(
                f"kinematics: {kinematics.joints[largest]}: expected a target within {FAR:g} of the last, "
                f"found {step[largest]:+.2f}"
            )
        fraction = self._speed_fraction(step)
        if fraction < 1.0:
            part = kinematics.solve(between(kinematics.pose(last), pose, fraction), last) - last
            self._require_near(last + self._speed_fraction(part) * part, pose, step)
            step = self._speed_fraction(part) * part
        if late := self._following_error(last + step):
            raise NoSolution(late)
        self._last, self.velocity = last + step, step * self._rate
        return self._last

    def _following_error(self, commanded: np.ndarray) -> str:
        """The joint whose error to `commanded` (n,) exceeds its following error, in words; "" if none."""
        if not self._followed or self._measured is None:
            return ""
        error = np.abs(self._measured - commanded)
        far = int(np.argmax(error / self.kinematics.speed))
        most = FOLLOWING * self.kinematics.speed[far]
        found = f"expected it within {most:.3g} of its target, found {error[far]:.3g}"
        return f"kinematics: {self.kinematics.joints[far]}: {found}" if error[far] > most else ""

    def _require_near(self, joints: np.ndarray, pose: np.ndarray, step: np.ndarray) -> None:
        """`NoSolution` naming the slowest joint if joints (n,) leave the tip too far behind its target."""
        behind = float(np.linalg.norm(self.kinematics.pose(joints)[:3] - pose[:3]))
        if behind > BEHIND:
            name = self.kinematics.joints[int(np.argmax(np.abs(step) / self.kinematics.speed))]
            found = f"expected the tip within {BEHIND:g} m of its target, found {behind:.3f}"
            raise NoSolution(f"kinematics: {name} is too slow: {found}")

    def _speed_fraction(self, step: np.ndarray) -> float:
        """The fraction (0 to 1) of a joint step (n,) that the speed limits allow per command."""
        return float(1.0 / max(1.0, (np.abs(step) / self.kinematics.speed).max() * self._rate))


def between(start: np.ndarray, end: np.ndarray, part: float) -> np.ndarray:
    """The pose (7,) at a fraction `part` (0 to 1) of the way from `start` (7,) to `end` (7,)."""
    pin = _pinocchio()
    first, last = (pin.XYZQUATToSE3(_unit(pose)) for pose in (start, end))
    position = (1 - part) * first.translation + part * last.translation
    turn = first.rotation @ pin.exp3(part * pin.log3(first.rotation.T @ last.rotation))
    return np.asarray(pin.SE3ToXYZQUAT(pin.SE3(turn, position)))


def _unit(pose: np.ndarray) -> np.ndarray:
    """A pose (7,) with a normalised quaternion."""
    return np.concatenate([pose[:3], pose[3:] / np.linalg.norm(pose[3:])]).astype(float)


def _pinocchio() -> Any:
    return _library("pinocchio")


def _pink() -> Any:
    return _library("pink")


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise InputError(
            f"kinematics: expected {name} to be installed (pip install pin-pink daqp), found no such module"
        ) from None
