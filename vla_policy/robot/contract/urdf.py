"""Checks a contract against a URDF: joints, links and limits."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vla_policy.interfaces import InputError
from vla_policy.robot.contract.findings import NOTE, OK, WRONG, Finding
from vla_policy.robot.contract.spec import Contract, Output

MARGIN = 0.1  # rad or m beyond a joint's limits that may be left to the driver to clip


@dataclass(frozen=True)
class Joint:
    """`low`, `high` and `speed` in rad or m (per second); infinite if the URDF has none."""

    kind: str
    low: float
    high: float
    speed: float
    mimics: bool


def compare(contract: Contract, urdf: Path) -> list[Finding]:
    """Findings on the contract's joints, frames and limits in `urdf`."""
    joints, links = read(urdf)
    found = []
    wanted = [(source.topic, source.joints) for stream in contract.streams for source in stream.sources]
    wanted += [(output.topic, output.joints) for output in contract.command.outputs]
    for topic, names in wanted:
        missing = [name for name in names if name not in joints]
        still = [name for name in names if name not in missing and joints[name].kind == "fixed"]
        if missing:
            known = sorted(name for name, joint in joints.items() if joint.kind != "fixed")
            text = f"{topic}: expected the joints {missing} in {urdf.name}, found {known}"
            found.append(Finding(WRONG, f"{text}; `fields` names them where the channels are called otherwise"))
        if still:
            found.append(Finding(WRONG, f"{topic}: expected joints that move, found the fixed {still} in {urdf.name}"))
        if names and not missing and not still:
            found.append(Finding(OK, f"{topic}: all of its joints are in {urdf.name}"))
    for output in contract.command.outputs:
        if output.inverse is None:  # inverse kinematics enforce the limits of their own URDF
            found += _limits(contract, output, joints, urdf.name)
    frames = {contract.command.frame_id, *(output.frame_id for output in contract.command.outputs)}
    for frame in sorted(frames - links - {""}):
        found.append(Finding(NOTE, f"frame_id: {frame!r} is no link of {urdf.name}, which has {sorted(links)[:20]}"))
    return found


def _limits(contract: Contract, output: Output, joints: dict[str, Joint], urdf: str) -> list[Finding]:
    command, found = contract.command, []
    ends = np.sort([output.part(command.low), output.part(command.high)], axis=0)
    for k, name in enumerate(output.joints):
        joint = joints.get(name)
        if joint is None or joint.kind == "fixed":
            continue
        if joint.mimics:
            found.append(
                Finding(WRONG, f"{name}: expected a joint of its own, found one that mimics another in {urdf}")
            )
        beyond = max(joint.low - ends[0, k], ends[1, k] - joint.high)
        box = f"{name}: the box is {ends[0, k]:.4g} to {ends[1, k]:.4g}, {urdf} has {joint.low:.4g} to {joint.high:.4g}"
        if beyond > MARGIN:
            found.append(Finding(WRONG, f"{box}{'; degrees?' if beyond > 3 * np.pi else ''}"))
        elif beyond > 1e-6:
            found.append(Finding(NOTE, f"{box}: the driver has to clip the last {beyond:.2g}"))
        if output.speed[k] > joint.speed:
            text = f"{name}: the speed is {output.speed[k]:.4g}, {urdf} has {joint.speed:.4g} at most"
            found.append(Finding(NOTE, text))
    return found


def read(urdf: Path) -> tuple[dict[str, Joint], set[str]]:
    """Joints by name, and link names; `InputError` if it is no URDF."""
    try:
        root = ElementTree.fromstring(urdf.read_bytes())
    except (OSError, ElementTree.ParseError, ValueError, LookupError) as error:
        raise InputError(f"{urdf}: expected a URDF, found {error}") from None
    names = [joint.get("name", "") for joint in root.findall("joint")]
    if root.tag != "robot" or not names or any("${" in name for name in names):
        raise InputError(f"{urdf}: expected a plain URDF with joints (ros2 run xacro xacro ... makes one), found none")
    joints = {name: _joint(urdf, joint) for name, joint in zip(names, root.findall("joint"), strict=True)}
    return joints, {link.get("name", "") for link in root.findall("link")}


def _joint(urdf: Path, element: ElementTree.Element) -> Joint:
    kind, limit = element.get("type", "fixed"), element.find("limit")
    given = {} if limit is None else limit.attrib
    unlimited = np.inf if kind == "continuous" else 0.0
    try:
        low, high = float(given.get("lower", -unlimited)), float(given.get("upper", unlimited))
        speed = float(given.get("velocity", np.inf))
    except ValueError:
        name = element.get("name")
        raise InputError(f"{urdf}: joint {name!r}: limit: expected numbers, found {dict(given)}") from None
    if kind == "continuous":
        low, high = -np.inf, np.inf
    return Joint(kind, low, high, speed, element.find("mimic") is not None)
