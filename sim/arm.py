"""The xArm6 with a vertical pusher in its flange: a light URDF and closed-form inverse kinematics.

With the tool vertical and joint 4 at zero every axis but the first and the last is perpendicular to one vertical plane
through the base, so that the arm is a planar chain of two bars (shoulder-elbow, elbow-wrist) under a fixed wrist.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pybullet_data

from sim.config import ColourConfig
from sim.geometry import PUSHER_RADIUS

# From pybullet_data's xarm6_robot.urdf, metres: the joints' offsets in the vertical plane of the arm.
SHOULDER_HEIGHT = 0.267
ELBOW = (0.0535, 0.2845)
WRIST = (0.0775, -0.3425)
FLANGE = (0.076, 0.097)  # forwards and down from the wrist when the tool is vertical
UPPER, FORE = np.hypot(*ELBOW), np.hypot(*WRIST)
JOINTS = 6
JOINT_FORCES = [50.0, 50.0, 32.0, 32.0, 32.0, 20.0]  # N m, the URDF's effort limits
PUSHER_HEIGHT = 0.04  # height of the stick's wide part, metres
ORIGIN = (
    "sim.arm.write_urdf: the kinematics of pybullet_data's xArm6 (xarm_ros, UFACTORY, BSD), drawn anew, with a pusher"
)
CONTACT_MARGIN = 0.001  # metres: PyBullet's collision margin around shapes


def inverse_kinematics(tip: np.ndarray, stick_length: float) -> np.ndarray:
    """Joint angles (..., 6) in radians with the tip of the vertical stick at positions (..., 3) in metres.

    The elbow is up, joints 4 and 6 stay at zero. Positions out of reach give NaN.
    """
    x, y, z = np.moveaxis(np.asarray(tip, float), -1, 0)
    reach = np.hypot(x, y) - FLANGE[0]
    height = z + stick_length + FLANGE[1] - SHOULDER_HEIGHT
    cosine = (reach**2 + height**2 - UPPER**2 - FORE**2) / (2 * UPPER * FORE)
    with np.errstate(invalid="ignore"):
        bend = np.arccos(cosine)  # from the upper arm's direction down to the forearm's
    upper = np.arctan2(height, reach) + np.arctan2(FORE * np.sin(bend), UPPER + FORE * np.cos(bend))
    # The URDF measures from the pose where the elbow stands at ELBOW and the wrist hangs at WRIST below it.
    shoulder = np.arctan2(ELBOW[1], ELBOW[0]) - upper
    elbow = -(upper - bend - np.arctan2(WRIST[1], WRIST[0])) - shoulder
    wrist = -shoulder - elbow
    zero = np.zeros_like(x)
    return np.stack([np.arctan2(y, x), shoulder, elbow, zero, wrist, zero], axis=-1)


def write_urdf(path: Path, stick_length: float, colours: ColourConfig, base: str = "world") -> None:
    """Write a URDF of pybullet_data's xArm6 with cylinders for meshes and the pusher as its only collision shape.

    `base` is the massless root link: Bullet requires a mass for any name but "world", while in ROS it is "base_link"
    (REP 105), the frame of the poses.
    """
    source = Path(pybullet_data.getDataPath()) / "xarm" / "xarm6_robot.urdf"
    robot = ET.parse(source).getroot()
    robot.insert(0, ET.Comment(ORIGIN))
    for element in robot.findall("gazebo") + robot.findall("transmission"):
        robot.remove(element)
    links = {link.get("name"): link for link in robot.iter("link")}
    for root in (links["world"], robot.find("joint[@name='world_joint']/parent")):
        assert root is not None
        root.set("name" if root.tag == "link" else "link", base)
    for link in links.values():
        for element in link.findall("visual") + link.findall("collision"):
            link.remove(element)
    for name, start, end, radius, colour in _arm_cylinders():
        _add_cylinder(links[name], "visual", start, end, radius, getattr(colours, colour))

    pusher = ET.SubElement(robot, "link", name="pusher")
    inertial = ET.SubElement(pusher, "inertial")
    ET.SubElement(inertial, "mass", value="0.05")
    ET.SubElement(inertial, "inertia", ixx="1e-4", iyy="1e-4", izz="1e-5", ixy="0", ixz="0", iyz="0")
    tip, top, flange = (0.0, 0.0, 0.0), (0.0, 0.0, -PUSHER_HEIGHT), (0.0, 0.0, -stick_length)
    _add_cylinder(pusher, "visual", tip, top, PUSHER_RADIUS, colours.pusher)
    _add_cylinder(pusher, "visual", top, flange, 0.4 * PUSHER_RADIUS, colours.joint)
    _add_cylinder(pusher, "collision", tip, top, PUSHER_RADIUS - CONTACT_MARGIN)
    joint = ET.SubElement(robot, "joint", name="pusher_joint", type="fixed")
    ET.SubElement(joint, "parent", link="link6")
    ET.SubElement(joint, "child", link="pusher")
    ET.SubElement(joint, "origin", rpy="0 0 0", xyz=f"0 0 {stick_length}")
    ET.ElementTree(robot).write(path)


def _arm_cylinders() -> list[tuple[str, tuple, tuple, float, str]]:
    """Link, start and end in the link's frame, radius (metres) and colour of the cylinders that draw the arm."""
    upper, fore = (ELBOW[0], -ELBOW[1], 0.0), (WRIST[0], -WRIST[1], 0.0)
    flange = (FLANGE[0], FLANGE[1], 0.0)
    return [
        ("link_base", (0, 0, 0), (0, 0, 0.19), 0.06, "arm"),
        ("link1", (0, 0, -0.08), (0, 0, 0.05), 0.055, "arm"),
        ("link1", (0, -0.065, 0), (0, 0.065, 0), 0.05, "joint"),
        ("link2", (0, 0, 0), upper, 0.042, "arm"),
        ("link3", (0, 0, -0.06), (0, 0, 0.06), 0.042, "joint"),
        ("link3", (0, 0, 0), fore, 0.036, "arm"),
        ("link5", (0, 0, -0.045), (0, 0, 0.045), 0.034, "joint"),
        ("link5", (0, 0, 0), (FLANGE[0], 0, 0), 0.03, "arm"),
        ("link5", (FLANGE[0], -0.03, 0), flange, 0.03, "arm"),
        ("link6", (0, 0, -0.012), (0, 0, 0.004), 0.03, "joint"),
    ]


def _add_cylinder(
    link: ET.Element, kind: str, start: tuple, end: tuple, radius: float, colour: tuple | None = None
) -> None:
    start_point, end_point = np.asarray(start, float), np.asarray(end, float)
    centre, axis = (start_point + end_point) / 2, end_point - start_point
    length = float(np.linalg.norm(axis))
    pitch, yaw = np.arccos(axis[2] / length), np.arctan2(axis[1], axis[0])
    element = ET.SubElement(link, kind)
    ET.SubElement(element, "origin", xyz=" ".join(map(str, centre)), rpy=f"0 {pitch} {yaw}")
    geometry = ET.SubElement(element, "geometry")
    ET.SubElement(geometry, "cylinder", radius=str(radius), length=str(length))
    if colour is not None:
        material = ET.SubElement(element, "material", name=f"{link.get('name')}_{len(link)}")
        ET.SubElement(material, "color", rgba=" ".join(map(str, (*colour, 1.0))))
