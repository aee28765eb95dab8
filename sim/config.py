"""Everything about PushT that can be chosen, with its defaults: `scene.KEY=VALUE`.

`vla_policy/conf/scene/` has the scenes that `scene=` selects, as differences from these defaults. Lengths are metres in
the arm's base frame: x forward, y left, z up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sim.geometry import GOAL_POSE
from sim.overrides import Vector, replace
from vla_policy.interfaces import InputError

TASK = "Push the T-shaped block onto the T-shaped target."
FPS = 10  # actions and frames a second
TABLE_HALF = (0.45, 0.45, 0.02)  # metres, half of the table top's sides
PARAPHRASES = ("training", "held_out")


@dataclass(frozen=True)
class PhysicsConfig:
    """Physics of the block, the table and the pusher's contact.

    The block stops as soon as it is not pushed: damping 1 removes its velocity at every physics step, like damping 0 in
    gym-pusht. Mass, centre of mass and radius of gyration are gym-pusht's.
    """

    substeps: int = 24  # physics steps an action; 24 at 10 Hz make 240 Hz
    block_height: float = 0.015  # metres
    block_mass: float = 0.1  # kg
    centre_of_mass: float = 0.03375  # distance of the centre of mass from the bar's outer edge, metres
    gyration_radius: float = 0.0411  # sqrt(moment of inertia about the vertical / mass), metres
    linear_damping: float = 1.0  # fraction of the block's velocity lost per second, 0 to 1
    angular_damping: float = 1.0  # the same of its angular velocity
    table_friction: float = (
        0.0  # Coulomb coefficient between block and table; 0 as in gym-pusht, damping holds the block
    )
    pusher_friction: float = 0.0  # Coulomb coefficient between block and pusher, walls included; gym-pusht's is 0


@dataclass(frozen=True)
class ArmConfig:
    """Tracking of an action: a PD-controlled set-point, then inverse kinematics."""

    stick_length: float = 0.25  # from the flange to the pusher's tip, metres
    tip_height: float = 0.004  # height of the tip above the table, metres
    max_speed: float = 0.5  # limit of the set-point's speed, metres a second
    stiffness: float = 100.0  # PD gain on the distance to the action, 1 / s^2, as in gym-pusht
    damping: float = 20.0  # PD gain on the velocity, 1 / s, as in gym-pusht
    offset: tuple[float, float] = (0.0, 0.0)  # x, y added to every action, metres: an arm that is calibrated badly


@dataclass(frozen=True)
class CameraConfig:
    """A pinhole camera with square pixels and its optical axis through the centre of a square image."""

    position: Vector  # metres, base frame
    target: Vector  # a point that the optical axis passes, metres
    field_of_view: float  # degrees, across the whole image
    size: int = 96  # pixels
    supersampling: int = 2  # rays a pixel along each side, averaged
    up: Vector = (0.0, 0.0, 1.0)  # a direction that is up in the image


@dataclass(frozen=True)
class ColourConfig:
    """RGB, 0 to 1."""

    backdrop: Vector = (0.70, 0.74, 0.78)
    table: Vector = (0.953, 0.941, 0.906)
    rim: Vector = (0.55, 0.55, 0.57)
    goal: Vector = (0.45, 0.85, 0.45)
    block: Vector = (0.20, 0.28, 0.55)
    pusher: Vector = (0.90, 0.16, 0.12)
    arm: Vector = (0.80, 0.80, 0.82)
    joint: Vector = (0.25, 0.25, 0.28)


def _cameras() -> dict[str, CameraConfig]:
    return {
        "top": CameraConfig(position=(0.95, 0.0, 1.05), target=(0.44, 0.0, 0.0), field_of_view=21.0),
        "oblique": CameraConfig(position=(0.75, 0.75, 0.55), target=(0.43, 0.0, 0.05), field_of_view=34.0),
        "video": CameraConfig(
            position=(1.15, 0.55, 0.75), target=(0.38, 0.0, 0.08), field_of_view=38.0, size=384, supersampling=2
        ),
    }


@dataclass(frozen=True)
class GoalConfig:
    """One of several goals on the table; its name is its colour, as used in instructions."""

    pose: Vector  # x, y in metres, angle in radians
    colour: Vector  # RGB, 0 to 1


@dataclass(frozen=True)
class PushTConfig:
    """The PushT scene; `video` is the camera of videos and contact sheets, which `PushTEnv.render` looks through.

    With `goals` it is the language-conditioned task, and `goal_pose` and `colours.goal` and `.block` are not used.
    """

    physics: PhysicsConfig = field(default_factory=PhysicsConfig)
    arm: ArmConfig = field(default_factory=ArmConfig)
    colours: ColourConfig = field(default_factory=ColourConfig)
    cameras: dict[str, CameraConfig] = field(default_factory=_cameras)
    """By name; a new one: `+scene.cameras.side={position: [...], target: [...], field_of_view: 30}`."""
    goal_pose: Vector = tuple(GOAL_POSE.tolist())  # x, y in metres, angle in radians
    max_episode_steps: int = 300  # control steps after which an episode is truncated
    goals: dict[str, GoalConfig] = field(default_factory=dict)
    """By name; an instruction names one of them. Empty: the single goal at `goal_pose`."""
    block_colours: dict[str, Vector] = field(default_factory=dict)
    """With goals the block has one of these, sampled per episode; none: `colours.block`."""
    paraphrases: str = "training"  # the templates that instructions are made from: training | held_out
    instruction: str | None = None  # used in every episode instead of a sampled one

    def __post_init__(self) -> None:
        if self.paraphrases not in PARAPHRASES:
            raise InputError(f"scene.paraphrases: expected one of {list(PARAPHRASES)}, found {self.paraphrases!r}")
        if self.instruction is not None and not self.instruction.strip():
            raise InputError(f"scene.instruction: expected some words or null, found {self.instruction!r}")
        for_goals = {
            "block_colours": self.block_colours,
            "paraphrases": self.paraphrases != "training",
            "instruction": self.instruction,
        }
        for key in (key for key, value in for_goals.items() if value and not self.goals):
            raise InputError(f"scene.{key}: expected goals beside it, as scene=pusht_language has, found none")

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> PushTConfig:
        """The configuration with `values` replacing defaults; `InputError` names an invalid key or type.

        A camera that exists by default may be given in part; a new one needs position, target and field_of_view, a goal
        pose and colour.
        """
        return replace(cls(), values, "scene")
